//! A histogram of fixed buckets: one atomic a bucket, nothing to drain, the same
//! memory whether it is scraped or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bucket bounds, shared by all histograms of a kind.
#[derive(Debug)]
pub struct Buckets {
    /// Upper bounds (inclusive) in the unit recorded, ascending.
    bounds: Box<[u64]>,
    /// The same as Prometheus shows them, in the base unit.
    labels: Box<[String]>,
    /// Recorded units in one base unit: 10⁹ for nanoseconds shown as seconds.
    scale: f64,
}

impl Buckets {
    /// Bounds in seconds, for durations.
    #[must_use]
    pub fn seconds(bounds: &[f64]) -> Arc<Self> {
        Self::new(bounds, 1e9)
    }

    /// Bounds as plain numbers, for counts.
    #[must_use]
    pub fn counts(bounds: &[f64]) -> Arc<Self> {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: &[f64], scale: f64) -> Arc<Self> {
        Arc::new(Self {
            bounds: bounds
                .iter()
                .map(|bound| (bound * scale).round() as u64)
                .collect(),
            labels: bounds.iter().map(f64::to_string).collect(),
            scale,
        })
    }
}

/// Counts of what was recorded, by bucket.
#[derive(Debug)]
pub struct Histogram {
    buckets: Arc<Buckets>,
    /// One more than there are bounds: the last counts what exceeds them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(buckets: &Arc<Buckets>) -> Self {
        Self {
            counts: (0..=buckets.bounds.len())
                .map(|_| AtomicU64::new(0))
                .collect(),
            buckets: Arc::clone(buckets),
            sum: AtomicU64::new(0),
        }
    }

    /// Records a value in the unit of its buckets.
    pub fn record(&self, value: u64) {
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Records a duration; the buckets must be of [`Buckets::seconds`].
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Appends the `_bucket`, `_sum` and `_count` lines of Prometheus' text format.
    /// `labels` is a list without braces, such as `a="1",b="2"`.
    pub fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut cumulative = 0;
        let infinity = ["+Inf".to_owned()];
        for (count, bound) in self
            .counts
            .iter()
            .zip(self.buckets.labels.iter().chain(&infinity))
        {
            cumulative += count.load(Relaxed);
            let value = cumulative.to_string();
            for part in [
                name, "_bucket{", labels, ",le=\"", bound, "\"} ", &value, "\n",
            ] {
                out.push_str(part);
            }
        }
        let sum = self.sum.load(Relaxed) as f64 / self.buckets.scale;
        // One snapshot: the count is that of the last bucket, so the two never disagree.
        out.push_str(&format!(
            "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {cumulative}\n"
        ));
    }
}
