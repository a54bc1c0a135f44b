//! How one model's device thread is run.

use std::time::Duration;

use crate::backend::FAILED_RUNS;

/// Options of a [`super::GeneratorHandle`]. Everything here is bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorOptions {
    /// The model's end-of-sequence tokens.
    pub eos: Vec<u32>,
    /// New tokens a step at most, decode and prefill together. Raised to the
    /// number of slots if smaller, so that every running sequence can decode.
    pub step_budget: usize,
    /// New tokens of one sequence a step at most.
    pub prefill_chunk: usize,
    /// While sequences decode, a step's share of prefill is cut down so that a
    /// step takes about this long (but at least half of the time goes to prefill,
    /// whatever a decode step costs). It bounds the inter-token latency under long
    /// prompts. `None`: always the whole budget, for runs that must not depend on
    /// time.
    pub inter_token_target: Option<Duration>,
    /// Requests that wait at most; more are refused with
    /// [`crate::SubmitError::QueueFull`].
    pub max_waiting: usize,
    /// A class that has waited this long is served at least once in
    /// [`crate::scheduler::AGED_SHARE`] admissions, whatever its priority.
    pub ageing: Duration,
    /// Reuse K/V of sequences with the same prefix.
    pub prefix_reuse: bool,
    /// A waiting sequence of higher priority may put a running one of
    /// [`crate::request::Priority::Low`] back into the queue.
    pub preemption: bool,
    /// Steps that fail in a row after which the backend counts as lost: what fails
    /// each time (memory that does not suffice) is not cured by going on. 0: never.
    pub failed_steps: u32,
    /// Bytes of logits a step at most. Bounds the chunks of prompts whose
    /// log-probabilities are wanted (`tokens × vocabulary × 4`).
    pub logits_bytes: usize,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self {
            eos: Vec::new(),
            step_budget: 512,
            prefill_chunk: 512,
            inter_token_target: Some(Duration::from_millis(50)),
            max_waiting: 256,
            ageing: Duration::from_secs(5),
            prefix_reuse: true,
            preemption: true,
            failed_steps: FAILED_RUNS,
            logits_bytes: 64 << 20,
        }
    }
}
