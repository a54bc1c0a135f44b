//! Bootstrap confidence intervals.
//!
//! Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993:
//! percentile interval chapter 13, BCa chapter 14.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::Statistic;

/// How the ends of an interval are read from the resampled values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Bias-corrected and accelerated: second-order accurate for smooth statistics.
    #[default]
    Bca,
    /// The quantiles of the resampled values; for quantiles, where the jackknife
    /// that BCa needs is inconsistent.
    Percentile,
}

/// Two ends around a value, both included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// For example 0.95.
    pub confidence: f64,
}

/// How intervals and tests are resampled: the same settings and samples give the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Bootstrap {
    resamples: u32,
    confidence: f64,
    seed: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    resamples: u32,
    confidence: f64,
    seed: u64,
}

impl Default for Fields {
    fn default() -> Self {
        Bootstrap::default().into()
    }
}

/// Settings that cannot give an interval.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidBootstrap {
    #[error("resamples: {0} is not between 100 and 1000000")]
    Resamples(u32),
    #[error("confidence: {0} is not between 0.5 and 0.9999")]
    Confidence(f64),
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 10_000,
            confidence: 0.95,
            seed: 0,
        }
    }
}

impl TryFrom<Fields> for Bootstrap {
    type Error = InvalidBootstrap;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        Self::new(fields.resamples, fields.confidence, fields.seed)
    }
}

impl From<Bootstrap> for Fields {
    fn from(bootstrap: Bootstrap) -> Self {
        let Bootstrap {
            resamples,
            confidence,
            seed,
        } = bootstrap;
        Self {
            resamples,
            confidence,
            seed,
        }
    }
}

impl Bootstrap {
    /// # Errors
    /// When `resamples` is outside 100…1,000,000 or `confidence` outside 0.5…0.9999.
    pub fn new(resamples: u32, confidence: f64, seed: u64) -> Result<Self, InvalidBootstrap> {
        if !(100..=1_000_000).contains(&resamples) {
            return Err(InvalidBootstrap::Resamples(resamples));
        }
        if !(0.5..=0.9999).contains(&confidence) {
            return Err(InvalidBootstrap::Confidence(confidence));
        }
        Ok(Self {
            resamples,
            confidence,
            seed,
        })
    }

    /// The interval of `statistic`; `None` for fewer than two samples or where the
    /// statistic is not finite.
    #[must_use]
    pub fn interval<S: Statistic>(&self, statistic: &S, method: Method) -> Option<Interval> {
        let point = statistic.point();
        if statistic.len() < 2 || !point.is_finite() {
            return None;
        }
        let mut values = self.resampled(statistic);
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        match method {
            Method::Percentile => Some(self.percentile_interval(&values)),
            Method::Bca => bca_interval(point, &values, &jackknife(statistic), self.confidence),
        }
    }

    /// The statistic of each resample: as many draws with replacement as there are samples.
    #[must_use]
    pub fn resampled<S: Statistic>(&self, statistic: &S) -> Vec<f64> {
        let mut random = self.generator();
        let empty = statistic.empty();
        let mut sums = empty.clone();
        (0..self.resamples)
            .map(|_| {
                sums.clone_from(&empty);
                draw(&mut random, statistic.len(), |sample| {
                    statistic.add(&mut sums, sample, 1.0);
                });
                statistic.value(&sums)
            })
            .collect()
    }

    fn percentile_interval(&self, sorted: &[f64]) -> Interval {
        let tail = (1.0 - self.confidence) / 2.0;
        Interval {
            low: quantile(sorted, tail),
            high: quantile(sorted, 1.0 - tail),
            confidence: self.confidence,
        }
    }

    pub(super) fn generator(&self) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.seed)
    }

    pub(super) fn resamples(&self) -> u32 {
        self.resamples
    }
}

/// Calls `take` with `samples` indices below `samples`, two from each 64 random bits.
///
/// Multiply and shift (Lemire, 2019) without its rejection step: an index is at most
/// `samples` / 2³² more likely than another, far below what resampling can resolve.
fn draw(random: &mut impl RngCore, samples: usize, mut take: impl FnMut(usize)) {
    let index = |bits: u64| (((bits & 0xffff_ffff) * samples as u64) >> 32) as usize;
    for _ in 0..samples / 2 {
        let bits = random.next_u64();
        take(index(bits));
        take(index(bits >> 32));
    }
    if samples % 2 == 1 {
        take(index(random.next_u64()));
    }
}

/// The statistic without each sample in turn.
fn jackknife<S: Statistic>(statistic: &S) -> Vec<f64> {
    let total = statistic.total();
    let mut sums = total.clone();
    (0..statistic.len())
        .map(|sample| {
            sums.clone_from(&total);
            statistic.add(&mut sums, sample, -1.0);
            statistic.value(&sums)
        })
        .collect()
}

/// The BCa interval from the point, the sorted resampled values and the jackknife values
/// (Efron & Tibshirani, equations 14.9 to 14.15; ties count half, as in `scipy.stats.bootstrap`).
///
/// `None` where the jackknife is not finite. Where the point lies outside all resampled
/// values, the share below it is taken as half a resample, so that the ends stay finite.
#[must_use]
pub fn bca_interval(
    point: f64,
    sorted: &[f64],
    jackknife: &[f64],
    confidence: f64,
) -> Option<Interval> {
    let resamples = sorted.len() as f64;
    let below = sorted.partition_point(|value| *value < point) as f64;
    let up_to = sorted.partition_point(|value| *value <= point) as f64;
    let share = (below + up_to) / 2.0 / resamples;
    let share = share.clamp(0.5 / resamples, 1.0 - 0.5 / resamples);
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let powers = |power| {
        jackknife
            .iter()
            .map(|value| (mean - value).powi(power))
            .sum::<f64>()
    };
    let (squares, cubes) = (powers(2), powers(3));
    if !squares.is_finite() {
        return None;
    }
    let acceleration = if squares > 0.0 {
        cubes / (6.0 * squares.powf(1.5))
    } else {
        0.0
    };
    let normal = Normal::standard();
    let bias = normal.inverse_cdf(share);
    let end = |tail: f64| {
        let shifted = bias + normal.inverse_cdf(tail);
        let corrected = normal.cdf(bias + shifted / (1.0 - acceleration * shifted));
        quantile(sorted, corrected)
    };
    let tail = (1.0 - confidence) / 2.0;
    let (low, high) = (end(tail), end(1.0 - tail));
    (low.is_finite() && high.is_finite()).then_some(Interval {
        low,
        high,
        confidence,
    })
}

/// The `q`-quantile (0 to 1) of sorted values, linear between them (type 7 of Hyndman &
/// Fan, 1996; numpy's default). NaN for no values.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let rank = last as f64 * q.clamp(0.0, 1.0);
    let low = rank.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
}
