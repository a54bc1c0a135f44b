//! One simulated release, from its first step to its end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rival::Rival;
use super::source::{Arrival, Recorded, Source};
use super::traffic::Traffic;
use crate::release::analysis::{Analyser, Assessment, Exposure, Facts, Outcome, Share, Side};
use crate::release::planner::{Action, Observed, Phase, Release, Why, plan};
use crate::release::strategy::{Objective, Strategy};
use crate::time::Timestamp;

/// How often the planner is asked when nothing is broken.
const TICK: Duration = Duration::from_secs(5);

/// How a simulated release ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ended", rename_all = "snake_case")]
pub enum Ended {
    Promoted,
    RolledBack {
        because: String,
    },
    /// It waits for a person.
    Paused {
        because: String,
    },
    /// The traffic ended first.
    Unfinished,
}

/// What somebody's rule did, and what it cost until then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// From the candidate's first traffic to the rollback; `None` if it was not rolled back.
    pub after_s: Option<f64>,
    /// Requests that went worse on the candidate than they would have on stable, until then.
    pub requests: u64,
    /// Users with at least one of those.
    pub users: u64,
}

/// One simulated release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub ended: Ended,
    /// From its start.
    pub after_s: f64,
    pub sluice: Taken,
    pub flagger: Taken,
    pub argo: Taken,
}

/// A request under way, by when it finishes.
type Pending = (Duration, u64);

pub(super) struct Simulation<'a> {
    strategy: &'a Strategy,
    analyser: Analyser,
    release: Release,
    ended: Option<(Ended, Duration)>,
    /// When the candidate first had traffic of its own.
    exposed: Option<Duration>,
    /// The candidate's share, held where we took it back so that the rivals go on.
    share: Share,
    rivals: [Rival; 2],
    rivals_cost: [Option<(u64, u64)>; 2],
    cost: Option<(u64, u64)>,
    hurt: u64,
    hurt_users: HashSet<u64>,
    pending: BinaryHeap<Reverse<Pending>>,
    outcomes: Vec<(Outcome, Option<bool>)>,
    free: Vec<u64>,
    next_tick: Duration,
}

/// Simulates one release. With `rivals`, traffic goes on at the held share until they too have decided or time is up.
#[must_use]
pub fn run(
    strategy: &Strategy,
    traffic: &Traffic,
    recorded: &[Recorded],
    seed: u64,
    rivals: bool,
) -> Run {
    let mut source = Source::new(traffic, recorded, seed);
    let mut simulation = Simulation::new(strategy);
    let mut now = Duration::ZERO;
    simulation.advance(now);
    while let Some(arrival) = source.next() {
        if arrival.at >= traffic.lasts {
            now = traffic.lasts;
            break;
        }
        now = arrival.at;
        simulation.until(now);
        if simulation.is_over(rivals) {
            break;
        }
        simulation.arrive(&arrival);
    }
    if !simulation.is_over(rivals) {
        simulation.until(now);
    }
    simulation.result(now)
}

impl<'a> Simulation<'a> {
    fn new(strategy: &'a Strategy) -> Self {
        Self {
            strategy,
            analyser: Analyser::new(strategy),
            release: Release::new(instant(Duration::ZERO)),
            ended: None,
            exposed: None,
            share: Share::NONE,
            rivals: [Rival::flagger(strategy), Rival::argo(strategy)],
            rivals_cost: [None; 2],
            cost: None,
            hurt: 0,
            hurt_users: HashSet::new(),
            pending: BinaryHeap::new(),
            outcomes: Vec::new(),
            free: Vec::new(),
            next_tick: TICK,
        }
    }

    fn is_over(&self, rivals: bool) -> bool {
        match &self.ended {
            None => false,
            Some((Ended::RolledBack { .. }, _)) if rivals => {
                self.rivals.iter().all(|it| it.rolled_back.is_some())
            }
            Some(_) => true,
        }
    }

    /// Everything that happens up to `now`, in its order.
    fn until(&mut self, now: Duration) {
        loop {
            let finish = self.pending.peek().map(|Reverse((at, _))| *at);
            match finish {
                Some(at) if at <= now && at <= self.next_tick => self.finish_one(),
                _ if self.next_tick <= now => {
                    let tick = self.next_tick;
                    self.next_tick += TICK;
                    self.tick_rivals(tick);
                    self.advance(tick);
                }
                _ => break,
            }
        }
    }

    fn tick_rivals(&mut self, now: Duration) {
        let Some(exposed) = self.exposed else { return };
        for (rival, cost) in self.rivals.iter_mut().zip(&mut self.rivals_cost) {
            rival.tick(now.saturating_sub(exposed));
            if rival.rolled_back.is_some() && cost.is_none() {
                *cost = Some((self.hurt, self.hurt_users.len() as u64));
            }
        }
    }

