//! Sliding counts, in constant memory and constant time.

use std::time::Duration;

use crate::time::Timestamp;

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub events: u64,
    pub of: u64,
}

impl Count {
    pub(super) fn add(&mut self, event: bool) {
        self.events += u64::from(event);
        self.of += 1;
    }

    pub(super) fn add_all(&mut self, other: Self) {
        self.events += other.events;
        self.of += other.of;
    }

    /// Zero of zero is zero.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² requests")]
    pub(super) fn ratio(self) -> f64 {
        self.events as f64 / self.of.max(1) as f64
    }
}

/// Counts over the last so many buckets of time, the current one included.
#[derive(Debug, Clone)]
pub(super) struct Window {
    bucket: i64,
    ring: Vec<Count>,
    /// The number of the newest bucket.
    newest: i64,
    sum: Count,
}

impl Window {
    pub(super) fn new(bucket: Duration, buckets: usize) -> Self {
        Self {
            bucket: i64::try_from(bucket.as_micros()).unwrap_or(i64::MAX).max(1),
            ring: vec![Count::default(); buckets.max(1)],
            newest: i64::MIN / 2,
            sum: Count::default(),
        }
    }

    /// What happened at `at`; what is older than the window is dropped, what comes late is counted as of now.
    pub(super) fn add(&mut self, at: Timestamp, event: bool) {
        self.advance(at);
        let slot = self.slot(self.newest);
        self.ring[slot].add(event);
        self.sum.add(event);
    }

    /// Several at once.
    pub(super) fn add_all(&mut self, at: Timestamp, count: Count) {
        self.advance(at);
        let slot = self.slot(self.newest);
        self.ring[slot].add_all(count);
        self.sum.add_all(count);
    }

    /// In how many buckets of the window something happened, as of the last look.
    pub(super) fn buckets_with_events(&self) -> usize {
        self.ring.iter().filter(|it| it.events > 0).count()
    }

    pub(super) fn count(&mut self, now: Timestamp) -> Count {
        self.advance(now);
        self.sum
    }

    fn advance(&mut self, now: Timestamp) {
        let target = now.as_micros().div_euclid(self.bucket);
        let length = i64::try_from(self.ring.len()).unwrap_or(i64::MAX);
        if target - self.newest >= length {
            self.ring.fill(Count::default());
            self.sum = Count::default();
            self.newest = target;
        }
        while self.newest < target {
            self.newest += 1;
            let slot = self.slot(self.newest);
            let old = std::mem::take(&mut self.ring[slot]);
            self.sum.events -= old.events;
            self.sum.of -= old.of;
        }
    }

    fn slot(&self, bucket: i64) -> usize {
        let length = i64::try_from(self.ring.len()).unwrap_or(i64::MAX);
        usize::try_from(bucket.rem_euclid(length)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
