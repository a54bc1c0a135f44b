//! Evidence for and against a candidate, gathered one request at a time.
//!
//! Flagger and Argo look once a minute at ratios. Here every finished request is looked at, and a bad
//! release is caught as soon as the numbers can show it; that this does not also catch good ones is the
//! business of always-valid tests ([`wealth`]), of betting on units rather than on requests ([`reveals`]), and of asking
//! for several hurt units ([`units`]). `docs/release-analysis.md` has formulas, sources and measured error rates.
//!
//! Cost: a request without events touches a few counters per objective; one with an event a dozen
//! multiplications. Memory is bounded by constants of the modules, at a few MB for each release.

mod evidence;
mod history;
mod judge;
mod limit;
mod noisiest;
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
pub use outcome::{Class, Exposure, Facts, Outcome, Share, Side, Unit};
pub use quantile::Quantile;

use self::history::History;
use self::judge::Judge;
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
    history: History,
    /// Latencies before this are not judged.
    settled: Timestamp,
    /// By side, then by latency.
    samples: [[Histogram; 3]; 2],
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
            history: History::default(),
            settled: Timestamp::from_micros(i64::MIN),
            samples: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new())),
        }
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
        let settling = outcome.at < self.settled;
        for (index, watched) in self.objectives.iter_mut().enumerate() {
            let Watched::Event(judge) = watched else {
                continue;
            };
            if settling && judge.event().is_latency() {
                continue;
            }
            if let Some(event) = outcome.facts.met(judge.event()) {
                judge.observe(outcome, event, index, &mut self.history);
            }
        }
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

    /// Takes in one compared pair of answers to a copied request.
    pub fn compared(&mut self, at: Timestamp, unit: Unit, agrees: bool) {
        let outcome = Outcome {
            at,
            side: Side::Candidate,
            exposure: Exposure::Shadow,
            unit,
            facts: Facts::ok(Duration::ZERO),
        };
        for (index, watched) in self.objectives.iter_mut().enumerate() {
            if let Watched::Agreement(judge) = watched {
                judge.observe(&outcome, !agrees, index, &mut self.history);
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
    // Bonferroni: evaluations are decided elsewhere, with their own intervals.
    let tested = strategy
        .objectives
        .iter()
        .filter(|it| !matches!(it, Objective::Evaluation { .. }))
        .count();
    #[expect(clippy::cast_precision_loss, reason = "at most sixteen")]
    let tested = tested.max(1) as f64;
    let judge = |event, rule, alpha: f64, label| {
        Box::new(Judge::new(event, rule, alpha / tested, min_units, label))
    };
    let watch = |objective: &Objective| match objective {
        Objective::Event { event, rule, alpha } => {
            Watched::Event(judge(*event, *rule, *alpha, objective.to_string()))
        }
        Objective::ShadowAgreement { min } => Watched::Agreement(judge(
            // Any event that is no error: what is counted is given to it.
            Event::Empty,
            Rule::MaxRatio(1.0 - min),
            super::strategy::DEFAULT_ALPHA,
            objective.to_string(),
        )),
        Objective::Evaluation { name, min_delta } => Watched::Evaluation {
            name: name.clone(),
            min_delta: *min_delta,
            delta: None,
        },
    };
    strategy.objectives.iter().map(watch).collect()
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
