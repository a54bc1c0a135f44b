//! A task before it is in the queue.

use std::time::Duration;

use serde_json::Value as Json;

use super::backoff::PRIORITIES;
use crate::domain::machine::Machine as _;
use crate::domain::record;
use crate::domain::task::TaskState;
use crate::id::{DepartmentId, PrincipalId, TaskId};
use crate::store::{self, StoreError};
use crate::time::Timestamp;

/// A task to be done.
#[derive(Debug, Clone)]
pub struct NewTask {
    pub kind: String,
    pub params: Json,
    pub department: Option<DepartmentId>,
    pub principal: Option<PrincipalId>,
    pub parent: Option<TaskId>,
    /// The record that it works for: kind and id.
    pub subject: Option<(String, String)>,
    /// −1000 to 1000; a level is worth a minute of waiting.
    pub priority: i64,
    /// Not before; now if absent.
    pub run_at: Option<Timestamp>,
    pub max_attempts: u32,
    /// For one attempt; without it the attempt may take for ever.
    pub timeout: Option<Duration>,
    /// How long it may wait for its first start before it is cancelled.
    pub queue_timeout: Option<Duration>,
    /// A second task of the kind with the same key is the first one.
    pub idempotency_key: Option<String>,
}

impl NewTask {
    pub fn new(kind: impl Into<String>, params: Json) -> Self {
        Self {
            kind: kind.into(),
            params,
            department: None,
            principal: None,
            parent: None,
            subject: None,
            priority: 0,
            run_at: None,
            max_attempts: 3,
            timeout: None,
            queue_timeout: None,
            idempotency_key: None,
        }
    }

    pub(super) fn into_record(self, now: Timestamp) -> Result<record::Task, StoreError> {
        if !PRIORITIES.contains(&self.priority) {
            return Err(StoreError::invalid(
                "priority",
                "should be between -1000 and 1000",
            ));
        }
        if self.max_attempts == 0 {
            return Err(StoreError::invalid("max_attempts", "should be 1 or more"));
        }
        let run_at = self.run_at.unwrap_or(now);
        let (subject_kind, subject_id) = self.subject.unzip();
        Ok(record::Task {
            kind: self.kind,
            department: self.department,
            principal: self.principal,
            parent: self.parent,
            subject_kind,
            subject_id,
            params: store::Json(self.params),
            result: None,
            error: None,
            state: TaskState::INITIAL,
            priority: self.priority,
            run_at,
            expires_at: self.queue_timeout.map(|patience| run_at.after(patience)),
            attempt: 0,
            max_attempts: self.max_attempts,
            worker: None,
            lease_until: None,
            fencing_token: 0,
            heartbeat_at: None,
            timeout_us: self
                .timeout
                .map(|timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)),
            deadline_at: None,
            progress_fraction: None,
            progress_message: None,
            cancel_requested: false,
            idempotency_key: self.idempotency_key,
            started_at: None,
            finished_at: None,
        })
    }
}
