//! Taking back by the records: what a roll-back amounts to, and what gives way to it.

use std::time::Duration;

use super::{Deployments, pending, with_reason};
use crate::deploy::dossier::was_live_here;
use crate::deploy::returns::{Aim, Already, History};
use crate::deploy::{Caller, DeployError, Settings};
use crate::domain::record::{Deployment, ModelVersion, WorkOrder};
use crate::domain::roles::Verb;
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState};
use crate::id::{DeploymentId, WorkOrderId};
use crate::release::planner::{Action, Release};
use crate::store::{Actor, Json, StoreError, Stored, Tx};
use crate::time::Timestamp;

/// What became of a roll-back.
#[derive(Debug, Clone, PartialEq)]
pub enum Returned {
    /// By this order, which is approved.
    Ordered(Box<Stored<WorkOrder>>),
    Already(Already),
}

/// How far back a roll-back looks for a revision that differs.
pub(in crate::deploy) const HISTORY: u32 = 100;

impl Deployments {
    /// What a roll-back of a deployment amounts to, by its records: to the revision that was live before, or to `to`. A
    /// release that was taken back within `repeats` is what was meant.
    ///
    /// # Errors
    /// [`DeployError::NothingLive`], [`DeployError::NothingEarlier`], [`DeployError::Unnamed`].
    pub async fn aim(
        &self,
        id: DeploymentId,
        to: Option<&str>,
        repeats: Duration,
    ) -> Result<Aim, DeployError> {
        let deployment = self.store.get::<Deployment>(id).await?;
        let live = deployment.live_work_order.ok_or(DeployError::NothingLive)?;
        let live = self.store.revision_of(live).await?;
        let taken_back = self.store.taken_back_beside_live().await?;
        let history = History {
            returns: self.store.returns(id, HISTORY).await?,
            taken_back: taken_back
                .iter()
                .find(|(it, _)| *it == id)
                .map(|(_, at)| *at),
        };
        let aim = history.aim(&live, to, repeats, Timestamp::now())?;
        aim.ok_or(DeployError::NothingEarlier)
    }

    /// Back to the revision that was live before, or to `to`, by the records alone: in a process that serves nothing itself.
    ///
    /// # Errors
    /// Those of [`Deployments::aim`], [`DeployError::Busy`], and the role's.
    pub async fn roll_back(
        &self,
        caller: &Caller,
        id: DeploymentId,
        reason: &str,
        to: Option<&str>,
        repeats: Duration,
    ) -> Result<Returned, DeployError> {
        let deployment = self.store.get::<Deployment>(id).await?;
        caller.may(Verb::OperateRelease, deployment.department)?;
        let to = match self.aim(id, to, repeats).await? {
            Aim::Already(already) => return Ok(Returned::Already(already)),
            Aim::Bring(to) => to,
        };
        let actor = with_reason(&caller.actor, Some(reason.to_owned()));
        let origin = to.revision.origin().to_string();
        let order = self.bring_back(&actor, id, &origin).await?;
        let order = order.ok_or(DeployError::NothingEarlier)?;
        Ok(Returned::Ordered(Box::new(order)))
    }

    /// Ends the release that is under way, if somebody has approved it and it has not taken any traffic: then it is what
    /// was to be taken back. `None` where there is none.
    ///
    /// # Errors
    /// [`DeployError::Busy`]: it takes traffic.
    pub(crate) async fn end_what_has_not_begun(
        &self,
        actor: &Actor,
        id: DeploymentId,
    ) -> Result<Option<Stored<WorkOrder>>, DeployError> {
        let Some(active) = self.store.active_work_order(id).await? else {
            return Ok(None);
        };
        if active.state == WorkOrderState::Pending || !is_release(&active)? {
            return Ok(None);
        }
        let mut tx = self.store.begin().await?;
        tx.lock_deployment(id).await?;
        let ended = self.supersede(&mut tx, actor, &active).await?;
        self.commit(tx).await?;
        Ok(Some(ended))
    }

