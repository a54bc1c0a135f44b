//! Statistics as functions of sums that add up over samples.

use crate::evaluation::metrics::bleu::{BleuCounts, ChrfCounts};
use crate::evaluation::metrics::classification::{self, Average};
use crate::evaluation::metrics::likelihood::LikelihoodSums;
use crate::evaluation::statistics::quantile;

/// A number computed from samples by way of sums.
///
/// `value(Σ add(sample))` over all samples is the statistic itself; over a
/// resample, with repetition or with weights, it is a bootstrap replicate.
pub trait Statistic {
    type Sums: Clone;

    /// Number of samples.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sums of no samples.
    fn empty(&self) -> Self::Sums;

    /// Adds `sample` (below [`len`](Self::len)) `weight` times; −1 takes it out again.
    fn add(&self, sums: &mut Self::Sums, sample: usize, weight: f64);

    /// The statistic of what was added; not finite when that is undefined.
    fn value(&self, sums: &Self::Sums) -> f64;

    /// The sums of all samples.
    fn total(&self) -> Self::Sums {
        let mut sums = self.empty();
        for sample in 0..self.len() {
            self.add(&mut sums, sample, 1.0);
        }
        sums
    }

    /// The statistic of all samples.
    fn point(&self) -> f64 {
        self.value(&self.total())
    }
}

/// The arithmetic mean of one number a sample.
#[derive(Debug, Clone)]
pub struct Mean(pub Vec<f64>);

impl Statistic for Mean {
    type Sums = (f64, f64);

    fn len(&self) -> usize {
        self.0.len()
    }

    fn empty(&self) -> Self::Sums {
        (0.0, 0.0)
    }

    #[inline]
    fn add(&self, (sum, samples): &mut Self::Sums, sample: usize, weight: f64) {
        *sum += weight * self.0[sample];
        *samples += weight;
    }

    fn value(&self, (sum, samples): &Self::Sums) -> f64 {
        sum / samples
    }
}

/// Counts that add up.
pub trait Counts: Copy + Default {
    fn add(&mut self, other: &Self, weight: f64);
}

macro_rules! counts {
    ($($kind:ty),*) => {$(
        impl Counts for $kind {
            #[inline]
            fn add(&mut self, other: &Self, weight: f64) {
                <$kind>::add(self, other, weight);
            }
        }
    )*};
}
counts!(BleuCounts, ChrfCounts, LikelihoodSums);

/// A corpus score: a function of the summed counts of the samples.
#[derive(Debug, Clone)]
pub struct Corpus<C> {
    pub counts: Vec<C>,
    pub value: fn(&C) -> f64,
}

impl<C: Counts> Statistic for Corpus<C> {
    type Sums = C;

    fn len(&self) -> usize {
        self.counts.len()
    }

    fn empty(&self) -> C {
        C::default()
    }

    #[inline]
    fn add(&self, sums: &mut C, sample: usize, weight: f64) {
        sums.add(&self.counts[sample], weight);
    }

    fn value(&self, sums: &C) -> f64 {
        (self.value)(sums)
    }
}

/// A classification score: a function of the confusion matrix.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// Each sample's cell of the matrix.
    cells: Vec<usize>,
    labels: usize,
    average: Option<Average>,
}

impl Labelled {
    /// `average: None` is the accuracy. Pairs are (actual, predicted); a pair with a label
    /// that `labels` (sorted) lacks is left out.
    #[must_use]
    pub fn new(pairs: &[(String, String)], labels: &[String], average: Option<Average>) -> Self {
        Self {
            cells: pairs
                .iter()
                .filter_map(|(actual, predicted)| classification::cell(labels, actual, predicted))
                .collect(),
            labels: labels.len(),
            average,
        }
    }
}

impl Statistic for Labelled {
    type Sums = Vec<f64>;

    fn len(&self) -> usize {
        self.cells.len()
    }

    fn empty(&self) -> Self::Sums {
        vec![0.0; self.labels * self.labels]
    }

    #[inline]
    fn add(&self, sums: &mut Self::Sums, sample: usize, weight: f64) {
        sums[self.cells[sample]] += weight;
    }

    fn value(&self, sums: &Self::Sums) -> f64 {
        match self.average {
            None => classification::accuracy(sums, self.labels),
            Some(average) => classification::f1(sums, self.labels, average),
        }
    }
}

/// An exact quantile of one number a sample.
#[derive(Debug, Clone)]
pub struct Quantile {
    sorted: Vec<f64>,
    /// Each sample's place in `sorted`.
    places: Vec<usize>,
    /// 0 to 1.
    q: f64,
}

impl Quantile {
    /// The `q`-quantile (0 to 1) of `values`.
    #[must_use]
    pub fn new(values: &[f64], q: f64) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut places = vec![0; values.len()];
        for (place, sample) in order.iter().enumerate() {
            places[*sample] = place;
        }
        Self {
            sorted: order.iter().map(|sample| values[*sample]).collect(),
            places,
            q,
        }
    }

    /// The value at `rank` (from 0) of the samples repeated by `weights`.
    fn at(&self, weights: &[f64], rank: f64) -> f64 {
        let mut seen = 0.0;
        for (value, weight) in self.sorted.iter().zip(weights) {
            seen += weight;
            if seen > rank {
                return *value;
            }
        }
        f64::NAN
    }
}

impl Statistic for Quantile {
    /// How often each place of `sorted` occurs.
    type Sums = Vec<f64>;

    fn len(&self) -> usize {
        self.sorted.len()
    }

    fn empty(&self) -> Self::Sums {
        vec![0.0; self.sorted.len()]
    }

    #[inline]
    fn add(&self, sums: &mut Self::Sums, sample: usize, weight: f64) {
        sums[self.places[sample]] += weight;
    }

    fn value(&self, sums: &Self::Sums) -> f64 {
        let rank = (sums.iter().sum::<f64>() - 1.0) * self.q;
        if rank.is_nan() || rank < 0.0 {
            return f64::NAN;
        }
        let (low, high) = (self.at(sums, rank.floor()), self.at(sums, rank.ceil()));
        low + (high - low) * (rank - rank.floor())
    }

    fn point(&self) -> f64 {
        quantile(&self.sorted, self.q)
    }
}
