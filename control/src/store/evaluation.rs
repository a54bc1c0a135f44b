//! Evaluations, their runs, and each input and output of a run.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::any::AnyRow;

use super::column::{Column, Document, Json, Value, arguments, read};
use super::{Actor, Page, Store, StoreError, Stored, Tx, mapped, stateful_run};
use crate::domain::record::{Evaluation, EvaluationRun, Model, PromptVersion};
use crate::domain::task::TaskState;
use crate::id::{EvaluationId, EvaluationRunId, ModelVersionId, PromptVersionId, TaskId};
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
    fixed [evaluation, model_version, author, status, artifact_digest, test_set, policy_digest, baseline_version, plan],
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
    /// To the first token, where the answer was generated.
    pub first_token_us: Option<i64>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// The test set's own labels for the row.
    pub tags: Json<Vec<String>>,
    /// Why the answer ended, what a judge said.
    pub detail: Option<Document>,
    pub at: Timestamp,
}

const COLUMNS: &str = "run, prompt_version, ordinal, item, input, expected, output, scores, score, passed, error, \
                       latency_us, first_token_us, input_tokens, output_tokens, tags, detail, at";
const COLUMN_COUNT: usize = 18;
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
            first_token_us: read(row, "first_token_us")?,
            input_tokens: read(row, "input_tokens")?,
            output_tokens: read(row, "output_tokens")?,
            tags: read(row, "tags")?,
            detail: read(row, "detail")?,
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
            self.first_token_us.to_value(),
            self.input_tokens.to_value(),
            self.output_tokens.to_value(),
            self.tags.to_value(),
            self.detail.to_value(),
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
    /// Any of these; none does not restrict.
    pub items: Vec<String>,
    pub score_below: Option<f64>,
    pub score_at_least: Option<f64>,
    /// One of the row's tags.
    pub tag: Option<String>,
    /// Whether the request failed, rather than the answer.
    pub error: Option<bool>,
    /// Part of input, output or what was expected, in whatever case.
    pub contains: Option<String>,
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

    /// Whether a run about a version is going on.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn is_being_evaluated(
        &mut self,
        version: ModelVersionId,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS running FROM evaluation_runs WHERE model_version = $1 AND status = 'running' \
             AND deleted_at IS NULL",
            arguments([version.to_value()])?,
        )
        .fetch_one(self.connection())
        .await?;
        Ok(read::<i64>(&row, "running")? > 0)
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

/// What a sample was given, without what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleScores {
    pub item: String,
    pub scores: Document,
    /// The leading metric's.
    pub score: Option<f64>,
}

/// A run whose task has ended without ending the run: it was cancelled before it began, lost too often, or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct AbandonedRun {
    pub run: EvaluationRunId,
    pub task: TaskId,
    pub state: TaskState,
    pub error: Option<Document>,
}

impl Store {
    /// The places that a run has samples of: prompt version and ordinal.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn sample_places(
        &self,
        run: EvaluationRunId,
    ) -> Result<HashSet<(String, i64)>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT prompt_version, ordinal FROM evaluation_samples WHERE run = $1",
            arguments([run.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| Ok((read(row, "prompt_version")?, read(row, "ordinal")?)))
            .collect()
    }

    /// Items and scores of a run's samples by one prompt version, in the order of the test set.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn sample_scores(
        &self,
        run: EvaluationRunId,
        prompt_version: &str,
    ) -> Result<Vec<SampleScores>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT item, scores, score FROM evaluation_samples WHERE run = $1 AND prompt_version = $2 ORDER BY ordinal",
            arguments([run.to_value(), prompt_version.to_owned().to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SampleScores {
                    item: read(row, "item")?,
                    scores: read(row, "scores")?,
                    score: read(row, "score")?,
                })
            })
            .collect()
    }

    /// Runs that nobody will end: see [`AbandonedRun`].
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn abandoned_runs(&self) -> Result<Vec<AbandonedRun>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.id, t.id AS task, t.state, t.error FROM evaluation_runs r JOIN tasks t ON t.id = r.task \
             WHERE r.finished_at IS NULL AND r.status IN ('queued', 'running') AND r.deleted_at IS NULL \
             AND (t.finished_at IS NOT NULL OR t.state = 'cancelled') ORDER BY r.id",
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(AbandonedRun {
                    run: read(row, "id")?,
                    task: read(row, "task")?,
                    state: read(row, "state")?,
                    error: read(row, "error")?,
                })
            })
            .collect()
    }

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
            (
                "score >=",
                filter.score_at_least.as_ref().map(Column::to_value),
            ),
        ];
        for (condition, value) in conditions {
            if let Some(value) = value {
                values.push(value);
                clauses.push(format!("{condition} ${}", values.len()));
            }
        }
        if !filter.items.is_empty() {
            let places: Vec<String> = filter
                .items
                .iter()
                .map(|item| {
                    values.push(item.to_value());
                    format!("${}", values.len())
                })
                .collect();
            clauses.push(format!("item IN ({})", places.join(", ")));
        }
        match filter.error {
            Some(true) => clauses.push("error IS NOT NULL".to_owned()),
            Some(false) => clauses.push("error IS NULL".to_owned()),
            None => {}
        }
        if let Some(tag) = &filter.tag {
            values.push(like(&in_json(tag, true)).to_value());
            clauses.push(format!("tags LIKE ${} ESCAPE '\\'", values.len()));
        }
        if let Some(part) = &filter.contains {
            values.push(like(&in_json(part, false).to_lowercase()).to_value());
            let place = values.len();
            let columns = ["input", "output", "expected"];
            let any = columns.map(|column| format!("lower({column}) LIKE ${place} ESCAPE '\\'"));
            clauses.push(format!("({})", any.join(" OR ")));
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

/// A text as it stands within a JSON document; `whole` with its quotes.
fn in_json(text: &str, whole: bool) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if whole {
        quoted
    } else {
        quoted[1..quoted.len() - 1].to_owned()
    }
}

/// A pattern for what holds `part`.
fn like(part: &str) -> String {
    let escaped = part
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{escaped}%")
}

fn decode_cursor(cursor: &str) -> Result<(i64, String), StoreError> {
    cursor
        .split_once('.')
        .and_then(|(ordinal, prompt)| Some((ordinal.parse().ok()?, prompt.to_owned())))
        .ok_or_else(|| StoreError::invalid("cursor", "is not one that a list of samples gave"))
}

#[cfg(test)]
mod tests;
