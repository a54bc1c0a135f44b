//! Verdicts, and the numbers that they rest on: written into the history of a release, so that every decision can
//! be shown again with what was known when it was made.

use serde::{Deserialize, Serialize};

use super::quantile::Quantile;
use super::window::Count;
use crate::domain::words::words;
use crate::time::Timestamp;

words! {
    /// What the evidence says. The last two are never taken for either of the first.
    pub enum Verdict ("verdict of an analysis") {
        Pass = "pass",
        Breach = "breach",
        /// There is data, but not enough of it, or it is suspicious.
        Inconclusive = "inconclusive",
        NoData = "no_data",
    }
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    pub events: u64,
    pub of: u64,
}

/// What one always-valid test has gathered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// `randomised units`, `limit`, `stable's past`, `own history`, `retried on stable`.
    pub name: String,
    /// Its capital; 1 at the start.
    pub e_value: f64,
    /// Its part in the objective's e-value.
    pub part: f64,
    /// The coins it bet on. Of `randomised units`: events on the candidate, of all events.
    pub coins: Ratio,
}

/// What was measured for an objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Measure {
    Requests {
        /// Over the release so far, settling times left out.
        stable: Ratio,
        candidate: Ratio,
        /// The candidate's requests judged since the step began.
        judged_in_step: u64,
        /// Different units that met the event on the candidate, counted up to `min_units`.
        units: u64,
        /// The evidence, and where it becomes a breach.
        e_value: f64,
        limit: f64,
        tests: Vec<Test>,
    },
    Evaluation {
        /// The candidate's score minus the live version's; `None` until it was evaluated.
        delta: Option<f64>,
        min_delta: f64,
    },
}

/// What passing a step takes, and what may be seen of the candidate in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Judged requests of the candidate.
    pub requests: u64,
    /// Compared pairs, where that is more than agreement needs anyway.
    pub pairs: u64,
    /// Whether it answers requests in this step.
    pub answers: bool,
    /// Whether requests are copied to it.
    pub copies: bool,
}

impl From<u64> for Wanted {
    /// So many of its requests, wherever they can be had.
    fn from(requests: u64) -> Self {
        Self {
            requests,
            pairs: 0,
            answers: true,
            copies: true,
        }
    }
}

/// What an objective is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    #[default]
    Requests,
    /// Pairs of answers to copied requests.
    Copies,
    Evaluation,
}

const fn yes() -> bool {
    true
}

/// One objective's verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The objective, in words.
    pub objective: String,
    #[serde(default)]
    pub basis: Basis,
    /// Whether the step waits for it. What nothing in this step can tell is not waited for: agreement once there are no
    /// more copies, a comparison with stable while there are only copies.
    #[serde(default = "yes")]
    pub asked: bool,
    pub verdict: Verdict,
    /// Why, with the numbers that decide.
    pub because: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breached_at: Option<Timestamp>,
    pub measure: Measure,
}

/// All objectives at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    pub at: Timestamp,
    pub verdict: Verdict,
    pub objectives: Vec<Evidence>,
}

/// One latency's quantile on both revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantilePair {
    /// `ttft`, `token_time`, `total`.
    pub latency: String,
    /// 0.5, 0.9 or 0.99.
    pub p: f64,
    pub stable: Option<Quantile>,
    pub candidate: Option<Quantile>,
    /// Candidate minus stable in seconds, lowest and highest that both bounds allow.
    pub difference: Option<(f64, Option<f64>)>,
}

impl From<Count> for Ratio {
    fn from(count: Count) -> Self {
        Self {
            events: count.events,
            of: count.of,
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.events, self.of)
    }
}

impl Assessment {
    /// The verdict over all objectives: the worst, where not knowing is worse than passing and better than a breach.
    #[must_use]
    pub fn new(at: Timestamp, objectives: Vec<Evidence>) -> Self {
        let has = |verdict| {
            let mut counted = objectives
                .iter()
                .filter(|it| it.asked || verdict == Verdict::Breach);
            counted.any(|it| it.verdict == verdict)
        };
        let verdict = [Verdict::Breach, Verdict::Inconclusive, Verdict::NoData]
            .into_iter()
            .find(|verdict| has(*verdict))
            .unwrap_or(if objectives.iter().any(|it| it.asked) {
                Verdict::Pass
            } else {
                Verdict::NoData
            });
        Self {
            at,
            verdict,
            objectives,
        }
    }

    /// Why it is not a pass, in one line.
    #[must_use]
    pub fn because(&self) -> String {
        if !self.objectives.is_empty() && self.objectives.iter().all(|it| !it.asked) {
            return "no objective can be judged by copies alone".to_owned();
        }
        in_words(
            self.objectives.iter().filter(|it| {
                it.verdict == self.verdict && (it.asked || it.verdict == Verdict::Breach)
            }),
        )
    }

    /// The objectives that have not passed yet, and what each of them lacks, in one line. Empty where a step waits
    /// for none.
    #[must_use]
    pub fn lacking(&self) -> String {
        in_words(self.waited_for())
    }

    /// As [`Assessment::lacking`], of those that only copies can tell of.
    #[must_use]
    pub fn lacking_copies(&self) -> String {
        in_words(self.waited_for().filter(|it| it.basis == Basis::Copies))
    }

    fn waited_for(&self) -> impl Iterator<Item = &Evidence> {
        let passes = |it: &&Evidence| it.asked && it.verdict != Verdict::Pass;
        self.objectives.iter().filter(passes)
    }
}

fn in_words<'a>(evidence: impl Iterator<Item = &'a Evidence>) -> String {
    let each = evidence.map(|it| format!("{}: {}", it.objective, it.because));
    each.collect::<Vec<_>>().join("; ")
}

/// An e-value as a number that JSON can hold.
pub(super) fn e_value(ln: f64) -> f64 {
    ln.min(690.0).exp()
}