    fn finish_one(&mut self) {
        let Some(Reverse((at, slot))) = self.pending.pop() else {
            return;
        };
        self.free.push(slot);
        let Some((outcome, agrees)) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.outcomes.get(slot).copied())
        else {
            return;
        };
        if outcome.side == Side::Candidate && outcome.exposure != Exposure::Shadow {
            for rival in &mut self.rivals {
                rival.observe(&outcome.facts, &self.analyser.bars());
            }
        }
        if self.ended.is_some() {
            return;
        }
        self.analyser.observe(&outcome);
        if let Some(agrees) = agrees {
            self.analyser.compared(outcome.at, outcome.unit, agrees);
        }
        if self.analyser.is_breached() {
            self.advance(at);
        }
    }

    /// Asks the planner until it waits.
    fn advance(&mut self, now: Duration) {
        while self.ended.is_none() {
            let at = instant(now);
            let assessment = self.analyser.assess(self.release.wanted(self.strategy), at);
            let observed = Observed {
                assessment: &assessment,
                gate: &[],
            };
            let action = plan(&self.release, self.strategy, observed, at);
            match &action {
                Action::Wait { .. } => return,
                Action::Enter { .. } => self.analyser.begin_step(at),
                Action::Promote => self.analyser.begin_promoting(at),
                Action::RollBack { .. } => {
                    self.cost = Some((self.hurt, self.hurt_users.len() as u64));
                }
                _ => {}
            }
            self.release = self.release.after(&action, at);
            if !matches!(action, Action::RollBack { .. } | Action::Finish) {
                self.share = self.release.share;
            }
            if self.exposed.is_none() && self.share > Share::NONE {
                self.exposed = Some(now);
            }
            self.note_end(now, &assessment);
        }
    }

    fn note_end(&mut self, now: Duration, assessment: &Assessment) {
        let ended = match &self.release.phase {
            // The strategy asks for a person, who says yes at once.
            Phase::Paused { why: Why::Step, .. } => {
                self.release = self.release.after(&Action::Resume, instant(now));
                return;
            }
            Phase::Paused { .. } => Ended::Paused {
                because: which(assessment),
            },
            Phase::Promoted => Ended::Promoted,
            Phase::RollingBack { .. } => Ended::RolledBack {
                because: which(assessment),
            },
            _ => return,
        };
        self.ended = Some((ended, now));
    }

    fn arrive(&mut self, arrival: &Arrival) {
        let candidate = arrival.place < self.share.parts();
        let (side, facts) = if candidate {
            (Side::Candidate, arrival.candidate)
        } else {
            (Side::Stable, arrival.stable)
        };
        if candidate && self.is_hurt(arrival) {
            self.hurt += 1;
            self.hurt_users.insert(arrival.user);
        }
        let exposure = Exposure::Randomised(self.share);
        self.begin(arrival, side, exposure, facts, None);
        if !candidate && arrival.place < self.release.shadow.parts() {
            self.begin(
                arrival,
                Side::Candidate,
                Exposure::Shadow,
                arrival.candidate,
                Some(arrival.agrees),
            );
        }
    }

    fn begin(
        &mut self,
        arrival: &Arrival,
        side: Side,
        exposure: Exposure,
        facts: Facts,
        agrees: Option<bool>,
    ) {
        let at = arrival.at + facts.total;
        let outcome = Outcome {
            at: instant(at),
            side,
            exposure,
            unit: arrival.unit,
            key: arrival.key,
            facts,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.outcomes.push((outcome, agrees));
            self.outcomes.len() as u64 - 1
        });
        if let Some(place) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.outcomes.get_mut(slot))
        {
            *place = (outcome, agrees);
        }
        self.pending.push(Reverse((at, slot)));
    }

    /// Whether some objective's event happens on the candidate that would not have on stable.
    fn is_hurt(&self, arrival: &Arrival) -> bool {
        let bars = self.analyser.bars();
        self.strategy.objectives.iter().any(|it| match it {
            Objective::Event { event, .. } => {
                arrival.candidate.met(*event, &bars) == Some(true)
                    && arrival.stable.met(*event, &bars) != Some(true)
            }
            _ => false,
        })
    }

    fn result(self, now: Duration) -> Run {
        let now_cost = (self.hurt, self.hurt_users.len() as u64);
        let exposed = self.exposed.unwrap_or_default();
        let (ended, at) = self.ended.unwrap_or((Ended::Unfinished, now));
        let taken = |after: Option<Duration>, cost: Option<(u64, u64)>| {
            let (requests, users) = cost.unwrap_or(now_cost);
            Taken {
                after_s: after.map(|it| it.as_secs_f64()),
                requests,
                users,
            }
        };
        let ours = matches!(ended, Ended::RolledBack { .. }).then(|| at.saturating_sub(exposed));
        let [flagger, argo] = &self.rivals;
        Run {
            sluice: taken(ours, self.cost),
            flagger: taken(flagger.rolled_back, self.rivals_cost[0]),
            argo: taken(argo.rolled_back, self.rivals_cost[1]),
            ended,
            after_s: at.as_secs_f64(),
        }
    }
}

/// The objectives that decided, and how.
fn which(assessment: &Assessment) -> String {
    let names: Vec<&str> = assessment
        .objectives
        .iter()
        .filter(|it| it.verdict == assessment.verdict)
        .map(|it| it.objective.as_str())
        .collect();
    format!("{} ({})", names.join("; "), assessment.verdict)
}

fn instant(since: Duration) -> Timestamp {
    Timestamp::from_micros(0).after(since)
}
