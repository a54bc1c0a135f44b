//! McNemar's exact test, for samples that are right or wrong.
//!
//! Source: McNemar, 1947; the exact form conditions on the discordant samples,
//! of which each side wins half if the two are the same (a binomial test).

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// The discordant samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct McNemar {
    /// Right by the candidate, wrong by the other.
    pub gained: u64,
    /// Wrong by the candidate, right by the other.
    pub lost: u64,
}

impl McNemar {
    /// Counts pairs of 0/1 scores; `None` when a score is neither.
    #[must_use]
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let mut counts = Self::default();
        for (candidate, live) in pairs {
            match (binary(candidate)?, binary(live)?) {
                (true, false) => counts.gained += 1,
                (false, true) => counts.lost += 1,
                _ => {}
            }
        }
        Some(counts)
    }

    /// The chance of a split this uneven, either way, if the two were the same.
    #[must_use]
    pub fn two_sided(&self) -> f64 {
        (2.0 * self.tail(self.gained.min(self.lost))).min(1.0)
    }

    /// The chance of the candidate gaining this few or fewer, if the two were the same.
    #[must_use]
    pub fn lower(&self) -> f64 {
        self.tail(self.gained)
    }

    /// The chance of the candidate gaining this many or more, if the two were the same.
    #[must_use]
    pub fn higher(&self) -> f64 {
        self.tail(self.lost)
    }

    /// P(X ≤ wins) for X of the binomial distribution with chance one half.
    fn tail(&self, wins: u64) -> f64 {
        match Binomial::new(0.5, self.gained + self.lost) {
            Ok(binomial) if wins < self.gained + self.lost => binomial.cdf(wins),
            _ => 1.0,
        }
    }
}

fn binary(score: f64) -> Option<bool> {
    match score {
        0.0 => Some(false),
        1.0 => Some(true),
        _ => None,
    }
}
