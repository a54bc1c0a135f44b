//! Does what work orders ask for, one at a time: loading takes what memory and cores there are.
//!
//! Every round asks the database what is under way. An order's state says what comes next, so that a process that was
//! killed anywhere goes on with what it finds:
//!
//! | state | what is done | and then |
//! |---|---|---|
//! | `approved` | – | `preparing` |
//! | `preparing` | the steps of [`prepare`] | `promoting`, or a release; a step that fails ends it as `aborted` |
//! | `promoting`, not live yet | the gate once more; live in one transaction | (still `promoting`) |
//! | `promoting`, live | the route table is swapped | `promoted` |
//! | `rolling_back` | nothing has moved | `rolled_back` |
//!
//! Orders with a `release_state` are the [release controller's](crate::release::controller).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::dossier::{check_again, check_order};
use super::prepare::{STEPS, prepare};
use super::replicas::{Blueprint, Replicas};
use super::service::leave_live;
use super::steps::{Done, Steps};
use super::{DeployError, Settings};
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState};
use crate::domain::record::{Deployment, ModelVersion, WorkOrder};
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState};
use crate::id::WorkOrderId;
use crate::publish::Publisher;
use crate::release::planner::Release;
use crate::store::{Actor, Json, Lease, Store, StoreError, Stored, Tx};

/// How the driver works. The defaults suit a service.
#[derive(Debug, Clone)]
pub struct DriverSettings {
    /// How often the database is asked when nobody wakes the driver.
    pub poll: Duration,
    /// How long an order stays with a process that is not heard of. Longer than clocks of different machines differ.
    pub lease: Duration,
}

impl Default for DriverSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(10),
        }
    }
}

/// Drives the work orders of one serving process.
#[derive(Debug)]
pub struct Driver {
    pub(super) store: Store,
    replicas: Arc<Replicas>,
    publisher: Arc<Publisher>,
    pub(super) settings: DriverSettings,
    /// Unlike any other process, this one after a restart included.
    holder: String,
}

/// Why an order is not worked on further, for now or for good.
#[derive(Debug)]
pub(super) enum StopReason {
    /// It cannot succeed.
    Failed(String),
    /// Somebody ended it, or another process has it.
    Gone,
    /// The database does not answer; the next round goes on.
    Store(StoreError),
}

