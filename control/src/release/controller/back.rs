//! Taking back: the traffic first, by what this process knows, and then the records.
//!
//! Whoever takes back waits for nothing that is known to be away, and for what is unknown not long: the route table is
//! swapped by what is published, the journal is on the disk before the answer, and the database hears of it when it can.
//! What was said to be done is done: after a crash the journal pulls the brakes again before anything is published, and
//! records that say otherwise by then give way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_gateway::metrics::TakenBack as Cause;

use super::people::{ReleaseError, Releases, spoken};
use super::record::TakenBack;
use crate::deploy::returns::label_of;
use crate::deploy::{Aim, Already, Caller, DeployError, Deployments, Return};
use crate::domain::record::{DecisionKind, WorkOrder};
use crate::domain::roles::Verb;
use crate::domain::work_order::WorkOrderState;
use crate::id::{DeploymentId, WorkOrderId};
use crate::publish::Snapshot;
use crate::release::planner::{Command, Phase, Why};
use crate::store::{Actor, Store, Stored};
use crate::time::Timestamp;

/// How long a person waits for the records once the traffic has moved.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long a roll-back waits to hear what the records say before it goes by what is published.
const GLANCE: Duration = Duration::from_millis(250);
/// Between two tries to write within somebody's patience.
const AGAIN: Duration = Duration::from_millis(20);

/// How a roll-back was done.
#[derive(Debug, Clone, PartialEq)]
pub enum TakenBackTo {
    /// In the records too: the release that ended, or the order that brings the old revision back.
    Recorded(Box<Stored<WorkOrder>>),
    /// In the traffic of this process, and in its journal: the database does not answer.
    Queued {
        /// What answers, or will.
        revision: String,
        /// It is loaded first; until then it is as it was.
        loads_first: bool,
    },
    /// Nothing was moved: it had been done before.
    Already(Already),
}

/// A release that reaches nobody any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Braked {
    pub(super) release: WorkOrderId,
    /// This moment, and not before.
    now: bool,
}

impl Releases {
    /// Takes a deployment back: the release under way ends, or else the revision before the live one returns, or `to`.
    /// The traffic moves first; the records follow, at once or when they can. Asked again, it moves nothing.
    ///
    /// # Errors
    /// [`DeployError::NothingLive`], [`DeployError::NothingEarlier`], [`DeployError::Unnamed`], [`DeployError::Busy`].
    pub async fn roll_back(
        &self,
        caller: &Caller,
        id: DeploymentId,
        reason: &str,
        to: Option<&str>,
    ) -> Result<TakenBackTo, ReleaseError> {
        let by = spoken(&caller.actor, reason);
        let published = self.snapshot();
        let live = published.live(id).ok_or(DeployError::NothingLive)?;
        caller.may(Verb::OperateRelease, live.department)?;
        // What is named must be known before anything moves.
        let named = match to {
            Some(to) => Some(self.aim(&published, id, Some(to)).await?),
            None => None,
        };
        if let Some(braked) = self.take_release_back(id, &by).await {
            match named {
                None | Some(Aim::Already(_)) => {
                    return self.release_taken_back(id, braked, &published).await;
                }
                Some(Aim::Bring(to)) => return self.bring(id, &to, &by).await,
            }
        }
        if let Some(open) = self.shared.recorder.open_for(id).await
            && named.is_none()
        {
            return self.still_open(id, &open, &published).await;
        }
        if let Some(ended) = self.end_what_has_not_begun(caller, id, &by, reason).await?
            && named.is_none()
        {
            return Ok(TakenBackTo::Recorded(Box::new(ended)));
        }
        let aim = match named {
            Some(aim) => aim,
            None => self.aim(&published, id, None).await?,
        };
        match aim {
            Aim::Already(already) => Ok(TakenBackTo::Already(already)),
            Aim::Bring(to) => self.bring(id, &to, &by).await,
        }
    }

    /// Takes back the release of a deployment that is under way, if there is one and it has traffic. `None`: there is
    /// nothing to take back without asking the records.
    ///
    /// # Errors
    /// The caller may not.
    pub async fn roll_release_back(
        &self,
        caller: &Caller,
        id: DeploymentId,
        reason: &str,
    ) -> Result<Option<TakenBackTo>, ReleaseError> {
        let published = self.snapshot();
        let live = published.live(id).ok_or(DeployError::NothingLive)?;
        caller.may(Verb::OperateRelease, live.department)?;
        let by = spoken(&caller.actor, reason);
        match self.take_release_back(id, &by).await {
            Some(braked) => Ok(Some(self.release_taken_back(id, braked, &published).await?)),
            None => Ok(None),
        }
    }

