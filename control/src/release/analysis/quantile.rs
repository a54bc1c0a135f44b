//! Quantiles of latencies with bounds that hold at every moment at once.
//!
//! For a quantile `q` the number of samples at or below it is a sum of coins with probability `p`. Robbins'
//! Beta-binomial mixture against that coin is a martingale, so that all `x` whose count it does not refute at level `α`
//! are a confidence sequence for `q` (Howard & Ramdas, Bernoulli 2022, theorem 1(b) in essence). Counts are kept in
//! buckets 2 % wide; bounds are rounded outwards to the edges of buckets, which keeps them valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statrs::function::beta::ln_beta;

/// The least time told apart.
const FLOOR_US: f64 = 100.0;
/// The width of a bucket: its upper edge is so many times its lower.
const WIDTH: f64 = 1.02;
/// From 100 µs to a little over an hour.
const BUCKETS: usize = 880;

/// Samples of one latency of one revision. 7 kB, however many there are.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// A quantile and where it surely lies. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    pub low: f64,
    pub value: f64,
    /// `None`: there are too few samples to bound it from above.
    pub high: Option<f64>,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }

    pub(super) fn add(&mut self, sample: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "an hour is 2³² µs")]
        let place = (sample.as_micros() as f64 / FLOOR_US).max(1.0).ln() / WIDTH.ln();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and cut to the last bucket"
        )]
        let bucket = (place as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(super) const fn samples(&self) -> u64 {
        self.total
    }

    /// The `p` quantile; with probability `1 − alpha` its bounds hold at all times. `None` without samples.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² samples")]
    pub(super) fn quantile(&self, p: f64, alpha: f64) -> Option<Quantile> {
        if self.total == 0 {
            return None;
        }
        let total = self.total as f64;
        let wanted = (p * total).ceil().max(1.0);
        let limit = (1.0 / alpha).ln();
        let (mut below, mut low, mut value, mut high) = (0.0, 0.0, None, None);
        for (bucket, count) in self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let after = below + *count as f64;
            // Everything under this bucket's lower edge is refuted as the quantile while too few lie below it.
            if below < p * total && refuted(below, total, p, limit) {
                low = edge(bucket);
            }
            if value.is_none() && after >= wanted {
                value = Some(edge(bucket) * WIDTH.sqrt());
            }
            if high.is_none() && after > p * total && refuted(after, total, p, limit) {
                high = Some(edge(bucket + 1));
            }
            below = after;
        }
        value.map(|value| Quantile { low, value, high })
    }
}

impl Histogram {
    /// The `p` quantile of the samples, without bounds; `None` without samples.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far fewer than 2⁵² samples"
    )]
    pub(super) fn point(&self, p: f64) -> Option<Duration> {
        let wanted = (p * self.total as f64).ceil() as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= wanted && below > 0
        })?;
        Some(Duration::from_secs_f64(edge(bucket + 1)))
    }
}

/// The lower edge of a bucket, in seconds.
fn edge(bucket: usize) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than a thousand")]
    let exponent = bucket as f64;
    FLOOR_US * 1e-6 * WIDTH.powf(exponent)
}

/// Whether `below` heads of `total` refute that the coin has probability `p`, at any time.
fn refuted(below: f64, total: f64, p: f64, limit: f64) -> bool {
    // A prior around p with the weight of a hundred samples: narrow soon, and still narrowing after millions.
    let (a, b) = (100.0 * p, 100.0 * (1.0 - p));
    let mixture = ln_beta(a + below, b + total - below) - ln_beta(a, b);
    mixture - below * p.ln() - (total - below) * (1.0 - p).ln() >= limit
}

#[cfg(test)]
mod tests;
