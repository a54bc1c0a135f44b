//! A histogram that counts as it records: fixed (classic) buckets for the text format
//! and exponential ones for scrapers that take native histograms. Atomics only, nothing
//! to drain, the same memory whether it is scraped or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// Ticks, the grain in which sums are kept, in one base unit.
    ticks: f64,
    pub(super) schema: Schema,
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
        Arc::new(Self {
            bounds: bounds
                .iter()
                .map(|bound| (bound * ticks).round() as u64)
                .collect(),
            uppers: bounds.into(),
            labels: bounds.iter().map(f64::to_string).collect(),
            ticks,
            schema: Schema::new(schema),
        })
    }
}

/// Counts of what was recorded, by bucket.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) buckets: Arc<Buckets>,
    /// One more than there are bounds: the last counts what exceeds them all.
    classic: Box<[AtomicU64]>,
    native: Exponential,
    /// In ticks.
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    pub(super) fn new(buckets: &Arc<Buckets>) -> Self {
        Self {
            classic: (0..=buckets.bounds.len())
                .map(|_| AtomicU64::new(0))
                .collect(),
            native: Exponential::new(),
            buckets: Arc::clone(buckets),
            sum: AtomicU64::new(0),
        }
    }

    /// Whether nothing was recorded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.classic.iter().all(|count| count.load(Relaxed) == 0)
    }

    /// Values up to each bound, and last of all values.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.classic.iter().scan(0, |sum, count| {
            *sum += count.load(Relaxed);
            Some(*sum)
        })
    }

    /// The exponential buckets.
    pub(super) fn native(&self) -> native::Snapshot {
        self.native.snapshot(&self.buckets.schema)
    }

    /// Of all values, in the base unit.
    pub(super) fn sum(&self) -> f64 {
        self.sum.load(Relaxed) as f64 / self.buckets.ticks
    }
}

impl HistogramFn for Histogram {
    /// Records a value in the base unit. What is not a number is left out.
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let ticks = (value * self.buckets.ticks).round() as u64;
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < ticks);
        self.classic[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(ticks, Relaxed);
        self.native.record(&self.buckets.schema, value);
    }
}
