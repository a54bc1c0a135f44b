//! What people ask of releases.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use sluice_gateway::metrics::TakenBack as Cause;
use tokio::sync::Notify;

use super::act::{Made, apply, release_state};
use super::drive::missing;
use super::record::{Recorder, TakenBack};
use super::watch::Gathered;
use crate::deploy::{Caller, DeployError, Deployments, NewWorkOrder, Settings};
use crate::domain::record::{DecisionKind, Deployment, WorkOrder};
use crate::domain::roles::{Forbidden, Verb};
use crate::domain::work_order::WorkOrderState;
use crate::id::{DeploymentId, ModelVersionId, WorkOrderId};
use crate::publish::{Publisher, Snapshot};
use crate::release::analysis::Assessment;
use crate::release::planner::{Action, Command, Observed, Refused, Release, Why, command};
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

/// How a roll-back was done.
#[derive(Debug, Clone, PartialEq)]
pub enum TakenBackTo {
    /// In the records too: the release that ended, or the order that brings the old revision back.
    Recorded(Box<Stored<WorkOrder>>),
    /// In the traffic of this process, and in its journal: the database does not answer.
    Queued { revision: String },
}

/// Releases as people see them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Releases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    publisher: Arc<Publisher>,
    recorder: Arc<Recorder>,
    wake: Arc<Notify>,
    store: OnceLock<(Store, Deployments)>,
}

/// How long a person waits for the records once the traffic has moved.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a roll-back waits to hear that it is not possible.
const GLANCE: Duration = Duration::from_millis(250);

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
        }
    }

    /// The database is open.
    pub fn follow(&self, store: Store, deployments: Deployments) {
        _ = self.shared.store.set((store, deployments));
    }

    fn store(&self) -> Result<&(Store, Deployments), ReleaseError> {
        self.shared.store.get().ok_or(ReleaseError::NoDatabase)
    }

    /// Orders a release, and approves it if that is asked for and possible; else it waits for somebody who may.
    ///
    /// # Errors
    /// [`DeployError::NothingLive`]: there is nothing to release it beside. And those of [`Deployments::order`].
    pub async fn start(
        &self,
        caller: &Caller,
        new: NewRelease,
    ) -> Result<(Stored<WorkOrder>, Option<String>), ReleaseError> {
        let (_, deployments) = self.store()?;
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
        if let (Ok(Action::RollBack { why }), Some(watch)) = (&answer, &watch) {
            drop(tx);
            if let Some(taken) = self
                .shared
                .publisher
                .watches()
                .take_back(watch, why.clone(), by)
            {
                self.shared.recorder.add(taken).await;
            }
            // What is not written within this time is written later.
            _ = tokio::time::timeout(PATIENCE, self.shared.recorder.round()).await;
            return Ok(());
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

    /// Takes a deployment back: the release under way ends, or else the revision before the live one returns. The
    /// traffic moves first where that revision is loaded; the records follow, at once or when they can.
    ///
    /// # Errors
    /// [`DeployError::NothingEarlier`], [`DeployError::Busy`] and the gate's, as far as the database can be asked.
    pub async fn roll_back(
        &self,
        caller: &Caller,
        id: DeploymentId,
        reason: &str,
    ) -> Result<TakenBackTo, ReleaseError> {
        let publisher = &self.shared.publisher;
        let watches = publisher.watches();
        let by = spoken(&caller.actor, reason);
        let published = publisher.snapshot();
        let live = published.revisions.iter().find(|it| it.deployment == id);
        let live = live.ok_or(ReleaseError::Deploy(DeployError::NothingLive))?;
        caller.may(Verb::OperateRelease, live.department)?;
        if let Some(watch) = watches.at(id)
            && watch.state().is_armed()
        {
            let release = watch.release;
            if let Some(taken) = watches.take_back(&watch, Why::Person, &by) {
                self.shared.recorder.add(taken).await;
            }
            return self.recorded(id, Some(release)).await;
        }
        if let Some((store, deployments)) = self.shared.store.get() {
            let glance = tokio::time::timeout(GLANCE, store.active_work_order(id)).await;
            if let Ok(Ok(Some(active))) = glance {
                if active.release_state.is_some() {
                    let asked = Command::Abort;
                    let ended = self.command(caller, active.id, asked, reason).await?;
                    return Ok(TakenBackTo::Recorded(Box::new(ended)));
                }
                return Err(DeployError::Busy(active.id).into());
            }
            if published.warm(id).is_none() {
                let order = deployments.roll_back(caller, id, reason).await?;
                return Ok(TakenBackTo::Recorded(Box::new(order)));
            }
        }
        let to = published.warm(id).map(|it| it.origin().to_string().into());
        let to = to.ok_or(ReleaseError::Deploy(DeployError::NothingEarlier))?;
        if let Err(error) = publisher.routes().brake(id, &to) {
            tracing::warn!(deployment = %id, %error, "it is loaded first");
        }
        publisher.routes().count(Cause::Person);
        let taken = TakenBack {
            deployment: id,
            release: None,
            to,
            at: Timestamp::now(),
            by,
            kind: DecisionKind::Command,
            why: Why::Person,
            evidence: None,
            order: None,
        };
        self.shared.recorder.add(taken).await;
        self.recorded(id, None).await
    }

    /// Waits a while for the records.
    async fn recorded(
        &self,
        id: DeploymentId,
        release: Option<WorkOrderId>,
    ) -> Result<TakenBackTo, ReleaseError> {
        let writing = async {
            self.shared.recorder.round().await;
            let (store, _) = self.store()?;
            if !self.shared.recorder.is_recorded(id).await? {
                return Ok::<_, ReleaseError>(None);
            }
            self.shared.wake.notify_waiters();
            Ok(match release {
                Some(release) => Some(store.get::<WorkOrder>(release).await?),
                None => store.promoted_or_active(id).await?,
            })
        };
        match tokio::time::timeout(PATIENCE, writing).await {
            Ok(Ok(Some(order))) => Ok(TakenBackTo::Recorded(Box::new(order))),
            Ok(Err(error)) if !error.is_retryable() => Err(error),
            _ => Ok(TakenBackTo::Queued {
                revision: self
                    .shared
                    .publisher
                    .routes()
                    .answering(id)
                    .unwrap_or_default(),
            }),
        }
    }
}

fn spoken(actor: &Actor, reason: &str) -> Actor {
    match reason {
        "" => actor.clone(),
        reason => actor.clone().because(reason),
    }
}
