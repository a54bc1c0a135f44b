//! The life of one execution of a training, an evaluation or a conversion. The task that does the work
//! has its own, finer state; this is what stays in the lineage.

use super::machine::Machine;
use super::words::words;

words! {
    /// Where a run stands.
    pub enum RunStatus ("status of a run") {
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

words! {
    /// What can happen to a run.
    pub enum RunEvent ("event of a run") {
        Start = "start",
        /// The attempt was lost or failed and the task is tried again.
        Requeue = "requeue",
        Succeed = "succeed",
        Fail = "fail",
        Cancel = "cancel",
    }
}

impl Machine for RunStatus {
    type Event = RunEvent;

    const NAME: &'static str = "run";
    const SUMMARY: &'static str = "Of a training, an evaluation or a conversion. A run that ended stays as it is, with its inputs, outputs and numbers.";
    const INITIAL: Self = Self::Queued;
    const STATES: &'static [Self] = Self::ALL;
    const EVENTS: &'static [RunEvent] = RunEvent::ALL;

    fn transition(self, event: RunEvent) -> Option<Self> {
        Some(match (self, event) {
            (Self::Queued, RunEvent::Start) => Self::Running,
            (Self::Running, RunEvent::Requeue) => Self::Queued,
            (Self::Running, RunEvent::Succeed) => Self::Succeeded,
            (Self::Queued | Self::Running, RunEvent::Fail) => Self::Failed,
            (Self::Queued | Self::Running, RunEvent::Cancel) => Self::Cancelled,
            _ => return None,
        })
    }
}
