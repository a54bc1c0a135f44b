//! A histogram that counts as it records, for the text format's fixed (classic) buckets and
//! for native ones alike. Atomics only, nothing to drain, the same memory whether it is
//! scraped or not.
//!
//! A value is counted once, in its exponential bucket. Only where a classic bound cuts such
//! a bucket is it also counted which of its values lie below, so that both kinds are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

use super::native::{self, Exponential, Schema};

/// Bucket bounds, shared by all histograms of a kind.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Upper bounds (inclusive) in ticks, ascending.
    bounds: Box<[u64]>,
    /// The same in the base unit.
    pub(super) uppers: Box<[f64]>,
    /// The same as the text format shows them.
    pub(super) labels: Box<[String]>,
    /// Ticks, the grain in which sums are kept and bounds compared, in one base unit.
    ticks: f64,
    pub(super) schema: Schema,
    /// Of each bound, the place of its exponential bucket.
    places: Box<[usize]>,
    /// By place, whether a bound lies in that bucket.
    cut: Box<[bool]>,
}

impl Buckets {
    /// Bounds in seconds, kept in nanoseconds.
    pub(super) fn seconds(bounds: &[f64], schema: u8) -> Arc<Self> {
        Self::new(bounds, 1e9, schema)
    }

    /// Bounds as whole numbers.
    pub(super) fn counts(bounds: &[f64], schema: u8) -> Arc<Self> {
        Self::new(bounds, 1.0, schema)
    }

    fn new(bounds: &[f64], ticks: f64, schema: u8) -> Arc<Self> {
        let schema = Schema::new(schema);
        let places: Box<[usize]> = bounds.iter().map(|bound| schema.place(*bound)).collect();
        let mut cut = vec![false; schema.places()].into_boxed_slice();
        for place in &places {
            cut[*place] = true;
        }
        Arc::new(Self {
            bounds: bounds.iter().map(|bound| round(bound * ticks)).collect(),
            uppers: bounds.into(),
            labels: bounds.iter().map(f64::to_string).collect(),
            ticks,
            schema,
            places,
            cut,
        })
    }

    /// The bound that a value in a cut bucket lies below, if it lies in the same bucket.
    fn bound_in(&self, place: usize, ticks: u64) -> Option<usize> {
        let bound = self.bounds.partition_point(|bound| *bound < ticks);
        (self.places.get(bound) == Some(&place)).then_some(bound)
    }
}

/// To the nearest; without a call into the maths library, which `f64::round` is.
fn round(value: f64) -> u64 {
    (value + 0.5) as u64
}

/// Counts of what was recorded.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) buckets: Arc<Buckets>,
    native: Exponential,
    /// By bound: of the values in its exponential bucket those up to it, less those up to
    /// the bound before.
    below: Box<[AtomicU64]>,
    /// In ticks.
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Values up to each bound.
    pub(super) cumulative: Vec<u64>,
    /// The exponential buckets, and how many values there are.
    pub(super) native: native::Snapshot,
    /// Of all values, in the base unit.
    pub(super) sum: f64,
}

impl Histogram {
    /// An empty one.
    pub(super) fn new(buckets: &Arc<Buckets>) -> Self {
        Self {
            native: Exponential::new(),
            below: buckets.bounds.iter().map(|_| AtomicU64::new(0)).collect(),
            buckets: Arc::clone(buckets),
            sum: AtomicU64::new(0),
        }
    }

    /// What it holds; nothing if nothing was recorded yet.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        // Before the buckets, so that no bucket seems to hold less than its part.
        let below: Vec<u64> = self
            .below
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .collect();
        let counts = self.native.counts(&self.buckets.schema);
        if counts.is_empty() {
            return None;
        }
        let (mut left, mut full, mut part) = (counts.iter().peekable(), 0, 0);
        let mut cut = None;
        let mut cumulative = Vec::with_capacity(below.len());
        for (place, below) in self.buckets.places.iter().zip(below) {
            while let Some((_, count)) = left.next_if(|(other, _)| other < place) {
                full += count;
            }
            if cut != Some(place) {
                (cut, part) = (Some(place), 0);
            }
            part += below;
            cumulative.push(full + part);
        }
        Some(Snapshot {
            cumulative,
            native: native::Snapshot::new(&self.buckets.schema, &counts),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.buckets.ticks,
        })
    }
}

impl Histogram {
    /// Counts a value whose exponential bucket is cut by a bound. Few are.
    #[inline(never)]
    fn add_below(&self, place: usize, ticks: u64) {
        if let Some(bound) = self.buckets.bound_in(place, ticks) {
            self.below[bound].fetch_add(1, Ordering::Release);
        }
    }
}

impl HistogramFn for Histogram {
    /// Records a value in the base unit. What is not a number is left out.
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let buckets = &*self.buckets;
        let ticks = round(value * buckets.ticks);
        let place = buckets.schema.place(value);
        self.native.add(&buckets.schema, place);
        self.sum.fetch_add(ticks, Ordering::Relaxed);
        if buckets.cut[place] {
            self.add_below(place, ticks);
        }
    }
}
