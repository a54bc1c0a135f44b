//! Two runs, or two prompt versions of one, row by row: who wants to know why a number moved looks at these.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Measures;
use crate::evaluation::diff::{
    Change, FieldChange, Piece, compare_json, compare_runs, compare_texts,
};
use crate::evaluation::metrics::{Direction, Metric};
use crate::evaluation::sample::Score;
use crate::id::EvaluationRunId;
use crate::store::{EvaluationSample, SampleFilter, SampleScores, Store, StoreError};

/// The samples of one prompt version of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub run: EvaluationRunId,
    /// Its id; empty where the test set's text was sent as it is.
    pub prompt: String,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub before: Part,
    pub after: Part,
    /// By whose scores; the leading metric's if absent.
    pub metric: Option<String>,
    /// A change of at most this is none.
    pub tolerance: f64,
    /// Only rows that changed so.
    pub change: Option<Change>,
    pub offset: usize,
    pub limit: usize,
}

/// A page of rows, worst first, and how many changed how.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    pub metric: String,
    pub worse: usize,
    pub same: usize,
    pub better: usize,
    pub unknown: usize,
    pub rows: Vec<RowDifference>,
    /// Where the next page begins.
    pub next: Option<usize>,
}

/// One row on one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Half {
    pub score: Option<f64>,
    pub output: Option<Value>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// One row on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowDifference {
    pub item: String,
    pub change: Change,
    /// Positive is better, whatever the metric's direction.
    pub gain: Option<f64>,
    /// Absent where that side does not have the row.
    pub before: Option<Half>,
    pub after: Option<Half>,
    /// The outputs by word; empty unless both are texts.
    pub text: Vec<Piece>,
    /// Fields that differ; empty unless both outputs are JSON.
    pub fields: Vec<FieldChange>,
}

/// Compares two parts. `plan` is the plan of the run after.
///
/// # Errors
/// [`StoreError::Invalid`] for a metric that the run does not measure.
pub async fn compare(
    store: &Store,
    plan: &Value,
    wanted: &Difference,
) -> Result<Compared, StoreError> {
    let (metric, direction) = metric_of(plan, wanted.metric.as_deref())?;
    let before = scores(store, &wanted.before, &metric).await?;
    let after = scores(store, &wanted.after, &metric).await?;
    let all = compare_runs(&before, &after, direction, wanted.tolerance);
    let mut rows: Vec<_> = all
        .rows
        .into_iter()
        .filter(|row| wanted.change.is_none_or(|change| change == row.change))
        .skip(wanted.offset)
        .take(wanted.limit.saturating_add(1))
        .collect();
    let next = (rows.len() > wanted.limit).then(|| wanted.offset + wanted.limit);
    rows.truncate(wanted.limit);
    let items: Vec<String> = rows.iter().map(|row| row.row.clone()).collect();
    let mut halves_before = halves(store, &wanted.before, &items).await?;
    let mut halves_after = halves(store, &wanted.after, &items).await?;
    let value = |score: Option<Score>| score.as_ref().and_then(Score::value);
    let rows = rows
        .into_iter()
        .map(|row| {
            let half = |halves: &mut HashMap<String, EvaluationSample>, score| {
                let sample = halves.remove(&row.row)?;
                Some(Half {
                    score: value(score),
                    output: sample.output.map(|output| output.0),
                    error: sample.error,
                })
            };
            let (before, after) = (
                half(&mut halves_before, row.before.clone()),
                half(&mut halves_after, row.after.clone()),
            );
            let (text, fields) = match (said(before.as_ref()), said(after.as_ref())) {
                (Some(before), Some(after)) => (
                    compare_texts(before, after),
                    compare_json(before, after).unwrap_or_default(),
                ),
                _ => (Vec::new(), Vec::new()),
            };
            RowDifference {
                item: row.row.clone(),
                change: row.change,
                gain: row.gain,
                text,
                fields,
                before,
                after,
            }
        })
        .collect();
    Ok(Compared {
        metric,
        worse: all.worse,
        same: all.same,
        better: all.better,
        unknown: all.unknown,
        rows,
        next,
    })
}

fn metric_of(plan: &Value, named: Option<&str>) -> Result<(String, Direction), StoreError> {
    // A run that was recorded by hand has no plan: its leading score is all there is.
    let measures = Measures::read(&plan["metrics"]).unwrap_or_default();
    let name = named.map_or_else(|| measures.leading(), str::to_owned);
    let found = measures.measure.iter().find(|metric| metric.name() == name);
    // Times are kept of each sample, but not as scores, unless one leads.
    let times = |name: &String| name.contains("_us/") && *name != measures.leading();
    let names: Vec<String> = measures
        .names()
        .into_iter()
        .filter(|name| !times(name))
        .collect();
    if named.is_some() && !names.contains(&name) {
        let problem = format!("is not compared by row; there are {}", names.join(", "));
        return Err(StoreError::invalid("metric", problem));
    }
    Ok((name, found.map_or(Direction::Higher, Metric::direction)))
}

/// The scores of a part by one metric; what is not among the scores is the leading one.
async fn scores(
    store: &Store,
    part: &Part,
    metric: &str,
) -> Result<Vec<(String, Score)>, StoreError> {
    let all = store.sample_scores(part.run, &part.prompt).await?;
    let score = |sample: &SampleScores| match sample.scores.0.get(metric) {
        Some(value) => value.as_f64(),
        None => sample.score,
    };
    let scored = all.into_iter().map(|sample| {
        let score = score(&sample).map_or_else(
            || Score::NotApplicable("it has no score".into()),
            Score::Value,
        );
        (sample.item, score)
    });
    Ok(scored.collect())
}

async fn halves(
    store: &Store,
    part: &Part,
    items: &[String],
) -> Result<HashMap<String, EvaluationSample>, StoreError> {
    if items.is_empty() {
        return Ok(HashMap::new());
    }
    let filter = SampleFilter {
        prompt_version: Some(part.prompt.clone()),
        items: items.to_vec(),
        ..SampleFilter::default()
    };
    let limit = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let page = store.samples(part.run, &filter, limit).await?;
    let samples = page.items.into_iter();
    Ok(samples
        .map(|sample| (sample.item.clone(), sample))
        .collect())
}

/// The text that was answered.
fn said(half: Option<&Half>) -> Option<&str> {
    half?.output.as_ref()?["text"].as_str()
}
