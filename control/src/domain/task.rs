//! The life of a durable task. Which worker holds it, until when and by which token is the store's
//! business; what may follow what is said here.

use super::machine::Machine;
use super::words::words;

words! {
    /// Where a task stands.
    pub enum TaskState ("state of a task") {
        Queued = "queued",
        /// A worker holds a lease and has not started.
        Claimed = "claimed",
        Running = "running",
        /// Waits for people's annotations or judgements; evaluation and annotation only.
        AwaitingPeople = "awaiting_people",
        Succeeded = "succeeded",
        /// Final unless a retry follows: see [`may_retry`].
        Failed = "failed",
        /// Final unless a retry follows: see [`may_retry`].
        TimedOut = "timed_out",
        /// Its worker no longer answers.
        Lost = "lost",
        /// Waits for its next attempt.
        Retrying = "retrying",
        /// Its worker was told to stop.
        Cancelling = "cancelling",
        Cancelled = "cancelled",
    }
}

words! {
    /// What can happen to a task.
    pub enum TaskEvent ("event of a task") {
        Claim = "claim",
        /// The lease ran out before the start.
        LeaseExpire = "lease_expire",
        Start = "start",
        AwaitPeople = "await_people",
        Resume = "resume",
        Succeed = "succeed",
        Fail = "fail",
        TimeOut = "time_out",
        /// No heartbeat within the lease.
        Lose = "lose",
        /// Another attempt is to be made, later.
        Retry = "retry",
        /// The wait before the next attempt is over.
        Requeue = "requeue",
        Cancel = "cancel",
        /// The worker stopped, or its lease ran out while it was stopping.
        Stop = "stop",
    }
}

impl Machine for TaskState {
    type Event = TaskEvent;

    const NAME: &'static str = "task";
    const SUMMARY: &'static str = "`failed` and `timed_out` take `retry` only while attempts are left and the failure may pass; otherwise they \
are where the task ends, and a finished task never moves. `awaiting_people` is for human evaluation and annotation.";
    const INITIAL: Self = Self::Queued;
    const STATES: &'static [Self] = Self::ALL;
    const EVENTS: &'static [TaskEvent] = TaskEvent::ALL;

    fn transition(self, event: TaskEvent) -> Option<Self> {
        use TaskEvent as Event;
        Some(match (self, event) {
            (Self::Queued, Event::Claim) => Self::Claimed,
            (Self::Claimed, Event::LeaseExpire) | (Self::Retrying, Event::Requeue) => Self::Queued,
            (Self::Claimed, Event::Start) | (Self::AwaitingPeople, Event::Resume) => Self::Running,
            (Self::Running, Event::AwaitPeople) => Self::AwaitingPeople,
            (Self::Running, Event::Succeed) => Self::Succeeded,
            (Self::Running | Self::Lost, Event::Fail) => Self::Failed,
            (Self::Running, Event::TimeOut) => Self::TimedOut,
            (Self::Running, Event::Lose) => Self::Lost,
            (Self::Lost | Self::Failed | Self::TimedOut, Event::Retry) => Self::Retrying,
            (Self::Queued | Self::Retrying, Event::Cancel) | (Self::Cancelling, Event::Stop) => {
                Self::Cancelled
            }
            (Self::Claimed | Self::Running | Self::AwaitingPeople, Event::Cancel) => {
                Self::Cancelling
            }
            _ => return None,
        })
    }
}

/// Whether a task whose attempt number `attempt` (from 1) ended without success gets another.
pub fn may_retry(attempt: u32, max_attempts: u32, failure_may_pass: bool) -> bool {
    failure_may_pass && attempt < max_attempts
}

#[cfg(test)]
mod tests;
