//! One action: the release's state, its work order's, and the history, in one transaction.

use serde_json::Value;

use super::people::ReleaseError;
use crate::deploy::{Settings, check_order, go_live};
use crate::domain::record::{DecisionKind, ReleaseDecision, WorkOrder};
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState};
use crate::id::WorkOrderId;
use crate::release::planner::{Action, Phase, Release, Why};
use crate::release::webhook;
use crate::store::{Actor, Json, StoreError, Stored, Tx};
use crate::time::Timestamp;

/// A decision that was made.
pub(super) struct Made {
    /// `None` leaves everything as it is: a refusal, a note.
    pub(super) action: Option<Action>,
    pub(super) kind: DecisionKind,
    pub(super) at: Timestamp,
    pub(super) by: Actor,
    pub(super) evidence: Option<Value>,
}

/// Where a release stands by its order's row.
///
/// # Errors
/// [`ReleaseError::NoRelease`], and [`StoreError::Malformed`].
pub(super) fn release_state(order: &Stored<WorkOrder>) -> Result<Release, ReleaseError> {
    let state = order.release_state.as_ref();
    let state = state.ok_or(ReleaseError::NoRelease(order.id))?;
    serde_json::from_value(state.0.clone()).map_err(|error| {
        ReleaseError::from(StoreError::Malformed {
            table: "work_orders",
            column: "release_state".into(),
            problem: error.to_string(),
        })
    })
}

/// What was done, to be said once it is committed.
#[must_use]
pub(super) struct Applied {
    release: WorkOrderId,
    endpoint: String,
    kind: DecisionKind,
    action: Option<Action>,
    after: Release,
    by: String,
}

impl Applied {
    /// The one line in the log.
    pub(super) fn log(&self) {
        let (kind, action) = (self.kind, self.action.as_ref());
        webhook::log(
            self.release,
            &self.endpoint,
            kind,
            action,
            &self.after,
            &self.by,
        );
    }
}

/// Does it, in the caller's transaction. `before` is the state that it was decided on, and `order` the row that said
/// so: where that has changed since, nothing is done.
///
/// # Errors
/// [`StoreError::Stale`]; [`DeployError::Gate`](crate::deploy::DeployError::Gate) where traffic would move past the gate.
pub(super) async fn apply(
    tx: &mut Tx,
    order: &Stored<WorkOrder>,
    before: &Release,
    made: Made,
) -> Result<Applied, ReleaseError> {
    tx.lock_work_order(order.id).await?;
    let found = tx.get::<WorkOrder>(order.id).await?;
    if found.version != order.version {
        return Err(StoreError::Stale {
            kind: "work order",
            id: order.id.to_string(),
            expected: order.version,
            found: found.version,
        }
        .into());
    }
    let after = match &made.action {
        Some(action) => before.after(action, made.at),
        None => before.clone(),
    };
    if let Some(action) = &made.action {
        step(tx, order, before, &after, action, &made.by).await?;
    }
    // Both are enums of texts and numbers, which are JSON.
    let json = |value: serde_json::Result<Value>| Json(value.unwrap_or_default());
    let decision = ReleaseDecision {
        work_order: order.id,
        at: made.at,
        actor: made.by.name.clone(),
        kind: made.kind,
        action: made
            .action
            .as_ref()
            .map(|it| json(serde_json::to_value(it))),
        reason: made.by.reason.clone(),
        state: json(serde_json::to_value(&after)),
        evidence: made.evidence.map(Json),
    };
    tx.create(&made.by, decision).await?;
    Ok(Applied {
        release: order.id,
        endpoint: Settings::read(&order.snapshot)?.endpoint,
        kind: made.kind,
        action: made.action,
        after,
        by: made.by.name,
    })
}

async fn step(
    tx: &mut Tx,
    order: &Stored<WorkOrder>,
    before: &Release,
    after: &Release,
    action: &Action,
    by: &Actor,
) -> Result<(), ReleaseError> {
    let is_finish = *action == Action::Finish && after.phase == Phase::Promoted;
    if action.raises(before) {
        check_order(tx, order).await?;
    }
    if is_finish {
        // Asks the gate itself.
        go_live(tx, by, order).await?;
    }
    let state = Json(serde_json::to_value(after).unwrap_or_default());
    let because = because(after, by);
    let edit = move |it: &mut WorkOrder| {
        it.release_state = Some(state);
        if because.is_some() {
            it.ended_because = because;
        }
    };
    match event(order.state, before, after, action) {
        Some(event) => {
            tx.transition::<WorkOrder>(by, order.id, None, event, edit)
                .await?
        }
        None => tx.update::<WorkOrder>(by, order.id, None, edit).await?,
    };
    Ok(())
}

/// What is said of an order that ends otherwise than as it was meant to.
fn because(after: &Release, by: &Actor) -> Option<String> {
    let person = || match &by.reason {
        Some(reason) if !reason.is_empty() => format!("{}: {reason}", by.name),
        _ => by.name.clone(),
    };
    match &after.phase {
        Phase::RollingBack { why } => Some(in_words(why).unwrap_or_else(person)),
        Phase::Aborted => Some(person()),
        _ => None,
    }
}

/// `None` where a person says why.
fn in_words(why: &Why) -> Option<String> {
    match why {
        Why::Breach(because) | Why::Inconclusive(because) => Some(because.clone()),
        Why::Gate(missing) => Some(format!(
            "the approval gate is closed: {}",
            missing.join("; ")
        )),
        Why::Step | Why::Person => None,
    }
}

/// The order's state that goes with a phase of its release.
const fn state_of(release: &Release, now: WorkOrderState) -> WorkOrderState {
    match release.phase {
        Phase::Prepared => now,
        // Compared by their parts: nobody is served by it, but it is asked.
        Phase::Running if release.share.parts() == 0 && release.shadow.parts() > 0 => {
            WorkOrderState::Shadow
        }
        Phase::Running => WorkOrderState::Canary,
        Phase::Paused { .. } => WorkOrderState::Paused,
        Phase::Promoting => WorkOrderState::Promoting,
        Phase::Promoted => WorkOrderState::Promoted,
        Phase::RollingBack { .. } => WorkOrderState::RollingBack,
        Phase::RolledBack { .. } => WorkOrderState::RolledBack,
        Phase::Aborted => WorkOrderState::Aborted,
    }
}

/// The event of the order that an action is; `None` where its state does not change.
fn event(
    now: WorkOrderState,
    before: &Release,
    after: &Release,
    action: &Action,
) -> Option<WorkOrderEvent> {
    use WorkOrderEvent as Event;
    use WorkOrderState as State;
    let next = state_of(after, now);
    let entered = matches!(action, Action::Enter { .. }) && before.phase != Phase::Prepared;
    Some(match (now, next) {
        (State::Shadow, State::Shadow) | (State::Canary, State::Canary) if entered => {
            Event::Advance
        }
        (now, next) if now == next => return None,
        (_, State::Shadow) => Event::StartShadow,
        (State::Paused, State::Canary) => Event::Resume,
        (_, State::Canary) => Event::StartCanary,
        (_, State::Paused) => Event::Pause,
        (_, State::Promoting) => Event::Promote,
        (_, State::Promoted) => Event::Finish,
        (_, State::RollingBack) => Event::RollBack,
        (_, State::RolledBack) => Event::RollbackSucceed,
        (_, State::Aborted) => Event::Abort,
        _ => return None,
    })
}
