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
        /// Asks for approval of a version that nothing was asked of: where its department lets that pass.
        RequestUnevaluated = "request_unevaluated",
        Approve = "approve",
        Reject = "reject",
        /// The digest changed or the evidence was withdrawn: what was said about it no longer holds.
        Invalidate = "invalidate",
        /// The first deployment began to serve it.
        GoLive = "go_live",
        /// The last deployment stopped to serve it.
        LeaveLive = "leave_live",
        Archive = "archive",
        /// Takes archiving back: what is said about the version has to be said anew.
        Unarchive = "unarchive",
        /// Takes archiving back for one that had been approved; the gate is asked again wherever it is to serve.
        UnarchiveApproved = "unarchive_approved",
        /// A roll-back brings it back, which was live before: that needs no new evidence.
        Return = "return",
    }
}

impl Machine for ModelVersionState {
    type Event = ModelVersionEvent;

    const NAME: &'static str = "model version";
    const SUMMARY: &'static str = "`live` is reached from `approved`, or by a `return`, and left only to `approved`. A changed digest or withdrawn \
evidence (`invalidate`) sends a version back to `registered`; one that is live has to leave traffic first. \
`return` is a roll-back to what was live: it asks for no new evidence, wherever the version stands by then. `request_override` is the way of a version \
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
            | (Self::Registered, Event::RequestUnevaluated)
            | (Self::EvalFailed, Event::RequestOverride) => Self::PendingApproval,
            (Self::PendingApproval, Event::Approve) | (Self::Live, Event::LeaveLive) => {
                Self::Approved
            }
            (Self::PendingApproval, Event::Reject) => Self::Rejected,
            (Self::Approved, Event::GoLive)
            | (
                Self::Registered
                | Self::Evaluating
                | Self::EvalPassed
                | Self::EvalFailed
                | Self::PendingApproval
                | Self::Approved
                | Self::Rejected
                | Self::Archived,
                Event::Return,
            ) => Self::Live,
            (Self::Archived, Event::UnarchiveApproved) => Self::Approved,
            (Self::Archived, Event::Unarchive) => Self::Registered,
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