    /// What answers for a deployment in this process.
    pub fn answering(&self, id: DeploymentId) -> Option<String> {
        self.shared.publisher.routes().answering(id)
    }

    /// Whether the database is known not to answer.
    pub fn is_alone(&self) -> bool {
        self.shared.publisher.pulse().is_away()
    }

    /// Waits until the database is known not to answer.
    pub async fn alone(&self) {
        self.shared.publisher.pulse().lost().await;
    }

    /// Sees to it that no new request reaches the candidate of a release. `None` where none is under way.
    pub(super) async fn take_release_back(&self, id: DeploymentId, by: &Actor) -> Option<Braked> {
        let (publisher, recorder) = (&self.shared.publisher, &self.shared.recorder);
        let watches = publisher.watches();
        let braked = |release, now| Some(Braked { release, now });
        if let Some(watch) = watches.at(id)
            && watch.state().is_armed()
        {
            let taken = watches.take_back(&watch, Why::Person, by);
            let now = taken.is_some();
            if let Some(taken) = taken {
                recorder.add(taken).await;
            }
            return braked(watch.release, now);
        }
        // Its models are being loaded, as after a restart: the brake is there before they are.
        let published = publisher.snapshot();
        let (release, live) = (published.release(id)?, published.live(id)?);
        let order = release.candidate.work_order;
        if !release.state.is_armed() {
            let over = matches!(release.state.phase, Phase::RollingBack { .. });
            return over.then_some(Braked {
                release: order,
                now: false,
            });
        }
        if recorder.has_open(order).await {
            return braked(order, false);
        }
        let to = live.origin().to_string().into();
        publisher.routes().brake_when_loaded(id, &to);
        publisher.routes().count(Cause::Person);
        recorder.add(taken_back(id, Some(order), to, by)).await;
        braked(order, true)
    }

    async fn release_taken_back(
        &self,
        id: DeploymentId,
        braked: Braked,
        published: &Snapshot,
    ) -> Result<TakenBackTo, ReleaseError> {
        if braked.now {
            return self.recorded(id, Some(braked.release)).await;
        }
        let because = format!("release {} was taken back", braked.release);
        Ok(TakenBackTo::Already(said(published, id, because)?))
    }

    /// Taken back before, which the records do not say yet.
    async fn still_open(
        &self,
        id: DeploymentId,
        open: &TakenBack,
        published: &Snapshot,
    ) -> Result<TakenBackTo, ReleaseError> {
        let returns = published.history(id).returns;
        let mut to = returns.iter();
        let to = to.find(|it| it.revision.origin().to_string() == *open.to);
        let mut already = said(published, id, String::new())?;
        if let Some(to) = to {
            already.answers = to.label();
        }
        already.because = format!("{} was brought back", already.answers);
        already.further.retain(|it| *it != already.answers);
        Ok(TakenBackTo::Already(already))
    }

