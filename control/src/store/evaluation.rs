//! Evaluations, their runs, and each input and output of a run.

use serde::Serialize;
use sqlx::any::AnyRow;

use super::column::{Column, Document, Value, arguments, read};
use super::{Actor, Page, Store, StoreError, Stored, Tx, mapped, stateful_run};
use crate::domain::record::{Evaluation, EvaluationRun, Model, PromptVersion};
use crate::id::{EvaluationId, EvaluationRunId, PromptVersionId};
use crate::time::Timestamp;

mapped! {
    Evaluation(EvaluationId) in "evaluations":
    fixed [model, method],
    editable [owner, name, test_set, metrics, thresholds, policy_digest, settings]
}
mapped! {
    PromptVersion(PromptVersionId) in "prompt_versions":
    fixed [model, author, name, number, digest, template, sampling],
    editable [note]
}
mapped! {
    EvaluationRun(EvaluationRunId) in "evaluation_runs":
    fixed [evaluation, model_version, author, status, artifact_digest, test_set, policy_digest, baseline_version],
    editable [task, samples, scores, verdict, report, withdrawn_at, error, started_at, finished_at]
}
stateful_run!(EvaluationRun);

/// One input, what was expected, what came, and how it was judged.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EvaluationSample {
    pub run: EvaluationRunId,
    /// The prompt version's id, or empty where the test set's text is sent as it is.
    pub prompt_version: String,
    /// Place in the test set.
    pub ordinal: i64,
    /// The item's own id in the test set: runs are compared by it.
    pub item: String,
    pub input: Document,
    pub expected: Option<Document>,
    pub output: Option<Document>,
    pub scores: Document,
    /// The leading metric.
    pub score: Option<f64>,
    pub passed: bool,
    pub error: Option<String>,
    pub latency_us: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub at: Timestamp,
}

const COLUMNS: &str = "run, prompt_version, ordinal, item, input, expected, output, scores, score, passed, error, \
                       latency_us, input_tokens, output_tokens, at";
const COLUMN_COUNT: usize = 15;
/// Rows a statement. SQLite looks every place up among those before it, so that longer statements cost more a row.
const BATCH: usize = 100;

impl EvaluationSample {
    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            run: read(row, "run")?,
            prompt_version: read(row, "prompt_version")?,
            ordinal: read(row, "ordinal")?,
            item: read(row, "item")?,
            input: read(row, "input")?,
            expected: read(row, "expected")?,
            output: read(row, "output")?,
            scores: read(row, "scores")?,
            score: read(row, "score")?,
            passed: read(row, "passed")?,
            error: read(row, "error")?,
            latency_us: read(row, "latency_us")?,
            input_tokens: read(row, "input_tokens")?,
            output_tokens: read(row, "output_tokens")?,
            at: read(row, "at")?,
        })
    }

    fn values(&self) -> [Value; COLUMN_COUNT] {
        [
            self.run.to_value(),
            self.prompt_version.to_value(),
            self.ordinal.to_value(),
            self.item.to_value(),
            self.input.to_value(),
            self.expected.to_value(),
            self.output.to_value(),
            self.scores.to_value(),
            self.score.to_value(),
            self.passed.to_value(),
            self.error.to_value(),
            self.latency_us.to_value(),
            self.input_tokens.to_value(),
            self.output_tokens.to_value(),
            self.at.to_value(),
        ]
    }
}

