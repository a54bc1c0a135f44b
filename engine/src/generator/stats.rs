//! What a generator has done and is doing, as atomics: written by the device
//! thread (and by `submit`), read at scrape time. Nothing here locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::request::{FinishReason, Priority};

/// Upper bounds of the batch-size counts; the last count is for larger batches.
pub const BATCH_SIZE_BOUNDS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Counters and gauges of one generator.
#[derive(Debug, Default)]
pub struct GeneratorStats {
    pub(super) running: AtomicU64,
    pub(super) waiting: [AtomicU64; 3],
    pub(super) kv_tokens_used: AtomicU64,
    pub(super) kv_tokens_cached: AtomicU64,
    pub(super) kv_tokens_capacity: AtomicU64,
    pub(super) prefix_queries: AtomicU64,
    pub(super) prefix_hits: AtomicU64,
    pub(super) copied_tokens: AtomicU64,
    pub(super) preemptions: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) computed_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) steps: AtomicU64,
    pub(super) step_nanos: AtomicU64,
    pub(super) batch_sizes: [AtomicU64; BATCH_SIZE_BOUNDS.len() + 1],
    pub(super) finished: [AtomicU64; 4],
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Moving average of the time from a sequence's first step to its end.
    pub(super) residence_nanos: AtomicU64,
    /// The same of a generated token: a sequence's time by its tokens, its prompt's included.
    pub(super) token_nanos: AtomicU64,
}

/// [`GeneratorStats`] at one moment. `running`, `waiting` and
/// `kv_*` are gauges, all else counters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GeneratorSnapshot {
    /// Sequences that hold a slot.
    pub running: u64,
    /// Sequences admitted to the queue and not yet started, all priorities.
    pub waiting: u64,
    /// Tokens of K/V held for running sequences.
    pub kv_tokens_used: u64,
    /// Tokens of K/V kept for reuse only; free at any time.
    pub kv_tokens_cached: u64,
    /// Slots × tokens a slot.
    pub kv_tokens_capacity: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Of these, tokens found.
    pub prefix_hits: u64,
    /// Tokens of K/V copied between slots.
    pub copied_tokens: u64,
    /// Running sequences of low priority put back into the queue.
    pub preemptions: u64,
    /// Prompt tokens of started sequences.
    pub prompt_tokens: u64,
    /// Tokens run through the model (prompt tokens not cached, and generated ones).
    pub computed_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Steps run.
    pub steps: u64,
    /// Their time from the first run to the last token drawn, summed: how long the device
    /// thread was busy.
    pub step_time: Duration,
    /// Steps by number of sequences in them: at most [`BATCH_SIZE_BOUNDS`]`[i]`
    /// and more than the bound before; not cumulative.
    pub batch_sizes: [u64; BATCH_SIZE_BOUNDS.len() + 1],
    /// Sequences that ended with [`FinishReason::Stop`].
    pub finished_stop: u64,
    /// … with [`FinishReason::Length`].
    pub finished_length: u64,
    /// … with [`FinishReason::Cancelled`].
    pub finished_cancelled: u64,
    /// … with [`FinishReason::Deadline`].
    pub finished_deadline: u64,
    /// Sequences lost to a device failure or to a broken grammar.
    pub failed: u64,
    /// Submissions refused (queue full, deadline, too long, invalid, unavailable).
    pub refused: u64,
}

impl GeneratorStats {
    /// All values at about this moment.
    #[must_use]
    pub fn snapshot(&self) -> GeneratorSnapshot {
        let finished = |reason: FinishReason| self.finished[slot_of(reason)].load(Relaxed);
        GeneratorSnapshot {
            running: self.running.load(Relaxed),
            waiting: self.waiting.iter().map(|n| n.load(Relaxed)).sum(),
            kv_tokens_used: self.kv_tokens_used.load(Relaxed),
            kv_tokens_cached: self.kv_tokens_cached.load(Relaxed),
            kv_tokens_capacity: self.kv_tokens_capacity.load(Relaxed),
            prefix_queries: self.prefix_queries.load(Relaxed),
            prefix_hits: self.prefix_hits.load(Relaxed),
            copied_tokens: self.copied_tokens.load(Relaxed),
            preemptions: self.preemptions.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            computed_tokens: self.computed_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            steps: self.steps.load(Relaxed),
            step_time: Duration::from_nanos(self.step_nanos.load(Relaxed)),
            batch_sizes: std::array::from_fn(|i| self.batch_sizes[i].load(Relaxed)),
            finished_stop: finished(FinishReason::Stop),
            finished_length: finished(FinishReason::Length),
            finished_cancelled: finished(FinishReason::Cancelled),
            finished_deadline: finished(FinishReason::Deadline),
            failed: self.failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// Sequences that hold a slot.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// Sequences waiting for a slot, all priorities.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.iter().map(|n| n.load(Relaxed)).sum()
    }

    /// Running and waiting sequences: the load that a router compares.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.running() + self.waiting()
    }

