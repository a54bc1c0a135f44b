//! The loop that moves releases on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use super::act::{Made, apply, release_state};
use super::people::ReleaseError;
use super::record::Recorder;
use super::watch::{Gathered, Watch, analysis};
use crate::deploy::{DeployError, Settings, check_order};
use crate::domain::record::{DecisionKind, WorkOrder};
use crate::id::{EvaluationRunId, WorkOrderId};
use crate::publish::Publisher;
use crate::release::analysis::Assessment;
use crate::release::planner::{Action, Observed, Phase, Release, Why, plan};
use crate::release::strategy::{Objective, Strategy};
use crate::store::{Store, StoreError, Stored, Tx};
use crate::time::Timestamp;

/// Moves the releases of one serving process on.
#[derive(Debug)]
pub struct Controller {
    store: Store,
    publisher: Arc<Publisher>,
    recorder: Arc<Recorder>,
    /// Unlike any other process, this one after a restart included.
    holder: String,
    memory: Mutex<Memory>,
}

/// What may be forgotten.
#[derive(Debug, Default)]
struct Memory {
    /// When the lease of a release was taken last.
    leases: HashMap<WorkOrderId, Instant>,
    evaluations: HashMap<WorkOrderId, Scores>,
}

/// Scores as they were read last.
#[derive(Debug, Default)]
struct Scores {
    read: Option<Instant>,
    /// By evaluation: the candidate's run and the live version's, which are added up once.
    runs: HashMap<String, (EvaluationRunId, EvaluationRunId)>,
}

/// Between two looks at a release that nothing wakes.
const POLL: Duration = Duration::from_millis(250);
/// How long a release stays with a process that is not heard of. Steps wait that long, taking back does not.
const LEASE: Duration = Duration::from_secs(3);
/// How often the scores of evaluations are read.
const EVALUATIONS: Duration = Duration::from_secs(2);
/// More actions than that in a row would be an error of the planner's.
const ACTIONS: usize = 64;

impl Controller {
    pub fn new(store: Store, publisher: Arc<Publisher>, recorder: Arc<Recorder>) -> Self {
        Self {
            store,
            publisher,
            recorder,
            holder: format!("releases {}", Uuid::now_v7().simple()),
            memory: Mutex::default(),
        }
    }

