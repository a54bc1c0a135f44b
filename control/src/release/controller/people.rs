//! What people ask of releases.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use sluice_gateway::config::ReleasesConfig;
use tokio::sync::Notify;

use super::act::{Made, apply, release_state};
use super::back::PATIENCE;
use super::drive::missing;
use super::record::Recorder;
use super::watch::Gathered;
use crate::deploy::{Caller, DeployError, Deployments, NewWorkOrder, Settings};
use crate::domain::record::{DecisionKind, Deployment, WorkOrder};
use crate::domain::roles::{Forbidden, Verb};
use crate::domain::work_order::WorkOrderState;
use crate::id::{DeploymentId, ModelVersionId, WorkOrderId};
use crate::publish::{Publisher, Snapshot};
use crate::release::analysis::Assessment;
use crate::release::planner::{Action, Command, Observed, Refused, Release, command};
use crate::store::{Actor, Store, StoreError, Stored};
use crate::time::Timestamp;

/// A release to be started.
#[derive(Debug, Clone)]
pub struct NewRelease {
    pub deployment: DeploymentId,
    pub candidate: ModelVersionId,
    /// Other servers that hold the candidate, instead of this process.
    pub upstream: Vec<String>,
    /// Instead of the deployment's.
    pub strategy: Option<Value>,
    pub reason: String,
    /// At once, if the caller may and the gate lets it.
    pub approve: bool,
}

/// What was asked of a release cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// 409.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// 409.
    #[error("work order {0} switches all traffic at once: it is no release")]
    NoRelease(WorkOrderId),
    /// 409.
    #[error("a release that is {0} has no traffic to {1}; abort ends it")]
    NotBegun(WorkOrderState, Command),
    /// 503.
    #[error("the control plane has no database yet")]
    NoDatabase,
}

impl From<StoreError> for ReleaseError {
    fn from(error: StoreError) -> Self {
        Self::Deploy(error.into())
    }
}

impl From<Forbidden> for ReleaseError {
    fn from(error: Forbidden) -> Self {
        Self::Deploy(error.into())
    }
}

impl ReleaseError {
    /// Whether the same may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Deploy(DeployError::Store(StoreError::Stale { .. })) | Self::NoDatabase => true,
            Self::Deploy(DeployError::Store(error)) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Releases as people see them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Releases {
    pub(super) shared: Arc<Shared>,
    /// For so long a roll-back after a release was taken back is taken for the same wish.
    pub(super) repeats: Duration,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) publisher: Arc<Publisher>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) wake: Arc<Notify>,
    pub(super) store: OnceLock<(Store, Deployments)>,
}

impl Releases {
    pub fn new(publisher: Arc<Publisher>, recorder: Arc<Recorder>, wake: Arc<Notify>) -> Self {
        let shared = Shared {
            publisher,
            recorder,
            wake,
            store: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
            repeats: ReleasesConfig::default().rollback_repeats,
        }
    }

    /// The same, with another time for which a roll-back that is asked for again is the same.
    #[must_use]
    pub fn repeating_within(mut self, repeats: Duration) -> Self {
        self.repeats = repeats;
        self
    }

    /// That time.
    pub const fn repeats(&self) -> Duration {
        self.repeats
    }

    /// The database is open.
    pub fn follow(&self, store: Store, deployments: Deployments) {
        _ = self.shared.store.set((store, deployments));
    }

    pub(super) fn store(&self) -> Result<&(Store, Deployments), ReleaseError> {
        self.shared.store.get().ok_or(ReleaseError::NoDatabase)
    }

    /// Orders a release, and approves it if that is asked for and possible; else it waits for somebody who may. It
    /// begins when the order is committed.
    ///
    /// # Errors
    /// [`DeployError::NothingLive`]: there is nothing to release it beside. And those of [`Deployments::order`].
    pub async fn start(
        deployments: &Deployments,
        caller: &Caller,
        new: NewRelease,
    ) -> Result<(Stored<WorkOrder>, Option<String>), ReleaseError> {
        let order = NewWorkOrder {
            deployment: new.deployment,
            candidate: new.candidate,
            reason: new.reason,
            upstream: new.upstream,
            strategy: new.strategy,
            stepwise: true,
        };
        let order = deployments.order(caller, order).await?;
        if !new.approve {
            return Ok((order, None));
        }
        match deployments.approve(caller, order.id, None, None).await {
            Ok(approved) => Ok((approved, None)),
            Err(DeployError::Store(error)) => Err(error.into()),
            // It stays, and says what it waits for.
            Err(refused) => Ok((order, Some(refused.to_string()))),
        }
    }

