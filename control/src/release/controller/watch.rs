//! Evidence as it comes in, and the brake.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sluice_gateway::metrics::{Objective, TakenBack as Cause};
use sluice_gateway::release::{Class as Ended, ReleaseOutcome, ReleaseSink, ShadowPair};
use sluice_gateway::router::split::{Assignment, Side as Sent, Weight};
use tokio::sync::mpsc;

use super::record::TakenBack;
use crate::domain::record::DecisionKind;
use crate::id::{DeploymentId, WorkOrderId};
use crate::publish::{Place, PublishedRelease, Routes};
use crate::release::agreement::{self, Agreement};
use crate::release::analysis::{
    Analyser, Assessment, Class, Evidence, Exposure, Facts, Measure, Outcome, QuantilePair, Share,
    Side, Unit, Verdict, Wanted,
};
use crate::release::planner::{Phase, Release, Why};
use crate::release::sample::PairKeeper;
use crate::release::strategy::{OnBreach, Strategy};
use crate::store::Actor;
use crate::time::Timestamp;

/// Hears of every request under release in this process.
#[derive(Debug)]
pub struct Watches {
    /// Weak: the gateway that the routes are of holds the watches.
    routes: Weak<Routes>,
    by_release: RwLock<HashMap<Arc<str>, Arc<Watch>>>,
    taken_back: mpsc::UnboundedSender<TakenBack>,
    /// Takes pairs to be read side by side.
    keeper: OnceLock<PairKeeper>,
    /// For the one that writes them down.
    to_record: tokio::sync::Mutex<mpsc::UnboundedReceiver<TakenBack>>,
}

/// One release under watch.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) release: WorkOrderId,
    deployment: DeploymentId,
    /// The key of the revision that takes all traffic back.
    stable: Arc<str>,
    /// What its metrics are labelled with: deployment and revision.
    candidate: (Arc<str>, Arc<str>),
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    strategy: Strategy,
    /// As it was published last.
    state: Release,
    analyser: Analyser,
    requests: Requests,
    /// The breach that was found was acted upon.
    is_taken_back: bool,
}

/// How many requests of each revision were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub stable: u64,
    pub candidate: u64,
}

/// What a process knows of a candidate at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    /// Which process: each knows what it has served itself.
    pub process: String,
    #[serde(flatten)]
    pub assessment: Assessment,
    pub quantiles: Vec<QuantilePair>,
    pub requests: Requests,
}

impl Watches {
    pub fn new(routes: &Arc<Routes>) -> Arc<Self> {
        let (taken_back, to_record) = mpsc::unbounded_channel();
        Arc::new(Self {
            routes: Arc::downgrade(routes),
            by_release: RwLock::default(),
            keeper: OnceLock::new(),
            taken_back,
            to_record: tokio::sync::Mutex::new(to_record),
        })
    }

    /// From now on a sample of the pairs goes there. Once.
    pub fn keep_pairs(&self, keeper: PairKeeper) {
        _ = self.keeper.set(keeper);
    }

    /// What was taken back and is not written down, for the one who writes.
    pub(super) fn to_record(&self) -> &tokio::sync::Mutex<mpsc::UnboundedReceiver<TakenBack>> {
        &self.to_record
    }

    /// Watches what is published: called before the traffic is, so that no request goes unseen.
    pub(crate) fn follow(
        &self,
        releases: &[PublishedRelease],
        places: &BTreeMap<DeploymentId, Place>,
    ) {
        let now = Timestamp::now();
        let mut next = HashMap::new();
        let mut watched = self.by_release.write();
        for release in releases {
            let place = places.get(&release.candidate.deployment);
            let Some((place, candidate)) = place.and_then(|it| Some((it, it.candidate.as_ref()?)))
            else {
                continue;
            };
            let id: Arc<str> = release.candidate.work_order.to_string().into();
            let watch = match watched.get(&id) {
                Some(watch) if watch.stable == place.stable.key => Arc::clone(watch),
                _ => {
                    let replica = &candidate.replica;
                    let labels = (Arc::clone(&replica.name), Arc::clone(&replica.revision));
                    let stable = Arc::clone(&place.stable.key);
                    Arc::new(Watch::new(release, stable, labels, now))
                }
            };
            watch.follow(&release.state, now);
            next.insert(id, watch);
        }
        *watched = next;
    }

    pub(super) fn of(&self, release: WorkOrderId) -> Option<Arc<Watch>> {
        self.by_release
            .read()
            .get(release.to_string().as_str())
            .cloned()
    }

    /// The release of a deployment whose candidate is loaded here.
    pub(super) fn at(&self, deployment: DeploymentId) -> Option<Arc<Watch>> {
        let watched = self.by_release.read();
        watched
            .values()
            .find(|it| it.deployment == deployment)
            .cloned()
    }

    /// What this process knows of a release; `None` where its candidate is not loaded here.
    pub fn gathered(&self, release: WorkOrderId) -> Option<Gathered> {
        Some(self.of(release)?.gathered(Timestamp::now()))
    }

