//! A release as people see it: order, state, strategy and evidence in one.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::api::call::Desk;
use crate::api::problem::Problem;
use crate::deploy::{Blueprint, Settings};
use crate::domain::record::{DecisionKind, Deployment, ReleaseDecision, WorkOrder};
use crate::domain::work_order::WorkOrderState;
use crate::id::{DeploymentId, WorkOrderId};
use crate::release::controller::Gathered;
use crate::release::planner::{self, Phase, Release, Why};
use crate::release::strategy::Strategy;
use crate::store::{Listing, StoreError, Stored};
use crate::time::Timestamp;

/// A version as it is served.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RevisionView {
    /// `v2`.
    pub version: String,
    /// What answers say in `x-sluice-revision`.
    pub revision: String,
}

/// A release in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReleaseSummary {
    pub id: WorkOrderId,
    pub deployment: DeploymentId,
    pub endpoint: String,
    pub state: WorkOrderState,
    /// `null` before the candidate is prepared.
    pub phase: Option<String>,
    /// What a pause or a roll-back is for.
    pub why: Option<Value>,
    /// Who paused it, and what was said to that, where a person did.
    pub paused_by: Option<String>,
    pub paused_because: Option<String>,
    /// What has to happen before it goes on, and until when it is waited for.
    pub waits_for: Option<String>,
    /// The index of the step that is being done.
    pub step: usize,
    /// How many there are.
    pub step_count: usize,
    /// That step in words.
    pub step_text: String,
    /// When it began.
    pub since: Option<Timestamp>,
    /// Percent of the units that the candidate answers.
    pub weight: f64,
    /// Percent of the requests that are copied to it.
    pub shadow: f64,
    pub stable: Option<RevisionView>,
    pub candidate: RevisionView,
    pub reason: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub ended_because: Option<String>,
}

/// A release.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReleaseView {
    #[serde(flatten)]
    pub summary: ReleaseSummary,
    pub steps: Vec<Value>,
    pub strategy: Value,
    /// What this process knows of the candidate; `null` where it is not loaded here.
    pub evidence: Option<Value>,
}

/// Everything about a release, read anew.
pub(super) async fn view(
    desk: &Desk,
    order: &Stored<WorkOrder>,
    gathered: Option<Gathered>,
) -> Result<ReleaseView, Problem> {
    let deployment = desk.store.get::<Deployment>(order.deployment).await?;
    let strategy = Settings::read(&order.snapshot)?.strategy()?;
    let state = match &order.release_state {
        Some(state) => serde_json::from_value::<Release>(state.0.clone()).ok(),
        None => None,
    };
    let replaced = order.replaced.or(deployment.live_work_order);
    let stable = match replaced {
        Some(id) if id != order.id => revision(desk, id).await?,
        _ => None,
    };
    let candidate = revision(desk, order.id)
        .await?
        .unwrap_or_else(|| RevisionView {
            version: order.candidate.to_string(),
            revision: String::new(),
        });
    let step = state.as_ref().map_or(0, |state| state.step);
    let steps: Vec<Value> = strategy
        .steps
        .iter()
        .map(|step| serde_json::to_value(step).unwrap_or_default())
        .collect();
    let (paused_by, paused_because) = match &state {
        Some(state) => pause(desk, order.id, state).await?.unzip(),
        None => (None, None),
    };
    let summary = ReleaseSummary {
        id: order.id,
        deployment: order.deployment,
        endpoint: deployment.endpoint.clone(),
        state: order.state,
        phase: state.as_ref().map(|state| phase(&state.phase).to_owned()),
        why: state.as_ref().and_then(|state| why(&state.phase)),
        paused_by,
        paused_because: paused_because.flatten(),
        waits_for: waits_for(order, state.as_ref(), &strategy, gathered.as_ref()),
        step,
        step_count: steps.len(),
        step_text: strategy
            .steps
            .get(step)
            .map(ToString::to_string)
            .unwrap_or_default(),
        since: state.as_ref().map(|state| state.since),
        weight: state.as_ref().map_or(0.0, |state| state.share.as_percent()),
        shadow: state
            .as_ref()
            .map_or(0.0, |state| state.shadow.as_percent()),
        stable,
        candidate,
        reason: order.reason.clone(),
        started_at: order.created_at,
        finished_at: order.finished_at,
        ended_because: order.ended_because.clone(),
    };
    Ok(ReleaseView {
        summary,
        steps,
        strategy: json(&strategy),
        evidence: gathered.map(|gathered| json(&gathered)),
    })
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Who holds a release, and why, as the history says.
async fn pause(
    desk: &Desk,
    order: WorkOrderId,
    state: &Release,
) -> Result<Option<(String, Option<String>)>, Problem> {
    let by_hand = matches!(
        &state.phase,
        Phase::Paused {
            why: Why::Person,
            ..
        }
    );
    if !by_hand {
        return Ok(None);
    }
    let commands = Listing::<ReleaseDecision>::new()
        .is("work_order", &order)
        .is("kind", &DecisionKind::Command)
        .limit(LATEST);
    let page = desk.store.list(&commands).await?;
    let pauses = |it: &Stored<ReleaseDecision>| {
        let action = it.action.as_ref().map(|action| &action.0["action"]);
        action.is_some_and(|action| action == "pause")
    };
    let found = page.items.into_iter().find(pauses);
    Ok(found.map(|it| {
        let ReleaseDecision { actor, reason, .. } = it.record;
        (actor, reason.filter(|reason| !reason.is_empty()))
    }))
}

/// Commands that are looked through for the pause: it is the latest of them, or nearly.
const LATEST: u32 = 20;

/// `None` once the version was put away.
async fn revision(desk: &Desk, order: WorkOrderId) -> Result<Option<RevisionView>, Problem> {
    let live = match desk.store.revision_of(order).await {
        Ok(live) => live,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(RevisionView {
        version: format!("v{}", live.number),
        revision: Blueprint::of(&live)?.revision,
    }))
}

const fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Prepared => "prepared",
        Phase::Running => "running",
        Phase::Paused { .. } => "paused",
        Phase::Promoting => "promoting",
        Phase::Promoted => "promoted",
        Phase::RollingBack { .. } => "rolling_back",
        Phase::RolledBack { .. } => "rolled_back",
        Phase::Aborted => "aborted",
    }
}

fn why(phase: &Phase) -> Option<Value> {
    match phase {
        Phase::Paused { why, .. } | Phase::RollingBack { why } | Phase::RolledBack { why } => {
            Some(json(why))
        }
        _ => None,
    }
}

fn waits_for(
    order: &WorkOrder,
    state: Option<&Release>,
    strategy: &Strategy,
    gathered: Option<&Gathered>,
) -> Option<String> {
    match (order.state, state) {
        (WorkOrderState::Pending, _) => Some("approval".to_owned()),
        (WorkOrderState::Approved | WorkOrderState::Preparing, None) => {
            Some("the candidate to be loaded".to_owned())
        }
        (_, Some(state)) => planner::waits_for(state, strategy, gathered.map(|it| &it.assessment)),
        (_, None) => None,
    }
}