impl From<StoreError> for StopReason {
    fn from(error: StoreError) -> Self {
        match error {
            // The state was changed under us.
            StoreError::Stale { .. } | StoreError::IllegalTransition(_) => Self::Gone,
            error if error.is_retryable() => Self::Store(error),
            // It would be the same the next time, and hold up the orders behind it.
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<DeployError> for StopReason {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Store(error) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl Driver {
    pub fn new(
        store: Store,
        replicas: Arc<Replicas>,
        publisher: Arc<Publisher>,
        settings: DriverSettings,
    ) -> Self {
        Self {
            store,
            replicas,
            publisher,
            settings,
            holder: format!("driver {}", Uuid::now_v7().simple()),
        }
    }

    /// Works until `stop` is over. An order in hand is left as a crash would leave it, but for its lease,
    /// so that the next process goes on at once.
    pub async fn run(&self, wake: &Notify, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let woken = wake.notified();
            tokio::pin!(woken);
            // Registered before looking: what changes from here on wakes us.
            woken.as_mut().enable();
            tokio::select! {
                result = self.round() => if let Err(error) = result {
                    tracing::warn!(%error, "work orders wait for the database");
                },
                () = &mut stop => break,
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(self.settings.poll) => {}
                () = &mut stop => break,
            }
        }
        // They run out by themselves where the database does not answer.
        if let Err(error) = self.store.give_leases_back(&self.holder).await {
            tracing::warn!(%error, "leases were not given back");
        }
    }

    /// Does what can be done now.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn round(&self) -> Result<(), StoreError> {
        for order in self.store.work_orders_under_way().await? {
            let name = format!("work_order:{}", order.id);
            let length = self.settings.lease;
            let Some(lease) = self.store.take_lease(&name, &self.holder, length).await? else {
                continue;
            };
            // On the heap: it holds all that a preparation needs.
            let outcome = Box::pin(self.drive(order.id, &lease)).await;
            self.settle(&order, &lease, outcome).await?;
            self.store.give_lease_back(&lease).await?;
        }
        Ok(())
    }

    async fn settle(
        &self,
        order: &Stored<WorkOrder>,
        lease: &Lease,
        outcome: Result<(), StopReason>,
    ) -> Result<(), StoreError> {
        let key = order.origin(order.id).to_string();
        match outcome {
            Ok(()) => {
                // What a release begins with is placed before it may be freed.
                self.publisher.tick().await;
                self.replicas.unpin(&key);
            }
            Err(StopReason::Gone) => {
                tracing::info!(work_order = key, "ended by somebody else");
                self.replicas.unpin(&key);
            }
            // What was loaded stays: the next round needs it.
            Err(StopReason::Store(error)) => return Err(error),
            Err(StopReason::Failed(why)) => {
                tracing::warn!(work_order = key, why, "cannot be carried out");
                self.replicas.unpin(&key);
                if let Err(StopReason::Store(error)) = self.fail(order.id, lease, why).await {
                    return Err(error);
                }
            }
        }
        self.publisher.tick().await;
        Ok(())
    }

    async fn drive(&self, id: WorkOrderId, lease: &Lease) -> Result<(), StopReason> {
        let steps = Steps {
            driver: self,
            order: id,
            lease,
        };
        steps.close_interrupted().await?;
        let blueprint = Blueprint::of(&self.store.revision_of(id).await?)?;
        loop {
            let order = self.store.get::<WorkOrder>(id).await?;
            match order.state {
                WorkOrderState::Approved => {
                    self.step(id, lease, WorkOrderEvent::Prepare, |_| ())
                        .await?;
                }
                WorkOrderState::Preparing => {
                    self.prepare(&steps, &order, &blueprint).await?;
                    if Box::pin(self.hand_over(&order, &blueprint, lease)).await? {
                        return Ok(());
                    }
                    self.step(id, lease, WorkOrderEvent::Promote, |_| ())
                        .await?;
                }
                WorkOrderState::Promoting => {
                    Box::pin(self.promote(&steps, &order, &blueprint)).await?;
                    self.step(id, lease, WorkOrderEvent::Finish, |_| ()).await?;
                    tracing::info!(work_order = %id, revision = blueprint.revision, "promoted");
                }
                WorkOrderState::RollingBack => {
                    let event = WorkOrderEvent::RollbackSucceed;
                    self.step(id, lease, event, |_| ()).await?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// What is brought back and was kept warm is taken as it is.
    async fn prepare(
        &self,
        steps: &Steps<'_>,
        order: &Stored<WorkOrder>,
        blueprint: &Blueprint,
    ) -> Result<(), StopReason> {
        if order.restores.is_some() && self.replicas.pin_if_loaded(&blueprint.key) {
            for name in STEPS {
                steps.skip(name, "it is still loaded").await?;
            }
            return Ok(());
        }
        prepare(steps, &self.replicas, blueprint).await
    }

    /// Makes a release of a prepared order, where there is a strategy and something to release it beside. From here
    /// on its controller moves it.
    async fn hand_over(
        &self,
        order: &Stored<WorkOrder>,
        blueprint: &Blueprint,
        lease: &Lease,
    ) -> Result<bool, StopReason> {
        let deployment = self.store.get::<Deployment>(order.deployment).await?;
        let is_release = blueprint.settings.is_stepwise() && order.restores.is_none();
        let (true, Some(live)) = (is_release, deployment.live_work_order) else {
            return Ok(false);
        };
        let mut tx = self.begin(lease).await?;
        // While it was loaded, what let it through may have ended.
        check_order(&mut tx, order).await?;
        let began = Release::new(tx.now());
        let replaced = tx.get::<WorkOrder>(live).await?.origin(live);
        let state =
            serde_json::to_value(&began).map_err(|error| StopReason::Failed(error.to_string()))?;
        tx.update::<WorkOrder>(&self.actor(), order.id, None, |it| {
            it.release_state = Some(Json(state));
            it.replaced = Some(replaced);
        })
        .await?;
        tx.commit().await?;
        tracing::info!(work_order = %order.id, revision = blueprint.revision, "ready to be released");
        Ok(true)
    }

    async fn promote(
        &self,
        steps: &Steps<'_>,
        order: &Stored<WorkOrder>,
        blueprint: &Blueprint,
    ) -> Result<(), StopReason> {
        let deployment = self.store.get::<Deployment>(order.deployment).await?;
        let is_live = deployment.live_work_order == Some(order.id);
        // Killed between preparing and the swap: what was loaded is gone.
        if !is_live && self.replicas.get(&blueprint.key).is_none() {
            self.prepare(steps, order, blueprint).await?;
        }
        if !is_live {
            let mut tx = self.begin(steps.lease).await?;
            go_live(&mut tx, &self.actor(), order).await?;
            tx.commit().await?;
        }
        steps
            .run("switch", async {
                let began = Instant::now();
                // Boxed: the tick holds the largest blueprint of all.
                Box::pin(self.publisher.tick()).await;
                let swap_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let detail = json!({
                    "revision": blueprint.revision,
                    "from": order.previous,
                    "published_after_us": swap_us,
                });
                Ok(Done((), detail))
            })
            .await
    }

    /// Ends an order that cannot be carried out.
    async fn fail(&self, id: WorkOrderId, lease: &Lease, why: String) -> Result<(), StopReason> {
        let order = self.store.get::<WorkOrder>(id).await?;
        let end = |it: &mut WorkOrder| it.ended_because = Some(why);
        if order.state == WorkOrderState::Promoting {
            self.step(id, lease, WorkOrderEvent::RollBack, end).await?;
            let event = WorkOrderEvent::RollbackSucceed;
            self.step(id, lease, event, |_| ()).await
        } else {
            self.step(id, lease, WorkOrderEvent::Abort, end).await
        }
    }

    pub(super) fn actor(&self) -> Actor {
        Actor::system("work orders")
    }

    /// A transaction of the lease's holder.
    pub(super) async fn begin(&self, lease: &Lease) -> Result<Tx, StopReason> {
        let mut tx = self.store.begin().await?;
        if tx.prolong(lease, self.settings.lease).await? {
            Ok(tx)
        } else {
            Err(StopReason::Gone)
        }
    }

    async fn step(
        &self,
        id: WorkOrderId,
        lease: &Lease,
        event: WorkOrderEvent,
        edit: impl FnOnce(&mut WorkOrder) + Send,
    ) -> Result<(), StopReason> {
        let mut tx = self.begin(lease).await?;
        tx.transition::<WorkOrder>(&self.actor(), id, None, event, edit)
            .await?;
        Ok(tx.commit().await?)
    }
}

/// What the deployment serves, and which versions are live, in one transaction.
pub(crate) async fn go_live(
    tx: &mut Tx,
    actor: &Actor,
    order: &Stored<WorkOrder>,
) -> Result<(), DeployError> {
    tx.lock_deployment(order.deployment).await?;
    let order = tx.get::<WorkOrder>(order.id).await?;
    if order.state != WorkOrderState::Promoting {
        let found = order.state.to_string();
        return Err(StoreError::Stale {
            kind: "work order",
            id: format!("{} ({found})", order.id),
            expected: order.version,
            found: order.version,
        }
        .into());
    }
    let version = tx.get::<ModelVersion>(order.candidate).await?;
    let settings = Settings::read(&order.snapshot)?;
    check_again(tx, &order, &version, &settings).await?;
    let before = tx.get::<Deployment>(order.deployment).await?;
    if let Some(live) = before.live_work_order {
        let replaced = tx.get::<WorkOrder>(live).await?.origin(live);
        tx.update::<WorkOrder>(actor, order.id, None, |it| it.replaced = Some(replaced))
            .await?;
    }
    tx.update::<Deployment>(actor, order.deployment, None, |it| {
        it.live_version = Some(order.candidate);
        it.live_digest = Some(order.candidate_digest.clone());
        it.live_work_order = Some(order.id);
    })
    .await?;
    let event = match version.state {
        ModelVersionState::Live => None,
        ModelVersionState::Approved => Some(ModelVersionEvent::GoLive),
        // Only a return comes here: the gate lets nothing else through.
        _ => Some(ModelVersionEvent::Return),
    };
    if let Some(event) = event {
        tx.transition::<ModelVersion>(actor, version.id, None, event, |_| ())
            .await?;
    }
    if let Some(old) = before.live_version.filter(|old| *old != order.candidate) {
        leave_live(tx, actor, old, order.deployment).await?;
    }
    Ok(())
}
