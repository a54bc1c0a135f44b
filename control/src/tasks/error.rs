//! What can go wrong with a task: with its row, or with the work itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::store::StoreError;

/// Why the queue did not do it.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// 409. Another attempt, or the end of the task, came between: what this worker knows is out of date.
    #[error(
        "task {task} is no longer held by this attempt (fencing token {token}); its result is discarded"
    )]
    Fenced { task: String, token: i64 },
    /// 409.
    #[error(
        "idempotency_key: a task of kind {kind} was made with this key from other parameters; use another key"
    )]
    OtherParams { kind: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TaskError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<crate::domain::machine::Illegal> for TaskError {
    fn from(error: crate::domain::machine::Illegal) -> Self {
        Self::Store(error.into())
    }
}

/// Why the work failed, as it stands in the task's `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct TaskFailure {
    /// A stable word for programs: `parity_failed`.
    pub code: String,
    /// For people; names the field or the numbers.
    pub message: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
    /// Whether another attempt, with the same parameters, may succeed.
    #[serde(default)]
    pub may_pass: bool,
}

impl TaskFailure {
    /// One that the next attempt would meet again.
    pub fn lasting(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            details: Value::Null,
            may_pass: false,
        }
    }

    /// One that may be gone by the next attempt.
    pub fn passing(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::lasting(code, message)
        }
    }

    #[must_use]
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(super) fn document(&self) -> Value {
        json!(self)
    }
}

impl From<StoreError> for TaskFailure {
    fn from(error: StoreError) -> Self {
        let text = chain(&error);
        if error.is_retryable() {
            Self::passing("store_unavailable", text)
        } else {
            Self::lasting("store", text)
        }
    }
}

impl From<TaskError> for TaskFailure {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Store(error) => error.into(),
            other => Self::lasting("fenced", other.to_string()),
        }
    }
}

impl From<std::io::Error> for TaskFailure {
    fn from(error: std::io::Error) -> Self {
        Self::passing("io", error.to_string())
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