    /// Works until `stop` is over. A release in hand is left as a crash would leave it, but for its lease.
    pub async fn run(&self, wake: &Notify, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut was_down = false;
        loop {
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            tokio::select! {
                result = self.round() => {
                    if let (Err(error), false) = (&result, was_down) {
                        tracing::warn!(%error, "releases do not advance while the database does not answer");
                    }
                    was_down = result.is_err();
                },
                () = &mut stop => break,
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(POLL) => {}
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
        let orders = self.store.release_orders().await?;
        self.forget_all_but(&orders).await;
        for order in orders {
            if !self.is_ours(order.id).await? {
                continue;
            }
            match self.drive(order.id).await {
                Ok(()) => {}
                Err(ReleaseError::Deploy(DeployError::Store(error))) if error.is_retryable() => {
                    return Err(error);
                }
                // Somebody else has changed it, which the next round sees.
                Err(ReleaseError::Deploy(DeployError::Store(StoreError::Stale { .. }))) => {}
                Err(error) => tracing::error!(release = %order.id, %error, "does not advance"),
            }
        }
        Ok(())
    }

    async fn forget_all_but(&self, orders: &[Stored<WorkOrder>]) {
        let mut memory = self.memory.lock().await;
        let is_there = |id: &WorkOrderId| orders.iter().any(|order| order.id == *id);
        memory.leases.retain(|id, _| is_there(id));
        memory.evaluations.retain(|id, _| is_there(id));
    }

    /// Taken again at a third of its length, so that a quiet release writes little.
    async fn is_ours(&self, release: WorkOrderId) -> Result<bool, StoreError> {
        let mut memory = self.memory.lock().await;
        let fresh = |at: &Instant| at.elapsed() < LEASE / 3;
        if memory.leases.get(&release).is_some_and(fresh) {
            return Ok(true);
        }
        let name = format!("release:{release}");
        let asked = Instant::now();
        let taken = self.store.take_lease(&name, &self.holder, LEASE).await?;
        match taken {
            Some(_) => memory.leases.insert(release, asked),
            None => memory.leases.remove(&release),
        };
        Ok(taken.is_some())
    }

    async fn drive(&self, id: WorkOrderId) -> Result<(), ReleaseError> {
        let mut followed = false;
        for _ in 0..ACTIONS {
            let order = self.store.get::<WorkOrder>(id).await?;
            let state = release_state(&order)?;
            if order.finished_at.is_some() || state.is_over() {
                return Ok(());
            }
            let strategy = Settings::read(&order.snapshot)?.strategy()?;
            let now = Timestamp::now();
            let watch = self.publisher.watches().of(id);
            let begun = matches!(state.phase, Phase::RollingBack { .. });
            let (assessment, gathered) = match &watch {
                // The evidence would be another step's.
                Some(watch) if watch.state() != state => {
                    if std::mem::replace(&mut followed, true) {
                        return Ok(());
                    }
                    self.publisher.tick().await;
                    continue;
                }
                Some(watch) => {
                    self.read_evaluations(&order, &strategy, watch).await?;
                    let wanted = state.wanted(&strategy);
                    (watch.assess(wanted, now), Some(watch.gathered(now)))
                }
                // Nothing is decided before the candidate is loaded here, but what is begun is ended.
                None if begun => (Assessment::new(now, Vec::new()), None),
                None => return self.give_up(&order, &state, now).await,
            };
            let action = self
                .next(&order, &state, &strategy, &assessment, now)
                .await?;
            match action {
                Action::Wait { .. } => return Ok(()),
                Action::RollBack { why } => return self.take_back(watch.as_deref(), why).await,
                action => self.act(&order, &state, action, gathered, now).await?,
            }
        }
        Ok(())
    }

    /// The planner's word. The gate is asked before every rise, and only then.
    async fn next(
        &self,
        order: &Stored<WorkOrder>,
        state: &Release,
        strategy: &Strategy,
        assessment: &Assessment,
        now: Timestamp,
    ) -> Result<Action, ReleaseError> {
        let with = |gate: &[String]| plan(state, strategy, Observed { assessment, gate }, now);
        let action = with(&[]);
        let finishes = action == Action::Finish && state.phase == Phase::Promoting;
        if !action.raises(state) && !finishes {
            return Ok(action);
        }
        let mut tx = self.store.begin().await?;
        let missing = missing(&mut tx, order).await?;
        drop(tx);
        if finishes && !missing.is_empty() {
            // Its evidence was withdrawn in the last moments.
            return Ok(Action::RollBack {
                why: Why::Gate(missing),
            });
        }
        Ok(with(&missing))
    }

    async fn take_back(&self, watch: Option<&Watch>, why: Why) -> Result<(), ReleaseError> {
        let Some(watch) = watch else {
            return Ok(());
        };
        if let Some(taken) = self.publisher.watches().take_back(watch, why, &analysis()) {
            self.recorder.add(taken).await;
        }
        self.recorder.round().await;
        Ok(())
    }

    /// A candidate that this process cannot load, as after a restart on a machine with less memory.
    async fn give_up(
        &self,
        order: &Stored<WorkOrder>,
        state: &Release,
        now: Timestamp,
    ) -> Result<(), ReleaseError> {
        let Some(why) = self.publisher.given_up(&order.id.to_string()) else {
            return Ok(());
        };
        let action = match state.phase {
            Phase::Prepared => Action::Abort,
            _ => Action::RollBack {
                why: Why::Breach(format!("the candidate cannot be loaded: {why}")),
            },
        };
        self.act(order, state, action, None, now).await
    }

    async fn act(
        &self,
        order: &Stored<WorkOrder>,
        state: &Release,
        action: Action,
        gathered: Option<Gathered>,
        now: Timestamp,
    ) -> Result<(), ReleaseError> {
        let mut tx = self.store.begin().await?;
        let made = Made {
            action: Some(action),
            kind: DecisionKind::Action,
            at: now,
            by: analysis(),
            evidence: gathered.and_then(|it| serde_json::to_value(it).ok()),
        };
        let applied = apply(&mut tx, order, state, made).await?;
        tx.commit().await?;
        applied.log();
        self.publisher.tick().await;
        Ok(())
    }

    /// The newest score of each evaluation that the strategy asks for, of both versions.
    async fn read_evaluations(
        &self,
        order: &Stored<WorkOrder>,
        strategy: &Strategy,
        watch: &Watch,
    ) -> Result<(), ReleaseError> {
        let Some(previous) = order.previous else {
            return Ok(());
        };
        let names = strategy.objectives.iter().filter_map(|it| match it {
            Objective::Evaluation { name, .. } => Some(name),
            _ => None,
        });
        let mut memory = self.memory.lock().await;
        let scores = memory.evaluations.entry(order.id).or_default();
        if scores.read.is_some_and(|at| at.elapsed() < EVALUATIONS) {
            return Ok(());
        }
        for name in names {
            let runs = (
                self.store.newest_scored_run(name, order.candidate).await?,
                self.store.newest_scored_run(name, previous).await?,
            );
            let (Some(run), Some(other)) = runs else {
                continue;
            };
            if scores.runs.get(name) == Some(&(run, other)) {
                continue;
            }
            if let Some(delta) = self.store.mean_difference(run, other).await? {
                watch.evaluated(name, delta);
            }
            scores.runs.insert(name.clone(), (run, other));
        }
        scores.read = Some(Instant::now());
        Ok(())
    }
}

/// What the gate misses, in words.
pub(super) async fn missing(
    tx: &mut Tx,
    order: &Stored<WorkOrder>,
) -> Result<Vec<String>, ReleaseError> {
    match check_order(tx, order).await {
        Ok(()) => Ok(Vec::new()),
        Err(DeployError::Gate(missing)) => Ok(missing.iter().map(ToString::to_string).collect()),
        Err(DeployError::Store(error)) => Err(error.into()),
        Err(other) => Ok(vec![other.to_string()]),
    }
}
