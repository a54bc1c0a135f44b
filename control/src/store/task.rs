//! The queue's rows. Claiming, heartbeats and retries are statements of the task engine.

use super::{Stateful, mapped};
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
