//! Evidence for and against a candidate, gathered one request at a time.
//!
//! Flagger and Argo look once a minute at ratios. Here every finished request is looked at, and a bad
//! release is caught as soon as the numbers can show it; that this does not also catch good ones is the
//! business of always-valid tests ([`wealth`]), of betting on units rather than on requests ([`reveals`]), and of asking
//! for several hurt units ([`units`]). `docs/release-analysis.md` has formulas, sources and measured error rates.
//!
//! Cost: a request without events touches a few counters per objective; one with an event a dozen
//! multiplications. Memory is bounded by constants of the modules, at a few MB for each release.

mod bursts;
mod evidence;
mod history;
mod judge;
mod keys;
mod limit;
mod main;
mod noisiest;
mod outage;
mod outcome;
mod quantile;
mod reveals;
mod units;
mod wealth;
mod window;

use std::time::Duration;

pub use evidence::{
    Assessment, Basis, Evidence, Measure, QuantilePair, Ratio, Test, Verdict, Wanted,
};
pub use outcome::{Bars, Class, Exposure, Facts, Latency, Outcome, Share, Side, Unit};
pub use quantile::Quantile;

use self::judge::{Judge, Shared};
use self::quantile::Histogram;
use super::strategy::{Event, Objective, Rule, Strategy};
use crate::time::Timestamp;

/// Pairs of answers without which agreement is not judged.
const MIN_PAIRS: u64 = 50;
/// One in twenty of the intervals shown may be wrong, at any time of the release.
const QUANTILE_ALPHA: f64 = 0.05;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const LATENCIES: [&str; 3] = ["ttft", "token_time", "total"];

/// The analyser of one release.
#[derive(Debug, Clone)]
pub struct Analyser {
    strategy: Strategy,
    objectives: Vec<Watched>,
    shared: Shared,
    /// Latencies before this are not judged.
    settled: Timestamp,
    /// By side, then by latency. What is shown.
    samples: [[Histogram; 3]; 2],
    /// Stable's latencies, settling times included: what others are measured by.
    usual: [Histogram; 3],
    bars: Bars,
    /// When the bars are looked up anew.
    bars_until: Timestamp,
}

#[derive(Debug, Clone)]
enum Watched {
    Event(Box<Judge>),
    /// Disagreement is an event of the copied request, with a limit.
    Agreement(Box<Judge>),
    Evaluation {
        name: String,
        min_delta: f64,
        delta: Option<f64>,
    },
}

