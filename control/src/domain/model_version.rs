//! The life of a model version, from a draft to live traffic and back.

use super::machine::Machine;
use super::words::words;

words! {
    /// Where a model version stands.
    pub enum ModelVersionState ("state of a model version") {
        Draft = "draft",
        Registering = "registering",
        Registered = "registered",
        RegisterFailed = "register_failed",
        Evaluating = "evaluating",
        EvalPassed = "eval_passed",
        EvalFailed = "eval_failed",
        PendingApproval = "pending_approval",
        Approved = "approved",
        Rejected = "rejected",
        Live = "live",
        Archived = "archived",
    }
}

words! {
    /// What can happen to a model version.
    pub enum ModelVersionEvent ("event of a model version") {
        /// Its artifact is being fetched and digested.
        Register = "register",
        RegisterSucceed = "register_succeed",
        RegisterFail = "register_fail",
        /// An evaluation run started.
        Evaluate = "evaluate",
        EvaluationPass = "evaluation_pass",
        EvaluationFail = "evaluation_fail",
        RequestApproval = "request_approval",
        /// Asks for approval in spite of a failed evaluation. The gate lets it through only by an
        /// override, which takes an approver and a reason.
        RequestOverride = "request_override",
        Approve = "approve",
        Reject = "reject",
        /// The digest changed or the evidence was withdrawn: what was said about it no longer holds.
        Invalidate = "invalidate",
        /// The first deployment began to serve it.
        GoLive = "go_live",
        /// The last deployment stopped to serve it.
        LeaveLive = "leave_live",
        Archive = "archive",
    }
}

impl Machine for ModelVersionState {
    type Event = ModelVersionEvent;

    const NAME: &'static str = "model version";
    const SUMMARY: &'static str = "`live` is only reached from `approved`, and left only back to it. A changed digest or withdrawn \
evidence (`invalidate`) sends a version back to `registered`; one that is live has to leave traffic first. `request_override` is the way of a version \
whose evaluation failed: the approval gate lets it through only with a named override.";
    const INITIAL: Self = Self::Draft;
    const STATES: &'static [Self] = Self::ALL;
    const EVENTS: &'static [ModelVersionEvent] = ModelVersionEvent::ALL;

    fn transition(self, event: ModelVersionEvent) -> Option<Self> {
        use ModelVersionEvent as Event;
        Some(match (self, event) {
            (Self::Draft, Event::Register) => Self::Registering,
            (Self::Registering, Event::RegisterSucceed) => Self::Registered,
            (Self::Registering, Event::RegisterFail) => Self::RegisterFailed,
            (Self::Registered | Self::EvalFailed, Event::Evaluate) => Self::Evaluating,
            (Self::Evaluating, Event::EvaluationPass) => Self::EvalPassed,
            (Self::Evaluating, Event::EvaluationFail) => Self::EvalFailed,
            (Self::EvalPassed, Event::RequestApproval)
            | (Self::EvalFailed, Event::RequestOverride) => Self::PendingApproval,
            (Self::PendingApproval, Event::Approve) | (Self::Live, Event::LeaveLive) => {
                Self::Approved
            }
            (Self::PendingApproval, Event::Reject) => Self::Rejected,
            (Self::Approved, Event::GoLive) => Self::Live,
            (
                Self::Evaluating
                | Self::EvalPassed
                | Self::EvalFailed
                | Self::PendingApproval
                | Self::Approved
                | Self::Rejected,
                Event::Invalidate,
            ) => Self::Registered,
            (
                Self::Registered
                | Self::Evaluating
                | Self::EvalPassed
                | Self::EvalFailed
                | Self::PendingApproval
                | Self::Rejected
                | Self::Approved,
                Event::Archive,
            ) => Self::Archived,
            _ => return None,
        })
    }
}
