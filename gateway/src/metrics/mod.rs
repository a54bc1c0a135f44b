//! What is measured, and under which names.
//!
//! Counters and histograms are plain atomics of our own instead of a recorder
//! behind a macro: a recorder keeps every sample until it is scraped or swept,
//! which costs memory without scrapes and more than the 200 ns that a request may
//! spend here. The names follow vLLM's where vLLM has one, so that its dashboards
//! and autoscalers work unchanged; ours begin with `sluice_`.

mod engine;
pub mod histogram;
pub mod observer;
mod render;
pub mod series;
mod stats;
#[cfg(test)]
mod tests;
mod triton;
pub mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::MetricsConfig;
use histogram::Buckets;
pub use render::CONTENT_TYPE;
use series::Bounds;
pub use series::{Completed, Series};

/// Why a request was turned away before any work was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The key's requests a minute are used up.
    Requests,
    /// The key's tokens a minute are used up.
    Tokens,
    /// Too many requests in flight.
    Concurrency,
    /// The model's queue is full.
    Queue,
    /// The deadline could not have been met.
    Deadline,
}

impl Shed {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Requests, "requests"),
        (Self::Tokens, "tokens"),
        (Self::Concurrency, "concurrency"),
        (Self::Queue, "queue"),
        (Self::Deadline, "deadline"),
    ];
}

/// Deployment and revision.
type Key = (Arc<str>, Arc<str>);

/// All series of one gateway. Local to it, so that tests run side by side.
#[derive(Debug)]
pub struct Metrics {
    bounds: Bounds,
    started: Instant,
    /// By deployment and revision. Locked on publishing and scraping only.
    series: Mutex<BTreeMap<Key, Arc<Series>>>,
    /// Requests that never reached a deployment (bad key, unknown model, health).
    unrouted: Arc<Series>,
    shed: [AtomicU64; Shed::ALL.len()],
    /// Access log lines dropped because the writer could not follow.
    pub(crate) dropped_records: AtomicU64,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new(config: &MetricsConfig) -> Self {
        let bounds = Bounds {
            seconds: Buckets::seconds(&config.buckets),
            tokens: Buckets::counts(&config.token_buckets),
        };
        Self {
            unrouted: Arc::new(Series::new("", "", &bounds)),
            bounds,
            started: Instant::now(),
            series: Mutex::default(),
            shed: Default::default(),
            dropped_records: AtomicU64::new(0),
        }
    }

    /// The handles of one deployment and revision; the same pair gives the same handles.
    #[must_use]
    pub fn series(&self, deployment: &str, revision: &str) -> Arc<Series> {
        let key = (Arc::from(deployment), Arc::from(revision));
        let mut all = self.series.lock();
        let series = all
            .entry(key)
            .or_insert_with(|| Arc::new(Series::new(deployment, revision, &self.bounds)));
        Arc::clone(series)
    }

    /// The handles for requests without a deployment.
    #[must_use]
    pub fn unrouted(&self) -> &Arc<Series> {
        &self.unrouted
    }

    /// Counts a request turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].fetch_add(1, Relaxed);
    }

    /// Forgets series of revisions that no route and no request uses any more, so
    /// that a gateway that lives through many releases does not grow.
    pub fn retire(&self, current: &crate::router::RouteTable) {
        let mut all = self.series.lock();
        all.retain(|(deployment, revision), series| {
            let routed = current
                .find(deployment)
                .is_some_and(|found| found.revision == *revision);
            routed || Arc::strong_count(series) > 1
        });
    }

    fn all_series(&self) -> Vec<Arc<Series>> {
        self.series.lock().values().cloned().collect()
    }
}
