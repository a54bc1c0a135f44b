//! What people ask of deployments. Each call authorises, validates, commits, and wakes those who follow.

mod way_back;

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;

pub(super) use way_back::HISTORY;
pub use way_back::Returned;

use super::dossier::{Dossier, approval, still_deployable};
use super::{Caller, DeployError, Settings};
use crate::domain::model_version::ModelVersionEvent;
use crate::domain::record::{Deployment, ModelVersion, WorkOrder};
use crate::domain::roles::Verb;
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState};
use crate::id::{DeploymentId, ModelVersionId, PrincipalId, WorkOrderId};
use crate::quota;
use crate::release::strategy::Strategy;
use crate::store::{Actor, Audit, Json, Store, StoreError, Stored, Tx};

/// What a work order is about.
#[derive(Debug, Clone)]
pub struct NewWorkOrder {
    pub deployment: DeploymentId,
    /// The version to serve; the one that is live, to serve it by other settings.
    pub candidate: ModelVersionId,
    pub reason: String,
    /// Other servers that hold it, instead of the deployment's setting.
    pub upstream: Vec<String>,
    /// How traffic moves to it, instead of the deployment's setting.
    pub strategy: Option<Value>,
    /// In steps, whatever the deployment's strategy says.
    pub stepwise: bool,
}

impl NewWorkOrder {
    /// As the deployment's settings say.
    pub fn new(
        deployment: DeploymentId,
        candidate: ModelVersionId,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            deployment,
            candidate,
            reason: reason.into(),
            upstream: Vec::new(),
            strategy: None,
            stepwise: false,
        }
    }

    /// The deployment's settings with what is different this time.
    fn settings(&self, deployment: &Deployment) -> Result<Settings, StoreError> {
        let mut settings = Settings::of(deployment);
        if let Some(strategy) = &self.strategy {
            settings.strategy = strategy.clone();
        }
        if self.stepwise && !settings.is_stepwise() {
            // Written out, so that the order says what was done, whatever the defaults become.
            settings.strategy = serde_json::to_value(Strategy::default()).unwrap_or_default();
        }
        if !self.upstream.is_empty() {
            settings.move_to(&self.upstream)?;
        }
        settings.check()?;
        Ok(settings)
    }
}

/// Deployments and their work orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deployments {
    store: Store,
    wake: Arc<Notify>,
}

impl Deployments {
    /// `wake` is notified after each commit that the driver or the publisher should hear of.
    pub fn new(store: Store, wake: Arc<Notify>) -> Self {
        Self { store, wake }
    }

    /// Whether a deployment's settings can work. To be asked before one is created or edited; the settings
    /// take effect with the next work order.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the field.
    pub fn check(deployment: &Deployment) -> Result<(), StoreError> {
        Settings::of(deployment).check()
    }

    /// Makes a work order, pending, with a snapshot of the deployment's settings.
    ///
    /// # Errors
    /// [`DeployError::NotApproved`], [`DeployError::Busy`] while another is unfinished, and what
    /// [`Settings::check`] refuses.
    pub async fn order(
        &self,
        caller: &Caller,
        new: NewWorkOrder,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        let mut tx = self.store.begin().await?;
        let deployment = tx.get::<Deployment>(new.deployment).await?;
        caller.may(Verb::CreateWorkOrder, deployment.department)?;
        let version = tx.get::<ModelVersion>(new.candidate).await?;
        if version.model != deployment.model {
            return Err(StoreError::invalid(
                "candidate",
                "is a version of another model than the deployment's",
            )
            .into());
        }
        if new.stepwise && deployment.live_work_order.is_none() {
            return Err(DeployError::NothingLive);
        }
        let settings = new.settings(&deployment)?;
        check_names(&mut tx, &deployment, &settings).await?;
        let digest = version.digest.clone().unwrap_or_default();
        still_deployable(&version, &digest)?;
        let order = pending(
            caller.actor.principal,
            &deployment,
            &version,
            digest,
            &settings,
            new.reason,
        );
        let order = Self::busy(&mut tx, &caller.actor, order).await?;
        tx.commit().await?;
        Ok(order)
    }

    /// Lets a pending work order through the gate and the quotas. `override_reason` overrides what the
    /// deployment's policy lets be overridden, and is written to the audit log with what it overrode.
    ///
    /// # Errors
    /// [`DeployError::Gate`] and [`DeployError::Quota`], with everything that stands in the way.
    pub async fn approve(
        &self,
        caller: &Caller,
        id: WorkOrderId,
        expected: Option<i64>,
        override_reason: Option<String>,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        let mut tx = self.store.begin().await?;
        let order = tx.get::<WorkOrder>(id).await?;
        let deployment = tx.get::<Deployment>(order.deployment).await?;
        caller.may(Verb::ApproveWorkOrder, deployment.department)?;
        let version = tx.get::<ModelVersion>(order.candidate).await?;
        still_deployable(&version, &order.candidate_digest)?;
        let settings = Settings::read(&order.snapshot)?;
        let dossier = Dossier::for_order(&mut tx, &version, deployment.id, &settings).await?;
        let passed = dossier.check(&approval(
            caller.actor.principal,
            caller.role,
            override_reason.clone(),
        ))?;
        quota::check_room(&mut tx, &deployment, &settings).await?;
        let document = dossier.document(&passed);
        if !passed.overridden.is_empty() {
            let actor = with_reason(&caller.actor, override_reason.clone());
            tx.audit(&Audit::of(&actor, "override_gate", id).detail(&document))
                .await?;
        }
        let reason = override_reason.filter(|_| !passed.overridden.is_empty());
        let approver = caller.actor.principal;
        let order = tx
            .transition::<WorkOrder>(
                &caller.actor,
                id,
                expected,
                WorkOrderEvent::Approve,
                move |it| {
                    it.approver = approver;
                    it.evidence = Some(Json(document));
                    it.override_reason = reason;
                },
            )
            .await?;
        self.commit(tx).await?;
        Ok(order)
    }

