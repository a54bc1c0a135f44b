//! The life of a work order: one change of what a deployment serves.

use super::machine::Machine;
use super::words::words;

words! {
    /// Where a work order stands. The number of the canary step is kept beside it, see [`next_step`].
    pub enum WorkOrderState ("state of a work order") {
        Pending = "pending",
        Approved = "approved",
        Rejected = "rejected",
        /// Fetching, converting, loading, warming up, probing.
        Preparing = "preparing",
        /// Gets copies of requests; its answers reach nobody.
        Shadow = "shadow",
        /// Gets a share of the traffic.
        Canary = "canary",
        /// Keeps its share; nothing advances.
        Paused = "paused",
        Promoting = "promoting",
        Promoted = "promoted",
        RollingBack = "rolling_back",
        RolledBack = "rolled_back",
        RollbackFailed = "rollback_failed",
        /// Ended before it took any traffic.
        Aborted = "aborted",
    }
}

words! {
    /// What can happen to a work order.
    pub enum WorkOrderEvent ("event of a work order") {
        Approve = "approve",
        Reject = "reject",
        Prepare = "prepare",
        StartShadow = "start_shadow",
        StartCanary = "start_canary",
        /// On to the next step.
        Advance = "advance",
        Pause = "pause",
        Resume = "resume",
        /// All traffic is moved to the candidate.
        Promote = "promote",
        /// The candidate has all of it.
        Finish = "finish",
        RollBack = "roll_back",
        RollbackSucceed = "rollback_succeed",
        RollbackFail = "rollback_fail",
        Abort = "abort",
    }
}

impl WorkOrderState {
    /// Whether requests, or copies of them, may reach the candidate.
    pub const fn takes_traffic(self) -> bool {
        matches!(
            self,
            Self::Shadow
                | Self::Canary
                | Self::Paused
                | Self::Promoting
                | Self::Promoted
                | Self::RollingBack
        )
    }
}

impl Machine for WorkOrderState {
    type Event = WorkOrderEvent;

    const NAME: &'static str = "work order";
    const SUMMARY: &'static str = "`canary` and `paused` carry the number of their step: `start_canary` makes it 1, `advance` adds one. Shadow and canary \
may be left out: a work order may promote as soon as it is prepared. A paused one goes on where it was: with `start_shadow`, `resume` or `promote`. While it has taken no traffic it is aborted; after that it is rolled back. One work order of a \
deployment may be unfinished at a time, and taking back a promoted one is a new work order.";
    const INITIAL: Self = Self::Pending;
    const STATES: &'static [Self] = Self::ALL;
    const EVENTS: &'static [WorkOrderEvent] = WorkOrderEvent::ALL;

    fn transition(self, event: WorkOrderEvent) -> Option<Self> {
        use WorkOrderEvent as Event;
        Some(match (self, event) {
            (Self::Pending, Event::Approve) => Self::Approved,
            (Self::Pending, Event::Reject) => Self::Rejected,
            (Self::Approved, Event::Prepare) => Self::Preparing,
            (Self::Preparing | Self::Canary | Self::Paused, Event::StartShadow)
            | (Self::Shadow, Event::Advance) => Self::Shadow,
            (Self::Preparing | Self::Shadow, Event::StartCanary)
            | (Self::Canary, Event::Advance)
            | (Self::Paused, Event::Resume) => Self::Canary,
            (Self::Shadow | Self::Canary | Self::Promoting, Event::Pause) => Self::Paused,
            (Self::Preparing | Self::Shadow | Self::Canary | Self::Paused, Event::Promote) => {
                Self::Promoting
            }
            (Self::Promoting, Event::Finish) => Self::Promoted,
            (Self::Shadow | Self::Canary | Self::Paused | Self::Promoting, Event::RollBack) => {
                Self::RollingBack
            }
            (Self::RollingBack, Event::RollbackSucceed) => Self::RolledBack,
            (Self::RollingBack, Event::RollbackFail) => Self::RollbackFailed,
            (Self::Pending | Self::Approved | Self::Preparing, Event::Abort) => Self::Aborted,
            _ => return None,
        })
    }
}

/// The canary step after `event`, given the one before.
pub fn next_step(step: u32, event: WorkOrderEvent) -> u32 {
    match event {
        WorkOrderEvent::StartCanary => 1,
        WorkOrderEvent::Advance => step.saturating_add(1),
        _ => step,
    }
}