    /// Back to the revision that a work order brought: a new order with that one's version and settings, approved by the
    /// approval that it had; on behalf of one whose right was asked for before. What is under way and has taken no traffic
    /// gives way to it. `None` if it is live already.
    ///
    /// # Errors
    /// [`DeployError::Busy`].
    pub(crate) async fn bring_back(
        &self,
        actor: &Actor,
        id: DeploymentId,
        origin: &str,
    ) -> Result<Option<Stored<WorkOrder>>, DeployError> {
        let origin: WorkOrderId = origin.parse().map_err(|_| DeployError::NothingEarlier)?;
        let target = self.store.get::<WorkOrder>(origin).await?;
        self.bring(actor, id, &target).await
    }

    async fn bring(
        &self,
        actor: &Actor,
        id: DeploymentId,
        target: &Stored<WorkOrder>,
    ) -> Result<Option<Stored<WorkOrder>>, DeployError> {
        let origin = target.origin(target.id);
        let mut tx = self.store.begin().await?;
        tx.lock_deployment(id).await?;
        let deployment = tx.get::<Deployment>(id).await?;
        let active = self.store.active_work_order(id).await?;
        if let Some(active) = &active
            && active.restores == Some(origin)
        {
            // Asked twice.
            return Ok(Some(active.clone()));
        }
        if let Some(live) = deployment.live_work_order
            && tx.get::<WorkOrder>(live).await?.origin(live) == origin
        {
            return Ok(None);
        }
        let version = tx.get::<ModelVersion>(target.candidate).await?;
        was_live_here(target, id, &version)?;
        let settings = Settings::read(&target.snapshot)?;
        let reason = actor.reason.clone().unwrap_or_default();
        let digest = target.candidate_digest.clone();
        let mut order = pending(
            actor.principal,
            &deployment,
            &version,
            digest,
            &settings,
            reason,
        );
        order.restores = Some(origin);
        order.evidence.clone_from(&target.evidence);
        order.override_reason.clone_from(&target.override_reason);
        order.approver = target.approver;
        if let Some(active) = active {
            self.supersede(&mut tx, actor, &active).await?;
        }
        let order = tx.create(actor, order).await?;
        let actor = with_reason(actor, Some(format!("as approved in {}", target.id)));
        let order = tx
            .transition::<WorkOrder>(&actor, order.id, None, WorkOrderEvent::Approve, |_| ())
            .await?;
        self.commit(tx).await?;
        Ok(Some(order))
    }

    /// Ends an order that has taken no traffic, in favour of taking back.
    pub(super) async fn supersede(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        active: &Stored<WorkOrder>,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        if active.state.takes_traffic() {
            return Err(DeployError::Busy(active.id));
        }
        let now = tx.now();
        let because = format!("{}: superseded by taking back", actor.name);
        let (began, is_release) = (active.release_state.clone(), is_release(active)?);
        let ended = tx
            .transition::<WorkOrder>(actor, active.id, None, WorkOrderEvent::Abort, move |it| {
                it.ended_because = Some(because);
                if is_release {
                    // So that it is told from a release that could not be carried out.
                    let state = began.and_then(|it| serde_json::from_value::<Release>(it.0).ok());
                    let state = state.unwrap_or_else(|| Release::new(now));
                    let state = serde_json::to_value(state.after(&Action::Abort, now));
                    it.release_state = state.ok().map(Json);
                }
            })
            .await;
        match ended {
            // It has begun to, since it was read.
            Err(StoreError::IllegalTransition(_)) => Err(DeployError::Busy(active.id)),
            other => Ok(other?),
        }
    }
}

/// Whether an order moves traffic in steps.
fn is_release(order: &WorkOrder) -> Result<bool, StoreError> {
    let is_new = order.previous.is_some() && order.restores.is_none();
    Ok(is_new && Settings::read(&order.snapshot)?.is_stepwise())
}