    /// Ends a pending work order.
    ///
    /// # Errors
    /// [`StoreError::IllegalTransition`] if it is not pending.
    pub async fn reject(
        &self,
        caller: &Caller,
        id: WorkOrderId,
        expected: Option<i64>,
        reason: &str,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        let verb = Verb::ApproveWorkOrder;
        self.end(caller, verb, id, expected, WorkOrderEvent::Reject, reason)
            .await
    }

    /// Ends a work order that has taken no traffic yet; what was loaded for it is freed.
    ///
    /// # Errors
    /// [`StoreError::IllegalTransition`] once it takes traffic: it is rolled back then.
    pub async fn abort(
        &self,
        caller: &Caller,
        id: WorkOrderId,
        expected: Option<i64>,
        reason: &str,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        let verb = Verb::OperateRelease;
        self.end(caller, verb, id, expected, WorkOrderEvent::Abort, reason)
            .await
    }

    async fn end(
        &self,
        caller: &Caller,
        verb: Verb,
        id: WorkOrderId,
        expected: Option<i64>,
        event: WorkOrderEvent,
        reason: &str,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        let mut tx = self.store.begin().await?;
        let order = tx.get::<WorkOrder>(id).await?;
        let deployment = tx.get::<Deployment>(order.deployment).await?;
        caller.may(verb, deployment.department)?;
        let actor = with_reason(&caller.actor, Some(reason.to_owned()));
        let because = match reason {
            "" => caller.actor.name.clone(),
            reason => format!("{}: {reason}", caller.actor.name),
        };
        let order = tx
            .transition::<WorkOrder>(&actor, id, expected, event, |it| {
                it.ended_because = Some(because);
            })
            .await?;
        self.commit(tx).await?;
        Ok(order)
    }

    /// Creates an order, or says which one stands in its way.
    async fn busy(
        tx: &mut Tx,
        actor: &Actor,
        order: WorkOrder,
    ) -> Result<Stored<WorkOrder>, DeployError> {
        match tx.active_work_order(order.deployment).await? {
            Some(active) => Err(DeployError::Busy(active.id)),
            None => Ok(tx.create(actor, order).await?),
        }
    }

    /// Nothing is served any more; requests in flight end as they would have. A work order that has taken no traffic yet
    /// gives way.
    ///
    /// # Errors
    /// [`DeployError::NothingLive`], and [`DeployError::Busy`] while a work order takes traffic.
    pub async fn stop(
        &self,
        caller: &Caller,
        id: DeploymentId,
        expected: Option<i64>,
        reason: &str,
    ) -> Result<Stored<Deployment>, DeployError> {
        let active = self.store.active_work_order(id).await?;
        let mut tx = self.store.begin().await?;
        tx.lock_deployment(id).await?;
        let deployment = tx.get::<Deployment>(id).await?;
        caller.may(Verb::OperateRelease, deployment.department)?;
        let live = deployment.live_version.ok_or(DeployError::NothingLive)?;
        let actor = with_reason(&caller.actor, Some(reason.to_owned()));
        if let Some(active) = active {
            self.supersede(&mut tx, &actor, &active).await?;
        }
        let stopped = tx
            .update::<Deployment>(&actor, id, expected, |it| {
                it.live_version = None;
                it.live_digest = None;
                it.live_work_order = None;
            })
            .await?;
        leave_live(&mut tx, &actor, live, id).await?;
        self.commit(tx).await?;
        Ok(stopped)
    }

    async fn commit(&self, tx: Tx) -> Result<(), StoreError> {
        tx.commit().await?;
        self.wake.notify_waiters();
        Ok(())
    }
}

/// What a strategy names has to be there: an objective on an evaluation that does not exist would wait for ever.
async fn check_names(
    tx: &mut Tx,
    deployment: &Deployment,
    settings: &Settings,
) -> Result<(), DeployError> {
    if !settings.is_stepwise() {
        return Ok(());
    }
    for (field, name) in settings.strategy()?.evaluations() {
        if !tx.has_evaluation(deployment.model, name).await? {
            let problem = format!("the deployment's model has no evaluation {name}");
            return Err(StoreError::invalid(format!("strategy.{field}"), problem).into());
        }
    }
    Ok(())
}

fn with_reason(actor: &Actor, reason: Option<String>) -> Actor {
    Actor {
        reason: reason.or_else(|| actor.reason.clone()),
        ..actor.clone()
    }
}

fn pending(
    author: Option<PrincipalId>,
    deployment: &Stored<Deployment>,
    version: &Stored<ModelVersion>,
    digest: String,
    settings: &Settings,
    reason: String,
) -> WorkOrder {
    WorkOrder {
        deployment: deployment.id,
        candidate: version.id,
        candidate_digest: digest,
        previous: deployment.live_version,
        author,
        approver: None,
        state: WorkOrderState::Pending,
        step: 0,
        snapshot: settings.to_document(),
        evidence: None,
        override_reason: None,
        reason,
        release_state: None,
        restores: None,
        replaced: None,
        ended_because: None,
        finished_at: None,
    }
}

/// A version that the deployment no longer serves: the last to do so takes it back to `approved`.
pub(super) async fn leave_live(
    tx: &mut Tx,
    actor: &Actor,
    version: ModelVersionId,
    left_by: DeploymentId,
) -> Result<(), StoreError> {
    if tx.serving(version, left_by).await? == 0 {
        tx.transition::<ModelVersion>(actor, version, None, ModelVersionEvent::LeaveLive, |_| ())
            .await?;
    }
    Ok(())
}