impl Analyser {
    #[must_use]
    pub fn new(strategy: &Strategy) -> Self {
        Self {
            strategy: strategy.clone(),
            objectives: watched(strategy),
            shared: Shared::default(),
            settled: Timestamp::from_micros(i64::MIN),
            samples: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new())),
            usual: std::array::from_fn(|_| Histogram::new()),
            bars: Bars::default(),
            bars_until: Timestamp::from_micros(i64::MIN),
        }
    }

    /// All traffic is the candidate's from now on. No later phase would judge what is not judged now, so that
    /// latencies are from the first request on.
    pub fn begin_promoting(&mut self, now: Timestamp) {
        self.begin_step(now);
        self.settled = now;
    }

    /// What is usual on stable, as known so far.
    #[must_use]
    pub const fn bars(&self) -> Bars {
        self.bars
    }

    /// The candidate's share has just changed, or an analysis begins.
    pub fn begin_step(&mut self, now: Timestamp) {
        self.settled = now.after(self.strategy.settle);
        for watched in &mut self.objectives {
            if let Watched::Event(judge) = watched {
                judge.begin_step();
            }
        }
    }

    /// A person has looked at a breach and goes on: what was held against the candidate is forgotten,
    /// scores of evaluations and the pasts of units are not.
    pub fn rearm(&mut self, now: Timestamp) {
        let deltas: Vec<(String, f64)> = self
            .objectives
            .iter()
            .filter_map(|it| match it {
                Watched::Evaluation { name, delta, .. } => Some((name.clone(), (*delta)?)),
                _ => None,
            })
            .collect();
        self.objectives = watched(&self.strategy);
        for (name, delta) in deltas {
            self.evaluated(&name, delta);
        }
        self.begin_step(now);
    }

    /// Takes in one finished request.
    pub fn observe(&mut self, outcome: &Outcome) {
        // What it is measured by is what was known before it.
        let settling = outcome.at < self.settled;
        if let Exposure::Randomised(_) = outcome.exposure {
            self.shared.keys.note(outcome.unit, outcome.key);
        }
        for (index, watched) in self.objectives.iter_mut().enumerate() {
            let Watched::Event(judge) = watched else {
                continue;
            };
            if settling && judge.event().is_latency() {
                continue;
            }
            if let Some(event) = outcome.facts.met(judge.event(), &self.bars) {
                judge.observe(outcome, event, index, &mut self.shared);
            }
        }
        self.measure(outcome);
        if !settling && matches!(outcome.facts.class, Class::Ok) {
            let Facts {
                ttft,
                token_time,
                total,
                ..
            } = outcome.facts;
            for (histogram, sample) in
                self.samples[outcome.side as usize]
                    .iter_mut()
                    .zip([ttft, token_time, Some(total)])
            {
                if let Some(sample) = sample {
                    histogram.add(sample);
                }
            }
        }
    }

    /// Adds to what is usual on stable. Looked up once a second, and often as long as little is known.
    fn measure(&mut self, outcome: &Outcome) {
        if outcome.side == Side::Stable && outcome.facts.class == Class::Ok {
            for (histogram, latency) in
                self.usual
                    .iter_mut()
                    .zip([Latency::First, Latency::Token, Latency::Total])
            {
                if let Some(sample) = outcome.facts.latency(latency) {
                    histogram.add(sample);
                }
            }
        }
        if outcome.at >= self.bars_until {
            let known = self.usual[Latency::Total as usize].samples();
            let pause = Duration::from_millis(if known < 100 { 0 } else { 1_000 });
            self.bars_until = outcome.at.after(pause);
            self.bars.p95 = std::array::from_fn(|index| self.usual[index].point(0.95));
            let typical = self.bars.p95[Latency::Total as usize].unwrap_or_default();
            self.shared.typical = i64::try_from(typical.as_micros()).unwrap_or(i64::MAX);
        }
    }

    /// Takes in one compared pair of answers to a copied request.
    pub fn compared(&mut self, at: Timestamp, unit: Unit, agrees: bool) {
        for watched in &mut self.objectives {
            if let Watched::Agreement(judge) = watched {
                judge.observe_pair(at, unit, !agrees);
            }
        }
    }

    /// The candidate's score in an evaluation, less the live version's.
    pub fn evaluated(&mut self, evaluation: &str, score: f64) {
        for watched in &mut self.objectives {
            if let Watched::Evaluation { name, delta, .. } = watched
                && name == evaluation
            {
                *delta = Some(score);
            }
        }
    }

    /// Whether some objective is broken: cheap enough to ask after every request.
    #[must_use]
    pub fn is_breached(&self) -> bool {
        self.objectives.iter().any(|it| match it {
            Watched::Event(judge) | Watched::Agreement(judge) => judge.is_breached(),
            Watched::Evaluation {
                min_delta, delta, ..
            } => delta.is_some_and(|delta| delta < *min_delta),
        })
    }

    /// The verdict, where passing takes `wanted` judged requests of the candidate in this step.
    #[must_use]
    pub fn assess(&self, wanted: impl Into<Wanted>, now: Timestamp) -> Assessment {
        let wanted = wanted.into();
        let objectives = self
            .objectives
            .iter()
            .map(|it| match it {
                Watched::Event(judge) => judge.evidence(wanted),
                Watched::Agreement(judge) => judge.agreement(wanted, MIN_PAIRS),
                Watched::Evaluation {
                    name,
                    min_delta,
                    delta,
                } => evaluation_evidence(name, *min_delta, *delta),
            })
            .collect();
        Assessment::new(now, objectives)
    }

    /// P50, P90 and P99 of the latencies, with bounds that all hold at all times with probability 95 % each pair.
    #[must_use]
    pub fn quantiles(&self) -> Vec<QuantilePair> {
        let mut pairs = Vec::new();
        for (index, latency) in LATENCIES.into_iter().enumerate() {
            let [stable, candidate] = &self.samples;
            if stable[index].samples() + candidate[index].samples() == 0 {
                continue;
            }
            pairs.extend(QUANTILES.map(|p| {
                let stable = stable[index].quantile(p, QUANTILE_ALPHA / 2.0);
                let candidate = candidate[index].quantile(p, QUANTILE_ALPHA / 2.0);
                let difference = stable.zip(candidate).and_then(|(stable, candidate)| {
                    let high = candidate.high.map(|high| high - stable.low);
                    Some((candidate.low - stable.high?, high))
                });
                QuantilePair {
                    latency: latency.into(),
                    p,
                    stable,
                    candidate,
                    difference,
                }
            }));
        }
        pairs
    }
}