    /// Pulls the brake, and leaves the record of it to be written. A second time changes nothing.
    pub(super) fn take_back(&self, watch: &Watch, why: Why, by: &Actor) -> Option<TakenBack> {
        let now = Timestamp::now();
        let taken = watch.taken_back(now, why, by)?;
        if let Some(routes) = self.routes.upgrade() {
            if let Err(error) = routes.brake(watch.deployment, &watch.stable) {
                tracing::error!(release = %watch.release, %error, "the brake does not hold");
            }
            routes.count(cause(&taken.why));
        }
        tracing::warn!(release = %watch.release, why = ?taken.why, "taken back");
        Some(taken)
    }
}

impl ReleaseSink for Watches {
    fn outcome(&self, outcome: ReleaseOutcome) {
        let watch = self.by_release.read().get(&outcome.release).cloned();
        let Some(watch) = watch else {
            return;
        };
        if let Some(why) = watch.observe(&read(&outcome))
            && let Some(taken) = self.take_back(&watch, why, &analysis())
        {
            // The receiver lives as long as the process; without it nothing is kept, but the brake holds.
            _ = self.taken_back.send(taken);
        }
    }

    fn pair(&self, pair: ShadowPair) {
        let watch = self.by_release.read().get(&pair.release).cloned();
        let Some(watch) = watch else {
            return;
        };
        let agreement = agreement::compare(&pair);
        if let (Some(agreement), Some(keeper)) = (&agreement, self.keeper.get()) {
            keeper.offer(watch.release, &pair, agreement);
        }
        if let Some(why) = watch.compare(&pair, agreement)
            && let Some(taken) = self.take_back(&watch, why, &analysis())
        {
            _ = self.taken_back.send(taken);
        }
    }

    fn objectives(&self) -> Vec<Objective> {
        let now = Timestamp::now();
        let watched: Vec<_> = self.by_release.read().values().cloned().collect();
        watched
            .iter()
            .flat_map(|watch| watch.objectives(now))
            .collect()
    }
}

fn cause(why: &Why) -> Cause {
    match why {
        Why::Breach(_) | Why::Inconclusive(_) => Cause::Breach,
        Why::Person | Why::Step => Cause::Person,
        Why::Gate(_) => Cause::Gate,
    }
}

/// By whom what is found by counting is done.
pub(super) fn analysis() -> Actor {
    Actor::system("analysis")
}

impl Watch {
    fn new(
        release: &PublishedRelease,
        stable: Arc<str>,
        candidate: (Arc<str>, Arc<str>),
        now: Timestamp,
    ) -> Self {
        let mut analyser = Analyser::new(&release.strategy);
        analyser.begin_step(now);
        Self {
            release: release.candidate.work_order,
            deployment: release.candidate.deployment,
            stable,
            candidate,
            known: Mutex::new(Known {
                strategy: release.strategy.clone(),
                state: release.state.clone(),
                analyser,
                requests: Requests::default(),
                is_taken_back: !release.state.is_armed()
                    && !matches!(release.state.phase, Phase::Prepared),
            }),
        }
    }

    fn follow(&self, state: &Release, now: Timestamp) {
        let mut known = self.known.lock();
        if known.state == *state {
            return;
        }
        let before = std::mem::replace(&mut known.state, state.clone());
        let was_frozen = matches!(
            &before.phase,
            Phase::Paused {
                why: Why::Breach(_),
                ..
            }
        );
        if was_frozen && matches!(state.phase, Phase::Running | Phase::Promoting) {
            known.analyser.rearm(now);
        } else if (before.step, before.share, before.since)
            != (state.step, state.share, state.since)
        {
            match state.phase {
                Phase::Promoting => known.analyser.begin_promoting(now),
                _ => known.analyser.begin_step(now),
            }
        }
    }

    /// The state that the evidence belongs to.
    pub(super) fn state(&self) -> Release {
        self.known.lock().state.clone()
    }

    /// Why it has to be taken back, once.
    fn observe(&self, outcome: &Outcome) -> Option<Why> {
        let mut known = self.known.lock();
        match outcome.side {
            Side::Stable => known.requests.stable += 1,
            Side::Candidate => known.requests.candidate += 1,
        }
        known.analyser.observe(outcome);
        known.breach(outcome.at)
    }

    /// The candidate's answer to a copy.
    fn compare(&self, pair: &ShadowPair, agreement: Option<Agreement>) -> Option<Why> {
        let at = timestamp(pair.ended);
        let mut known = self.known.lock();
        known.analyser.observe(&copy(pair, at));
        if let Some(agreement) = agreement {
            let unit = Unit::Sticky(pair.unit);
            known.analyser.compared(at, unit, agreement.agrees);
        }
        known.breach(at)
    }

    pub(super) fn evaluated(&self, evaluation: &str, delta: f64) {
        self.known.lock().analyser.evaluated(evaluation, delta);
    }