    /// What is published, without the database.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.publisher.snapshot()
    }

    /// What this process knows of a release's candidate.
    pub fn gathered(&self, release: WorkOrderId) -> Option<Gathered> {
        self.shared.publisher.watches().gathered(release)
    }

    /// Pauses, resumes, promotes, aborts or takes back.
    ///
    /// # Errors
    /// [`ReleaseError::Refused`], which is written into the history too.
    pub async fn command(
        &self,
        caller: &Caller,
        id: WorkOrderId,
        asked: Command,
        reason: &str,
    ) -> Result<Stored<WorkOrder>, ReleaseError> {
        let (store, deployments) = self.store()?;
        let by = spoken(&caller.actor, reason);
        loop {
            let order = store.get::<WorkOrder>(id).await?;
            let deployment = store.get::<Deployment>(order.deployment).await?;
            caller.may(Verb::OperateRelease, deployment.department)?;
            if order.release_state.is_none() && asked == Command::Abort {
                return Ok(deployments.abort(caller, id, None, reason).await?);
            }
            if order.release_state.is_none() && Settings::read(&order.snapshot)?.is_stepwise() {
                return Err(ReleaseError::NotBegun(order.state, asked));
            }
            let state = release_state(&order)?;
            match self.decide(store, &order, &state, asked, &by).await {
                Err(ReleaseError::Deploy(DeployError::Store(StoreError::Stale { .. }))) => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.shared.publisher.tick().await;
        self.shared.wake.notify_waiters();
        Ok(store.get::<WorkOrder>(id).await?)
    }

    async fn decide(
        &self,
        store: &Store,
        order: &Stored<WorkOrder>,
        state: &Release,
        asked: Command,
        by: &Actor,
    ) -> Result<(), ReleaseError> {
        let now = Timestamp::now();
        let watch = self.shared.publisher.watches().of(order.id);
        let gathered = watch.as_ref().map(|watch| watch.gathered(now));
        let assessment = match &gathered {
            Some(gathered) => gathered.assessment.clone(),
            None => Assessment::new(now, Vec::new()),
        };
        let mut tx = store.begin().await?;
        let gate = match asked {
            Command::Promote => missing(&mut tx, order).await?,
            _ => Vec::new(),
        };
        let observed = Observed {
            assessment: &assessment,
            gate: &gate,
        };
        let answer = command(state, asked, observed);
        if matches!(answer, Ok(Action::RollBack { .. })) {
            drop(tx);
            let braked = self.take_release_back(order.deployment, by).await;
            if braked.is_some_and(|it| it.release == order.id) {
                // What is not written within this time is written later.
                _ = tokio::time::timeout(PATIENCE, self.shared.recorder.round()).await;
                return Ok(());
            }
            // It is not served here: another process follows the records.
            tx = store.begin().await?;
        }
        let mut made = Made {
            action: None,
            kind: DecisionKind::Refused,
            at: now,
            by: by.clone(),
            evidence: gathered.and_then(|it| serde_json::to_value(it).ok()),
        };
        match answer {
            Ok(Action::Wait { .. }) => Ok(()),
            Ok(action) => {
                made.action = Some(action);
                made.kind = DecisionKind::Command;
                let applied = apply(&mut tx, order, state, made).await?;
                tx.commit().await?;
                applied.log();
                Ok(())
            }
            Err(refused) => {
                made.by.reason = Some(refused.to_string());
                let applied = apply(&mut tx, order, state, made).await?;
                tx.commit().await?;
                applied.log();
                Err(refused.into())
            }
        }
    }
}

pub(super) fn spoken(actor: &Actor, reason: &str) -> Actor {
    match reason {
        "" => actor.clone(),
        reason => actor.clone().because(reason),
    }
}