fn watched(strategy: &Strategy) -> Vec<Watched> {
    let min_units = strategy.min_units;
    let judge = |event, rule, alpha: f64, label| {
        let pauses = (min_units, &strategy.pauses);
        Box::new(Judge::new(event, rule, alpha, pauses, label))
    };
    let parts = parts(&strategy.objectives);
    let watch = |(objective, part): (&Objective, f64)| match objective {
        Objective::Event { event, rule, alpha } => {
            Watched::Event(judge(*event, *rule, *alpha * part, objective.to_string()))
        }
        Objective::ShadowAgreement { min } => Watched::Agreement(judge(
            // Any event that is no error: what is counted is given to it.
            Event::Empty,
            Rule::MaxRatio(1.0 - min),
            super::strategy::DEFAULT_ALPHA * part,
            objective.to_string(),
        )),
        Objective::Evaluation { name, min_delta } => Watched::Evaluation {
            name: name.clone(),
            min_delta: *min_delta,
            delta: None,
        },
    };
    let objectives = strategy.objectives.iter();
    objectives.zip(parts).map(watch).collect()
}

/// Bonferroni: what part of its alpha each objective has. Errors that are compared have half of it, since they are
/// what has to be found within seconds; the others share the rest. Evaluations are decided elsewhere, with their own intervals.
fn parts(objectives: &[Objective]) -> Vec<f64> {
    let is_first = |it: &Objective| {
        matches!(
            it,
            Objective::Event {
                event: Event::Error,
                rule: Rule::CompareStable,
                ..
            }
        )
    };
    let is_tested = |it: &Objective| !matches!(it, Objective::Evaluation { .. });
    let count = |test: &dyn Fn(&Objective) -> bool| {
        u32::try_from(objectives.iter().filter(|it| test(it)).count()).map_or(1.0, f64::from)
    };
    let (first, tested) = (count(&is_first), count(&is_tested));
    let others = tested - first;
    let (some, rest) = if first > 0.0 && others > 0.0 {
        (0.75, 0.25)
    } else {
        (1.0, 1.0)
    };
    objectives
        .iter()
        .map(|it| match is_first(it) {
            true => some / first,
            false => rest / others.max(1.0),
        })
        .collect()
}

fn evaluation_evidence(name: &str, min_delta: f64, delta: Option<f64>) -> Evidence {
    let (verdict, because) = match delta {
        None => (Verdict::NoData, "not evaluated yet".to_owned()),
        Some(delta) if delta < min_delta => (
            Verdict::Breach,
            format!("{delta:+} against the live version is less than {min_delta:+}"),
        ),
        Some(delta) => (Verdict::Pass, format!("{delta:+} against the live version")),
    };
    let objective = Objective::Evaluation {
        name: name.into(),
        min_delta,
    };
    Evidence {
        objective: objective.to_string(),
        basis: Basis::Evaluation,
        asked: true,
        verdict,
        because,
        breached_at: None,
        measure: Measure::Evaluation { delta, min_delta },
    }
}

#[cfg(test)]
mod tests;
