//! The queue's rows. Claiming, heartbeats and retries are statements of the task engine.

use super::column::{Column, Document, arguments, read};
use super::{Stateful, Store, StoreError, mapped};
use crate::domain::machine::Machine as _;
use crate::domain::record::Task;
use crate::domain::task::{TaskEvent, TaskState};
use crate::id::TaskId;
use crate::time::Timestamp;

mapped! {
    Task(TaskId) in "tasks":
    fixed [
        kind, department, principal, parent, subject_kind, subject_id, params, state, max_attempts, timeout_us,
        expires_at, idempotency_key,
    ],
    editable [
        result, error, priority, run_at, attempt, worker, lease_until, fencing_token, heartbeat_at, deadline_at,
        progress_fraction, progress_message, cancel_requested, started_at, finished_at,
    ]
}

impl Stateful for Task {
    type State = TaskState;
    fn state(&self) -> TaskState {
        self.state
    }
    fn set_state(&mut self, state: TaskState) {
        self.state = state;
    }
    /// `failed` is an end for one task and a beginning for another, so the instant decides.
    fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }
    fn stepped(&mut self, _event: TaskEvent, now: Timestamp) {
        if self.state.is_final() {
            self.finished_at = Some(now);
        }
    }
}

/// A line of a task's log: output, progress, a metric, a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct LoggedEvent {
    pub sequence: i64,
    pub attempt: i64,
    pub at: Timestamp,
    pub kind: String,
    pub body: Document,
}

impl Store {
    /// What a task logged after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn task_events(
        &self,
        task: TaskId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<LoggedEvent>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT sequence, attempt, at, kind, body FROM task_events WHERE task = $1 AND sequence > $2 \
             ORDER BY sequence LIMIT $3",
            arguments([task.to_value(), after.to_value(), i64::from(limit).to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(LoggedEvent {
                    sequence: read(row, "sequence")?,
                    attempt: read(row, "attempt")?,
                    at: read(row, "at")?,
                    kind: read(row, "kind")?,
                    body: read(row, "body")?,
                })
            })
            .collect()
    }
}