    /// Time until a request of `priority` submitted now gets its first step:
    /// those before it that find no free slot, each taking the average residence
    /// divided by the slots.
    #[must_use]
    pub fn expected_wait(&self, priority: Priority, slots: u32) -> Duration {
        let before: u64 = self.waiting[priority as usize..]
            .iter()
            .map(|n| n.load(Relaxed))
            .sum();
        let free = u64::from(slots).saturating_sub(self.running.load(Relaxed));
        self.turnover(slots)
            .saturating_mul(u32::try_from((before + 1).saturating_sub(free)).unwrap_or(u32::MAX))
    }

    /// Time from the first step of a sequence of at most so many tokens to its last: that of
    /// recent sequences, or of so many of their tokens, where that is less.
    #[must_use]
    pub fn expected_service(&self, max_tokens: usize) -> Duration {
        let tokens = u64::try_from(max_tokens).unwrap_or(u64::MAX).max(1);
        let by_tokens = self.token_nanos.load(Relaxed).saturating_mul(tokens);
        Duration::from_nanos(by_tokens.min(self.residence_nanos.load(Relaxed)))
    }

    /// Time between two sequences' ends when all slots are busy.
    #[must_use]
    pub fn turnover(&self, slots: u32) -> Duration {
        Duration::from_nanos(self.residence_nanos.load(Relaxed)) / slots.max(1)
    }

    pub(super) fn count_step(&self, rows: usize, computed: usize, time: Duration) {
        let bucket = BATCH_SIZE_BOUNDS.partition_point(|&bound| bound < rows as u64);
        self.batch_sizes[bucket].fetch_add(1, Relaxed);
        self.steps.fetch_add(1, Relaxed);
        self.computed_tokens.fetch_add(computed as u64, Relaxed);
        self.step_nanos.fetch_add(nanos(time), Relaxed);
    }

    pub(super) fn count_start(&self, prompt: usize, cached: usize) {
        self.prompt_tokens.fetch_add(prompt as u64, Relaxed);
        self.prefix_queries.fetch_add(prompt as u64, Relaxed);
        self.prefix_hits.fetch_add(cached as u64, Relaxed);
    }

    /// `residence`: time since the sequence's first step, if it had one; `tokens` that it has
    /// generated in it.
    pub(super) fn count_finished(
        &self,
        reason: FinishReason,
        residence: Option<Duration>,
        tokens: usize,
    ) {
        self.finished[slot_of(reason)].fetch_add(1, Relaxed);
        let Some(residence) = residence else {
            return;
        };
        let whole = match reason {
            FinishReason::Stop | FinishReason::Length => true,
            // Cut off, it would have taken longer than that: under deadlines that nobody meets the
            // average would tend to the deadline, and everything look feasible.
            FinishReason::Cancelled | FinishReason::Deadline => false,
        };
        average(&self.residence_nanos, nanos(residence), whole);
        let a_token = nanos(residence) / u64::try_from(tokens).unwrap_or(u64::MAX).max(1);
        average(&self.token_nanos, a_token, whole || tokens > 0);
    }
}

/// Exponential moving average with weight 1/8 for the newest; a sample that is only a lower bound
/// can raise it. Only the device thread writes it.
fn average(of: &AtomicU64, now: u64, exact: bool) {
    let before = of.load(Relaxed);
    let next = match before {
        0 => now,
        _ if !exact && now < before => before,
        _ => before - before / 8 + now / 8,
    };
    of.store(next.max(1), Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn slot_of(reason: FinishReason) -> usize {
    match reason {
        FinishReason::Stop => 0,
        FinishReason::Length => 1,
        FinishReason::Cancelled => 2,
        FinishReason::Deadline => 3,
    }
}
