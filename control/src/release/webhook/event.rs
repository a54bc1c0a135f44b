//! A decision as others are told of it: a value. It holds no prompt, because no decision does.

use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::record::{DecisionKind, ReleaseDecision};
use crate::domain::words::words;
use crate::id::{DeploymentId, ReleaseDecisionId, WorkOrderId};
use crate::release::planner::{Action, Phase, Release, Why};
use crate::store::Stored;
use crate::time::Timestamp;

words! {
    /// What an event is about.
    pub enum EventKind ("event of a release") {
        /// The first step has begun.
        Started = "release.started",
        /// A further step has.
        Step = "release.step",
        /// An analysis was given its time once more.
        Extended = "release.extended",
        Paused = "release.paused",
        Resumed = "release.resumed",
        /// All traffic goes to the candidate, and stable is ready to take it back.
        Promoting = "release.promoting",
        Promoted = "release.promoted",
        /// No new request goes to the candidate.
        RollingBack = "release.rolling_back",
        RolledBack = "release.rolled_back",
        /// Given up before anything reached the candidate.
        Aborted = "release.aborted",
        /// A person asked for something, and it was refused.
        Refused = "release.refused",
        /// Something worth knowing that changed nothing.
        Note = "release.note",
    }
}

/// A decision with what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseEvent {
    pub id: ReleaseDecisionId,
    pub at: Timestamp,
    pub release: WorkOrderId,
    pub deployment: DeploymentId,
    /// The name that requests give as their model.
    pub endpoint: String,
    /// The revisions' names, as answers have them in `x-sluice-revision`.
    pub candidate: String,
    pub stable: Option<String>,
    pub actor: String,
    pub kind: DecisionKind,
    pub action: Option<Action>,
    pub reason: Option<String>,
    /// The release after it.
    pub state: Release,
    pub evidence: Option<Value>,
}

/// What a receiver gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it was decided.
    pub timestamp: Timestamp,
    pub data: Value,
}

/// Of what a decision is an event; `None` for waiting, which is none.
#[must_use]
pub(crate) fn kind_of(
    kind: DecisionKind,
    action: Option<&Action>,
    after: &Release,
) -> Option<EventKind> {
    match kind {
        DecisionKind::Refused => return Some(EventKind::Refused),
        DecisionKind::Note => return Some(EventKind::Note),
        DecisionKind::Action | DecisionKind::Command => {}
    }
    Some(match action? {
        Action::Wait { .. } => return None,
        Action::Enter { step: 0, .. } => EventKind::Started,
        Action::Enter { .. } => EventKind::Step,
        Action::Extend { .. } => EventKind::Extended,
        Action::Pause { .. } => EventKind::Paused,
        Action::Resume => EventKind::Resumed,
        Action::Promote => EventKind::Promoting,
        Action::RollBack { .. } => EventKind::RollingBack,
        Action::Finish => match after.phase {
            Phase::Promoted => EventKind::Promoted,
            Phase::RolledBack { .. } => EventKind::RolledBack,
            // It ends in one of the two; anything else would be news.
            _ => EventKind::Note,
        },
        Action::Abort => EventKind::Aborted,
    })
}

impl ReleaseEvent {
    /// Of a decision's row; the names of the revisions are not in it. `None` if the row was written by a version whose
    /// words this one does not know.
    pub(crate) fn of(decision: &Stored<ReleaseDecision>, names: Names) -> Option<Self> {
        let action = match &decision.action {
            Some(action) => Some(serde_json::from_value(action.0.clone()).ok()?),
            None => None,
        };
        Some(Self {
            id: decision.id,
            at: decision.at,
            release: decision.work_order,
            deployment: names.deployment,
            endpoint: names.endpoint,
            candidate: names.candidate,
            stable: names.stable,
            actor: decision.actor.clone(),
            kind: decision.kind,
            action,
            reason: decision.reason.clone(),
            state: serde_json::from_value(decision.state.0.clone()).ok()?,
            evidence: decision.evidence.as_ref().map(|it| it.0.clone()),
        })
    }

    /// `None` for a decision to wait.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let kind = kind_of(self.kind, self.action.as_ref(), &self.state)?;
        Some(Event {
            kind,
            timestamp: self.at,
            data: json!({
                "release": self.release,
                "deployment": self.deployment,
                "endpoint": self.endpoint,
                "candidate": self.candidate,
                "stable": self.stable,
                "phase": phase(&self.state),
                "step": self.state.step,
                "weight": self.state.share.as_percent(),
                "shadow": self.state.shadow.as_percent(),
                "action": self.action,
                "why": why(self.action.as_ref(), &self.state),
                "actor": self.actor,
                "reason": self.reason,
                "evidence": self.evidence.as_ref().map(summary),
            }),
        })
    }
}

/// Where a decision belongs, in names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Names {
    pub(crate) deployment: DeploymentId,
    pub(crate) endpoint: String,
    pub(crate) candidate: String,
    pub(crate) stable: Option<String>,
}

fn phase(state: &Release) -> Value {
    let state = serde_json::to_value(&state.phase).unwrap_or_default();
    state.get("phase").cloned().unwrap_or_default()
}

/// What it was for, in one line; `None` where the action says all.
fn why(action: Option<&Action>, state: &Release) -> Option<String> {
    let of = match (action, &state.phase) {
        (Some(Action::Extend { because }), _) => return Some(because.clone()),
        (Some(Action::Pause { why } | Action::RollBack { why }), _)
        | (Some(Action::Finish), Phase::RolledBack { why }) => why,
        _ => return None,
    };
    Some(match of {
        Why::Step => "the strategy pauses here".to_owned(),
        Why::Person => "a person asked for it".to_owned(),
        Why::Breach(because) | Why::Inconclusive(because) => because.clone(),
        Why::Gate(missing) => format!("the approval gate is closed: {}", missing.join("; ")),
    })
}

/// The verdicts, and the numbers that they rest on in words; the statistics stay in the records.
fn summary(evidence: &Value) -> Value {
    let of = |value: &Value, fields: &[&str]| {
        let fields = fields
            .iter()
            .map(|field| ((*field).to_owned(), value[*field].clone()));
        Value::Object(fields.collect())
    };
    let mut summary = of(evidence, &["at", "verdict", "requests"]);
    let objectives = evidence["objectives"].as_array().into_iter().flatten();
    summary["objectives"] = objectives
        .map(|it| of(it, &["objective", "verdict", "because"]))
        .collect();
    summary
}

/// One line in the log for a decision: `action` as it was taken, `after` the release as it is then. Waiting is not
/// worth one. For what goes wrong it is a warning.
pub fn log(
    release: WorkOrderId,
    endpoint: &str,
    kind: DecisionKind,
    action: Option<&Action>,
    after: &Release,
    by: &str,
) {
    let Some(event) = kind_of(kind, action, after) else {
        return;
    };
    let why = why(action, after).unwrap_or_default();
    let (action, weight, phase) = (event.word(), after.share.as_percent(), phase(after));
    let phase = phase.as_str().unwrap_or_default();
    let is_wrong = matches!(event, EventKind::RollingBack | EventKind::Paused) && !why.is_empty();
    if is_wrong {
        tracing::warn!(%release, endpoint, action, phase, step = after.step, weight, why, by, "release");
    } else {
        tracing::info!(%release, endpoint, action, phase, step = after.step, weight, why, by, "release");
    }
}