/// Which samples of a run to show; an absent field does not restrict.
#[derive(Debug, Clone, Default)]
pub struct SampleFilter {
    pub prompt_version: Option<String>,
    pub passed: Option<bool>,
    pub item: Option<String>,
    pub score_below: Option<f64>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// `(…), (…)` with as many places as `rows` rows of `columns` columns have.
pub(super) fn places(rows: usize, columns: usize) -> String {
    (0..rows)
        .map(|row| {
            let inner: Vec<String> = (1..=columns)
                .map(|column| format!("${}", row * columns + column))
                .collect();
            format!("({})", inner.join(", "))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

impl Tx {
    /// Adds the next version of a prompt; `number` is set here.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the model does not exist.
    pub async fn add_prompt_version(
        &mut self,
        actor: &Actor,
        mut prompt: PromptVersion,
    ) -> Result<Stored<PromptVersion>, StoreError> {
        self.get::<Model>(prompt.model).await?;
        self.lock("models", prompt.model.to_value()).await?;
        let values = arguments([prompt.model.to_value(), prompt.name.to_value()])?;
        let row = sqlx::query_with(
            "SELECT COALESCE(MAX(number), 0) + 1 AS next FROM prompt_versions WHERE model = $1 AND name = $2",
            values,
        )
        .fetch_one(self.connection())
        .await?;
        prompt.number = read(&row, "next")?;
        self.create(actor, prompt).await
    }

    /// Appends samples to a run. One that is there already is left as it is, so that a restarted run may
    /// send its last batch again.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if there is no such run.
    pub async fn add_samples(&mut self, samples: &[EvaluationSample]) -> Result<(), StoreError> {
        for batch in samples.chunks(BATCH) {
            let sql = format!(
                "INSERT INTO evaluation_samples ({COLUMNS}) VALUES {} ON CONFLICT (run, prompt_version, ordinal) DO NOTHING",
                places(batch.len(), COLUMN_COUNT)
            );
            let values = arguments(batch.iter().flat_map(EvaluationSample::values))?;
            // Safe: made of constants and places.
            sqlx::query_with(sqlx::AssertSqlSafe(sql), values)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}

impl Store {
    /// The samples of a run in the order of the test set.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a foreign cursor.
    pub async fn samples(
        &self,
        run: EvaluationRunId,
        filter: &SampleFilter,
        limit: u32,
    ) -> Result<Page<EvaluationSample>, StoreError> {
        let mut clauses = vec!["run = $1".to_owned()];
        let mut values = vec![run.to_value()];
        let conditions = [
            (
                "prompt_version =",
                filter.prompt_version.as_ref().map(Column::to_value),
            ),
            ("passed =", filter.passed.as_ref().map(Column::to_value)),
            ("item =", filter.item.as_ref().map(Column::to_value)),
            ("score <", filter.score_below.as_ref().map(Column::to_value)),
        ];
        for (condition, value) in conditions {
            if let Some(value) = value {
                values.push(value);
                clauses.push(format!("{condition} ${}", values.len()));
            }
        }
        if let Some(cursor) = &filter.after {
            let (ordinal, prompt) = decode_cursor(cursor)?;
            values.extend([ordinal.to_value(), prompt.to_value()]);
            clauses.push(format!(
                "(ordinal, prompt_version) > (${}, ${})",
                values.len() - 1,
                values.len()
            ));
        }
        values.push(i64::from(limit).saturating_add(1).to_value());
        let sql = format!(
            "SELECT {COLUMNS} FROM evaluation_samples WHERE {} ORDER BY ordinal, prompt_version LIMIT ${}",
            clauses.join(" AND "),
            values.len()
        );
        // Safe: made of constants and places.
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let more = rows.len() > limit as usize;
        let items = rows
            .iter()
            .take(limit as usize)
            .map(EvaluationSample::from_row)
            .collect::<Result<Vec<_>, _>>()?;
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| format!("{}.{}", last.ordinal, last.prompt_version));
        Ok(Page { items, next })
    }
}

fn decode_cursor(cursor: &str) -> Result<(i64, String), StoreError> {
    cursor
        .split_once('.')
        .and_then(|(ordinal, prompt)| Some((ordinal.parse().ok()?, prompt.to_owned())))
        .ok_or_else(|| StoreError::invalid("cursor", "is not one that a list of samples gave"))
}

#[cfg(test)]
mod tests;
