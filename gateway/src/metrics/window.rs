//! Quantiles of the last minutes: a ring of DDSketches (Masson, Rim, Lee 2019),
//! mergeable and within 1 % of the true value at any quantile.

use std::collections::VecDeque;
use std::time::Duration;

use sketches_ddsketch::{Config, DDSketch};

/// One slot of the ring.
pub const SLOT: Duration = Duration::from_secs(10);
/// Slots kept: five minutes and the current one.
const SLOTS: usize = 31;
/// Relative error of a quantile.
const ERROR: f64 = 0.01;
/// Bins of one sketch at most; at 1 % they span 10 µs to 10 min twice over.
const BINS: u32 = 2048;
/// Values below count as zero, seconds.
const SMALLEST: f64 = 1e-6;

/// One finished request, as the window sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// From the head to the end.
    pub total: Duration,
    /// To the first token, for generations.
    pub ttft: Option<Duration>,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// The server's fault.
    pub failed: bool,
}

/// Requests of the last five minutes.
#[derive(Debug, Default)]
pub struct Window {
    slots: VecDeque<Slot>,
}

struct Slot {
    /// Whole slots since the start.
    index: u64,
    total: DDSketch,
    ttft: DDSketch,
    prompt_tokens: u64,
    completion_tokens: u64,
    failed: u64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// What a span of the window says; rates are per second.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Requests finished.
    pub requests_per_second: f64,
    /// Of them, failed by the server's fault.
    pub errors_per_second: f64,
    /// Response time; absent without requests.
    pub latency_ms: Option<Quantiles>,
    /// Time to first token; absent without generations.
    pub ttft_ms: Option<Quantiles>,
    /// Prompt tokens.
    pub prompt_tokens_per_second: f64,
    /// Generated tokens.
    pub completion_tokens_per_second: f64,
}

impl Window {
    /// Adds a request that finished at `now` (since the start).
    pub fn add(&mut self, now: Duration, sample: &Sample) {
        let index = slot_of(now);
        if self.slots.back().is_none_or(|slot| slot.index < index) {
            self.slots.push_back(Slot::new(index));
            while self.slots.len() > SLOTS {
                self.slots.pop_front();
            }
        }
        let Some(slot) = self.slots.back_mut() else {
            return;
        };
        slot.total.add(sample.total.as_secs_f64());
        if let Some(ttft) = sample.ttft {
            slot.ttft.add(ttft.as_secs_f64());
        }
        slot.prompt_tokens += sample.prompt_tokens;
        slot.completion_tokens += sample.completion_tokens;
        slot.failed += u64::from(sample.failed);
    }

    /// What the last `span` says; the slot under way counts with the part that has passed.
    #[must_use]
    pub fn summary(&self, now: Duration, span: Duration) -> Summary {
        let current = slot_of(now);
        let spans = span.as_secs() / SLOT.as_secs();
        let oldest = current.saturating_sub(spans);
        let mut sum = Slot::new(current);
        for slot in self.slots.iter().filter(|slot| slot.index >= oldest) {
            sum.merge(slot);
        }
        let began = Duration::from_secs(oldest * SLOT.as_secs());
        // Shortly after the start a rate is over the time that there was, one second at least.
        let seconds = now.saturating_sub(began).as_secs_f64().max(1.0);
        Summary {
            requests_per_second: sum.total.count() as f64 / seconds,
            errors_per_second: sum.failed as f64 / seconds,
            latency_ms: quantiles(&sum.total),
            ttft_ms: quantiles(&sum.ttft),
            prompt_tokens_per_second: sum.prompt_tokens as f64 / seconds,
            completion_tokens_per_second: sum.completion_tokens as f64 / seconds,
        }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("index", &self.index)
            .field("requests", &self.total.count())
            .finish_non_exhaustive()
    }
}

impl Slot {
    fn new(index: u64) -> Self {
        let sketch = || DDSketch::new(Config::new(ERROR, BINS, SMALLEST));
        Self {
            index,
            total: sketch(),
            ttft: sketch(),
            prompt_tokens: 0,
            completion_tokens: 0,
            failed: 0,
        }
    }

    fn merge(&mut self, other: &Self) {
        // Merging fails only between sketches of different configurations; all ours are equal.
        _ = self.total.merge(&other.total);
        _ = self.ttft.merge(&other.ttft);
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.failed += other.failed;
    }
}

fn slot_of(now: Duration) -> u64 {
    now.as_secs() / SLOT.as_secs()
}

fn quantiles(sketch: &DDSketch) -> Option<Quantiles> {
    let at = |q| {
        sketch
            .quantile(q)
            .ok()
            .flatten()
            .map(|seconds| seconds * 1e3)
    };
    Some(Quantiles {
        p50: at(0.5)?,
        p90: at(0.9)?,
        p99: at(0.99)?,
    })
}