    /// By the records, if they answer soon; else by what is published.
    async fn aim(
        &self,
        published: &Snapshot,
        id: DeploymentId,
        to: Option<&str>,
    ) -> Result<Aim, ReleaseError> {
        if let Some((_, deployments)) = self.records() {
            let asked = deployments.aim(id, to, self.repeats);
            match tokio::time::timeout(GLANCE, asked).await {
                Ok(Ok(aim)) => return Ok(aim),
                Ok(Err(DeployError::Store(error))) if error.is_retryable() => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let live = published.live(id).ok_or(DeployError::NothingLive)?;
        let history = published.history(id);
        let aim = history.aim(live, to, self.repeats, Timestamp::now());
        let aim = aim.map_err(DeployError::from)?;
        Ok(aim.ok_or(DeployError::NothingEarlier)?)
    }

    /// The records, unless they are known to be away.
    fn records(&self) -> Option<&(Store, Deployments)> {
        if self.is_alone() {
            return None;
        }
        self.shared.store.get()
    }

    /// What was approved and has no traffic yet is what was meant, if it is a release: its order just ends. One with
    /// traffic that is not served here ends by its records.
    async fn end_what_has_not_begun(
        &self,
        caller: &Caller,
        id: DeploymentId,
        by: &Actor,
        reason: &str,
    ) -> Result<Option<Stored<WorkOrder>>, ReleaseError> {
        let Some((store, deployments)) = self.records() else {
            return Ok(None);
        };
        let began = Instant::now();
        loop {
            let glance = tokio::time::timeout(GLANCE, store.active_work_order(id)).await;
            let Ok(Ok(Some(active))) = glance else {
                return Ok(None);
            };
            if active.state.takes_traffic() && active.release_state.is_some() {
                let asked = Command::RollBack;
                let ended = self.command(caller, active.id, asked, reason).await?;
                return Ok(Some(ended));
            }
            if active.state != WorkOrderState::Promoting {
                return Ok(deployments.end_what_has_not_begun(by, id).await?);
            }
            // All traffic at once: it is live already, or will be within this moment.
            if began.elapsed() > PATIENCE {
                return Err(DeployError::Busy(active.id).into());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Brings a revision back: at once where it is loaded or other servers compute it, else once it is loaded.
    async fn bring(
        &self,
        id: DeploymentId,
        to: &Return,
        by: &Actor,
    ) -> Result<TakenBackTo, ReleaseError> {
        let publisher = &self.shared.publisher;
        let key: Arc<str> = to.revision.origin().to_string().into();
        let is_loaded = publisher.bring(&to.revision).await;
        if !is_loaded && let Some((_, deployments)) = self.records() {
            // The order of the records loads it first.
            let order = deployments.bring_back(by, id, &key).await?;
            if let Some(order) = order {
                return Ok(TakenBackTo::Recorded(Box::new(order)));
            }
        }
        let holds = publisher.routes().brake_when_loaded(id, &key);
        publisher.routes().count(Cause::Person);
        self.shared
            .recorder
            .add(taken_back(id, None, key, by))
            .await;
        if !holds {
            self.shared.wake.notify_waiters();
            return Ok(TakenBackTo::Queued {
                revision: to.label(),
                loads_first: true,
            });
        }
        self.recorded(id, None).await
    }

    /// Returns where the database says nothing within a glance: it is gone, and nobody knows yet. Else never.
    async fn unheard(&self) {
        let Ok((store, _)) = self.store() else {
            return;
        };
        if let Ok(Ok(())) = tokio::time::timeout(GLANCE, store.ping()).await {
            std::future::pending::<()>().await;
        }
    }

    /// Waits a while for the records, where they are not known to be away.
    async fn recorded(
        &self,
        id: DeploymentId,
        release: Option<WorkOrderId>,
    ) -> Result<TakenBackTo, ReleaseError> {
        let writing = Box::pin(async {
            loop {
                self.shared.recorder.round().await;
                let (store, _) = self.store()?;
                if self.shared.recorder.is_recorded(id).await? {
                    self.shared.wake.notify_waiters();
                    return Ok::<_, ReleaseError>(match release {
                        Some(release) => Some(store.get::<WorkOrder>(release).await?),
                        None => store.promoted_or_active(id).await?,
                    });
                }
                if self.is_alone() {
                    return Ok(None);
                }
                self.shared.wake.notify_waiters();
                tokio::time::sleep(AGAIN).await;
            }
        });
        let waited = async {
            tokio::select! {
                written = writing => written,
                () = self.alone() => Ok(None),
                () = self.unheard() => Ok(None),
            }
        };
        match tokio::time::timeout(PATIENCE, waited).await {
            Ok(Ok(Some(order))) => Ok(TakenBackTo::Recorded(Box::new(order))),
            Ok(Err(error)) if !error.is_retryable() => Err(error),
            _ => Ok(TakenBackTo::Queued {
                revision: self.answering(id).unwrap_or_default(),
                loads_first: false,
            }),
        }
    }
}

fn taken_back(
    deployment: DeploymentId,
    release: Option<WorkOrderId>,
    to: Arc<str>,
    by: &Actor,
) -> TakenBack {
    TakenBack {
        deployment,
        release,
        to,
        at: Timestamp::now(),
        by: by.clone(),
        kind: DecisionKind::Command,
        why: Why::Person,
        evidence: None,
        order: None,
    }
}

fn said(published: &Snapshot, id: DeploymentId, because: String) -> Result<Already, ReleaseError> {
    let live = published.live(id).ok_or(DeployError::NothingLive)?;
    let because = match because.as_str() {
        "" => because,
        because => format!("{because}, and {} answers", label_of(live)),
    };
    Ok(published.history(id).already(live, because))
}
