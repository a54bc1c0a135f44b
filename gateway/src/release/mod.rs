//! What a release wants from the data plane beside the routing: what became of each of
//! its requests, answers of both revisions to compare, and a second chance on the stable
//! one. None of it is on the path of a deployment that is not under release.
//!
//! A [`Placement`] stays with a request, a [`ReleaseOutcome`] is what a sink is told of it;
//! `body` and `answer` keep and read what was answered, `shadow` asks the candidate again.

pub(crate) mod answer;
pub(crate) mod body;
mod outcome;
mod placement;
pub(crate) mod shadow;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use crate::config::ReleaseConfig;
use crate::metrics::observer::Record;
use crate::metrics::{Metrics, Objective};
pub use answer::refuses;
pub use outcome::{Class, ReleaseOutcome};
pub use placement::Placement;
use shadow::Live;
pub use shadow::{ShadowAnswer, ShadowPair};

/// Hears what became of requests under release. It must not wait: what it has no room
/// for it drops.
pub trait ReleaseSink: std::fmt::Debug + Send + Sync {
    /// One request is over. Called on the observer's thread, in the order in which
    /// requests ended.
    fn outcome(&self, outcome: ReleaseOutcome);

    /// The candidate has answered the copy of a request. Called on the shadow's own task;
    /// at most `release.shadow_concurrency` are at it at once.
    fn pair(&self, pair: ShadowPair);

    /// How the objectives of the releases under way stand, for a scrape of the metrics.
    fn objectives(&self) -> Vec<Objective> {
        Vec::new()
    }
}

/// The releases' side of the data plane: who listens, and the shadows under way.
#[derive(Debug)]
pub struct Watch {
    sink: OnceLock<Arc<dyn ReleaseSink>>,
    config: ReleaseConfig,
    metrics: Arc<Metrics>,
    /// One for each shadow that may run.
    permits: Semaphore,
    /// One for each that may run or wait.
    places: Arc<Semaphore>,
}

impl Watch {
    pub(crate) fn new(config: ReleaseConfig, metrics: Arc<Metrics>) -> Self {
        let bounded = |permits: usize| permits.min(Semaphore::MAX_PERMITS);
        let running = bounded(config.shadow_concurrency);
        let all = bounded(running.saturating_add(config.shadow_waiting));
        Self {
            sink: OnceLock::new(),
            config,
            metrics,
            permits: Semaphore::new(running),
            places: Arc::new(Semaphore::new(all)),
        }
    }

    /// Tells `sink` from now on. Once; a second sink is ignored.
    pub fn tell(&self, sink: Arc<dyn ReleaseSink>) {
        self.metrics.ask(Arc::clone(&sink));
        _ = self.sink.set(sink);
    }

    /// Whether anybody listens: if not, nothing is kept and nobody is asked twice.
    pub(crate) fn has_listener(&self) -> bool {
        self.sink.get().is_some()
    }

    pub(crate) fn config(&self) -> &ReleaseConfig {
        &self.config
    }

    /// A request is over. On the observer's thread.
    pub(crate) fn finished(self: &Arc<Self>, record: &Record) {
        let Some(placement) = record.context.outcome.placement() else {
            return;
        };
        let Some(sink) = self.sink.get() else {
            return;
        };
        let (kept, copy) = placement.take();
        let outcome = ReleaseOutcome::of(record, placement, kept.as_ref());
        if let (Class::Answered, Some(copy), Some(kept)) = (outcome.class, copy, kept) {
            self.begin_shadow(copy, Live::of(record, placement, kept), sink);
        }
        sink.outcome(outcome);
    }
}
