//! How much prefill fits into a step without hurting those who decode.
//!
//! A prefill chunk stalls every decoding sequence for its whole duration. What a
//! chunk costs differs by three orders of magnitude between models and devices,
//! so the pacer measures: a moving average of a pure decode step, and of prefill
//! per token. From these it cuts the chunk such that a step takes about the target
//! time; where decoding alone takes longer, such that prefill gets half of the time
//! (otherwise prompts would starve).

use std::time::Duration;

/// Prefill tokens a step at least; below this a chunk costs about as much as this.
pub(super) const MIN_CHUNK: usize = 16;

/// Chunk of the first prefill, before anything was measured.
const FIRST_CHUNK: usize = 128;

/// With nobody decoding, only newcomers and cancellations wait for a step's end,
/// so it may take this many times the target.
const IDLE_FACTOR: f64 = 4.0;

/// Weight of the newest observation.
const WEIGHT: f64 = 0.2;

/// See the module's text. Times in seconds.
#[derive(Debug)]
pub(super) struct Pacer {
    target: Option<f64>,
    decode_step: Option<f64>,
    /// Decayed sums: prefill's time and tokens. Their ratio is the cost of a token
    /// and, unlike an average of ratios, is not bent by very short prompts.
    prefill_time: f64,
    prefill_tokens: f64,
}

impl Pacer {
    pub(super) fn new(target: Option<Duration>) -> Self {
        Self {
            target: target.map(|target| target.as_secs_f64()),
            decode_step: None,
            prefill_time: 0.0,
            prefill_tokens: 0.0,
        }
    }

    /// Prefill tokens for a step in which `decodes` sequences decode, at most `limit`.
    pub(super) fn allowance(&self, decodes: usize, limit: usize) -> usize {
        let Some(target) = self.target else {
            return limit;
        };
        let Some(token) = self.token_cost() else {
            return limit.min(FIRST_CHUNK);
        };
        let time = if decodes == 0 {
            target * IDLE_FACTOR
        } else {
            let decode = self.decode_step.unwrap_or(0.0);
            (target - decode).max(decode)
        };
        // A cast from f64 saturates.
        ((time / token) as usize).max(MIN_CHUNK).min(limit)
    }

    pub(super) fn observe(&mut self, decodes: usize, prefill_tokens: usize, time: Duration) {
        let time = time.as_secs_f64();
        if prefill_tokens == 0 {
            let before = self.decode_step.unwrap_or(time);
            self.decode_step = Some(before + WEIGHT * (time - before));
            return;
        }
        let decode = if decodes == 0 {
            0.0
        } else {
            self.decode_step.unwrap_or(0.0)
        };
        // Decoding may have become cheaper since it was last alone in a step.
        let prefill = (time - decode).max(time * 0.1);
        self.prefill_time = self.prefill_time * (1.0 - WEIGHT) + prefill;
        self.prefill_tokens = self.prefill_tokens * (1.0 - WEIGHT) + prefill_tokens as f64;
    }

    /// Time that `tokens` of prefill take with the device to themselves.
    pub(super) fn prefill_time(&self, tokens: usize) -> Duration {
        let seconds = self.token_cost().unwrap_or(0.0) * tokens as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn token_cost(&self) -> Option<f64> {
        (self.prefill_tokens > 0.0)
            .then(|| (self.prefill_time / self.prefill_tokens).max(f64::MIN_POSITIVE))
    }
}