    pub(super) fn assess(&self, wanted: Wanted, now: Timestamp) -> Assessment {
        self.known.lock().analyser.assess(wanted, now)
    }

    pub(super) fn gathered(&self, now: Timestamp) -> Gathered {
        let known = self.known.lock();
        let wanted = known.state.wanted(&known.strategy);
        Gathered {
            process: process(),
            assessment: known.analyser.assess(wanted, now),
            quantiles: known.analyser.quantiles(),
            requests: known.requests,
        }
    }

    fn objectives(&self, now: Timestamp) -> Vec<Objective> {
        let assessment = self.gathered(now).assessment;
        let objective = |found: Evidence| Objective {
            deployment: Arc::clone(&self.candidate.0),
            revision: Arc::clone(&self.candidate.1),
            objective: found.objective,
            verdict: found.verdict.to_string(),
            evidence: match found.measure {
                Measure::Requests { e_value, limit, .. } => Some((e_value, limit)),
                Measure::Evaluation { .. } => None,
            },
        };
        assessment.objectives.into_iter().map(objective).collect()
    }

    fn taken_back(&self, at: Timestamp, why: Why, by: &Actor) -> Option<TakenBack> {
        if std::mem::replace(&mut self.known.lock().is_taken_back, true) {
            return None;
        }
        Some(TakenBack {
            deployment: self.deployment,
            release: Some(self.release),
            to: Arc::clone(&self.stable),
            at,
            by: by.clone(),
            kind: match why {
                Why::Person => DecisionKind::Command,
                _ => DecisionKind::Action,
            },
            why,
            evidence: serde_json::to_value(self.gathered(at)).ok(),
            order: None,
        })
    }
}

impl Known {
    fn breach(&self, at: Timestamp) -> Option<Why> {
        let armed = self.state.is_armed() && !self.is_taken_back;
        if !armed || self.strategy.on_breach != OnBreach::Rollback || !self.analyser.is_breached() {
            return None;
        }
        let assessment = self.analyser.assess(0, at);
        let is_breach = assessment.verdict == Verdict::Breach;
        is_breach.then(|| Why::Breach(assessment.because()))
    }
}

/// Processes know only what they have served.
fn process() -> String {
    format!("process {}", std::process::id())
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn share(weight: Weight) -> Share {
    Share::percent(weight.share() * 100.0)
}

/// What the analysis is told of a request.
fn read(outcome: &ReleaseOutcome) -> Outcome {
    let generated = outcome.finish.is_some() || outcome.output_tokens > 0;
    let tokens = u32::try_from(outcome.output_tokens).unwrap_or(u32::MAX);
    Outcome {
        at: timestamp(outcome.ended),
        side: match outcome.side {
            Sent::Stable => Side::Stable,
            Sent::Candidate => Side::Candidate,
        },
        exposure: match outcome.assignment {
            Assignment::Random => Exposure::Randomised(share(outcome.weight)),
            // Whoever names a revision was not drawn by lot either.
            Assignment::Cohort | Assignment::Named => Exposure::Cohort,
        },
        unit: Unit::Sticky(outcome.unit),
        key: outcome.key,
        facts: Facts {
            class: class(outcome.class),
            stable_answered: outcome.retried.then_some(outcome.stable_answered),
            ttft: outcome.ttft,
            token_time: outcome.tpot,
            total: outcome.total,
            output_tokens: generated.then_some(tokens),
            empty: outcome.empty,
            refusal: outcome.refused,
            grammar_violation: outcome.violation,
        },
    }
}

const fn class(ended: Ended) -> Class {
    match ended {
        Ended::Answered => Class::Ok,
        Ended::Rejected => Class::Rejected,
        Ended::ClientFault => Class::ClientFault,
        Ended::Cancelled => Class::Cancelled,
        Ended::Abandoned => Class::Abandoned,
        Ended::OwnDeadline => Class::OwnDeadline,
        Ended::Broken => Class::Broken,
        Ended::Timeout | Ended::Failed => Class::Fault,
    }
}

/// What it is told of the candidate's answer to a copy.
fn copy(pair: &ShadowPair, at: Timestamp) -> Outcome {
    let answer = &pair.candidate;
    let class = match class(answer.class) {
        // The live revision has answered the same request, and nobody drew by lot who is copied, so that it cannot be
        // compared: limits on errors judge it.
        Class::Rejected => Class::Fault,
        other => other,
    };
    Outcome {
        at,
        side: Side::Candidate,
        exposure: Exposure::Shadow,
        unit: Unit::Sticky(pair.unit),
        key: 0,
        facts: Facts {
            class,
            ttft: answer.ttft,
            output_tokens: u32::try_from(answer.output_tokens)
                .ok()
                .filter(|_| answer.finish.is_some()),
            empty: answer.text.is_empty(),
            ..Facts::ok(answer.total)
        },
    }
}
