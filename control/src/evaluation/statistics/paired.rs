//! Whether two runs of the same rows differ by more than chance.

use rand_core::RngCore;
use serde::{Deserialize, Serialize};

use super::{Bootstrap, Interval, Method, Statistic};

/// Which test gave the p-values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Approximate randomisation (Noreen, 1989; Riezler & Maxwell, 2005).
    Permutation,
    /// Exact McNemar, for samples that are right or wrong.
    McNemar,
}

/// A candidate's statistic beside another's on the same samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Candidate minus live.
    pub difference: f64,
    /// Percentile interval of the difference: both are resampled with the same draws.
    pub interval: Option<Interval>,
    pub test: Test,
    /// The chance of a difference this large, either way, if the two were the same.
    pub two_sided: f64,
    /// The chance of a difference this low or lower, if the two were the same.
    pub lower: f64,
    /// The chance of a difference this high or higher, if the two were the same.
    pub higher: f64,
    pub samples: usize,
}

/// Both statistics over one resample.
struct Difference<'a, S> {
    candidate: &'a S,
    live: &'a S,
}

impl<S: Statistic> Statistic for Difference<'_, S> {
    type Sums = (S::Sums, S::Sums);

    fn len(&self) -> usize {
        self.candidate.len().min(self.live.len())
    }

    fn empty(&self) -> Self::Sums {
        (self.candidate.empty(), self.live.empty())
    }

    #[inline]
    fn add(&self, (candidate, live): &mut Self::Sums, sample: usize, weight: f64) {
        self.candidate.add(candidate, sample, weight);
        self.live.add(live, sample, weight);
    }

    fn value(&self, (candidate, live): &Self::Sums) -> f64 {
        self.candidate.value(candidate) - self.live.value(live)
    }
}

/// Tests by exchanging the two answers of each sample at random.
///
/// Both statistics must be of the same samples in the same order, and of the same
/// labels where they are [`Labelled`](super::Labelled). `None` when they differ in
/// length, hold fewer than two samples, or a value is not finite.
#[must_use]
pub fn permutation_test<S: Statistic>(
    bootstrap: &Bootstrap,
    candidate: &S,
    live: &S,
) -> Option<Paired> {
    let samples = candidate.len();
    if samples != live.len() || samples < 2 {
        return None;
    }
    let both = Difference { candidate, live };
    let difference = both.value(&both.total());
    if !difference.is_finite() {
        return None;
    }
    // Sums in another order differ in the last bits; those must not tell ties apart.
    let slack = 1e-12
        * difference
            .abs()
            .max(candidate.point().abs())
            .max(live.point().abs());
    let (mut as_low, mut as_high, mut as_far) = (1_u32, 1_u32, 1_u32);
    for_each_exchange(bootstrap, &both, |exchanged| {
        as_low += u32::from(exchanged <= difference + slack);
        as_high += u32::from(exchanged >= difference - slack);
        as_far += u32::from(exchanged.abs() >= difference.abs() - slack);
    });
    // The observed arrangement is one of those possible, hence the ones (Phipson & Smyth, 2010).
    let of = f64::from(bootstrap.resamples()) + 1.0;
    Some(Paired {
        difference,
        interval: bootstrap.interval(&both, Method::Percentile),
        test: Test::Permutation,
        two_sided: f64::from(as_far) / of,
        lower: f64::from(as_low) / of,
        higher: f64::from(as_high) / of,
        samples,
    })
}

fn for_each_exchange<S: Statistic>(
    bootstrap: &Bootstrap,
    both: &Difference<'_, S>,
    mut with: impl FnMut(f64),
) {
    let mut random = bootstrap.generator();
    let empty = both.empty();
    let mut sums = empty.clone();
    for _ in 0..bootstrap.resamples() {
        sums.clone_from(&empty);
        let mut bits = 0;
        for sample in 0..both.len() {
            if sample % 64 == 0 {
                bits = random.next_u64();
            }
            let (mut left, mut right) = (&mut sums.0, &mut sums.1);
            if bits & 1 == 1 {
                std::mem::swap(&mut left, &mut right);
            }
            bits >>= 1;
            both.candidate.add(left, sample, 1.0);
            both.live.add(right, sample, 1.0);
        }
        with(both.value(&sums));
    }
}
