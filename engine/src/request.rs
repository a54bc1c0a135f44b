//! The engine's vocabulary: what is asked of it and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::grammar::Grammar;
use crate::restriction::Restriction;

/// How the next token is drawn. The order of operations is that of vLLM:
/// penalties and bias on the raw logits, grammar mask, temperature, then
/// `top_k` → `top_p` → `min_p`, then one draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it. Range 0..=2.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 is off.
    pub top_p: f32,
    /// Candidates kept; 0 is off.
    pub top_k: u32,
    /// Candidates below `min_p × p(max)` are dropped; 0 is off. Range 0..=1.
    pub min_p: f32,
    /// Subtracted once from every token already generated. Range −2..=2.
    pub presence_penalty: f32,
    /// Subtracted per occurrence among the generated tokens. Range −2..=2.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt
    /// or output (Keskar et al. 2019); 1 is off.
    pub repetition_penalty: f32,
    /// Added to the logits, as `(token id, bias)`; range −100..=100.
    pub logit_bias: Arc<[(u32, f32)]>,
    /// The same seed, prompt and batch mode give the same tokens.
    pub seed: Option<u64>,
    /// `Some(n)`: report the chosen token's log-probability and the `n` likeliest.
    pub logprobs: Option<u8>,
    /// The same for every prompt token (needed for `echo`).
    pub prompt_logprobs: Option<u8>,
    /// Tokens to generate at most. 0 is allowed (scoring a prompt).
    pub max_tokens: usize,
    /// End-of-sequence tokens are suppressed until this many tokens are out.
    pub min_tokens: usize,
    /// Further token ids that end the sequence, beside the model's own.
    pub stop_token_ids: Arc<[u32]>,
    /// Go on past end-of-sequence (benchmarks).
    pub ignore_eos: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Arc::from([]),
            seed: None,
            logprobs: None,
            prompt_logprobs: None,
            max_tokens: 256,
            min_tokens: 0,
            stop_token_ids: Arc::from([]),
            ignore_eos: false,
        }
    }
}

/// Which requests run first when not all fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Batch work: runs when nothing else waits (`service_tier: "flex"`).
    Low,
    /// The default.
    #[default]
    Normal,
    /// Interactive work that must not wait (`service_tier: "priority"`).
    High,
}

/// Which sequences may reuse each other's K/V: those of one salt. How long a prompt takes and how
/// much of it was cached tells whether somebody sent its beginning before, so what must not know
/// of each other gets salts that differ. The default is that of all who have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CacheSalt(u128);

impl CacheSalt {
    /// The salt of these texts in this order. Nobody can choose texts that give another's salt.
    #[must_use]
    pub fn of(texts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for text in texts {
            // With its length before it, so that "a", "bc" and "ab", "c" differ.
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text.as_bytes());
        }
        let mut salt = [0; size_of::<u128>()];
        for (to, from) in salt.iter_mut().zip(digest.finalize()) {
            *to = from;
        }
        Self(u128::from_le_bytes(salt))
    }

    /// Its value, for hashing.
    pub(crate) fn value(self) -> u128 {
        self.0
    }
}

/// One sequence to generate.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Prompt token ids, at least one.
    pub prompt: Arc<[u32]>,
    /// How to sample.
    pub params: SamplingParams,
    /// The output must match this grammar.
    pub grammar: Option<Grammar>,
    /// Tokens and words that the request rules out.
    pub restriction: Option<Arc<Restriction>>,
    /// Class in the waiting queue.
    pub priority: Priority,
    /// Requests of different tenants share the device fairly (round by round,
    /// by tokens). Usually the API key's id.
    pub tenant: Arc<str>,
    /// Whose K/V it may reuse, and who may reuse its own.
    pub salt: CacheSalt,
    /// Past this instant the answer is worthless: it is not started, or stopped.
    pub deadline: Option<Instant>,
    /// The answer is worth something only once it is whole: its last token, not its first,
    /// has to come before the deadline.
    pub whole: bool,
}

/// One token with the evidence asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// Token id.
    pub id: u32,
    /// Natural log-probability under the unmodified model distribution
    /// (before temperature, penalties and masks). NaN when not asked for.
    pub logprob: f32,
    /// The likeliest alternatives `(id, logprob)`, best first, as many as asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// End-of-sequence, a stop token, a stop string, or the grammar's end.
    Stop,
    /// `max_tokens` or the context is exhausted.
    Length,
    /// The client is gone.
    Cancelled,
    /// The deadline passed while running.
    Deadline,
}

/// Where the time went. All measured on the device thread's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From submission to the first step that holds the sequence.
    pub queue: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// Token counts as billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: usize,
    /// Of these, tokens whose K/V were reused from an earlier sequence.
    pub cached: usize,
    /// Generated tokens.
    pub completion: usize,
}

/// What was computed so far for one request, whoever still waits for it. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    prompt: AtomicUsize,
    cached: AtomicUsize,
    completion: AtomicUsize,
}

impl Meter {
    /// Tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt: self.0.prompt.load(Relaxed),
            cached: self.0.cached.load(Relaxed),
            completion: self.0.completion.load(Relaxed),
        }
    }

    /// So many tokens of the prompt need no computation.
    pub(crate) fn found_cached(&self, tokens: usize) {
        self.0.cached.store(tokens, Relaxed);
    }

    /// The prompt is computed so far, from its beginning.
    pub(crate) fn computed_up_to(&self, tokens: usize) {
        self.0.prompt.fetch_max(tokens, Relaxed);
    }

    /// One more token was generated.
    pub(crate) fn generated(&self) {
        self.0.completion.fetch_add(1, Relaxed);
    }

    /// The run of an input has begun.
    pub(crate) fn add_input(&self, tokens: usize) {
        self.0.prompt.fetch_add(tokens, Relaxed);
    }

    /// The run has failed.
    pub(crate) fn take_back_input(&self, tokens: usize) {
        self.0.prompt.fetch_sub(tokens, Relaxed);
    }
}

/// The last event of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// What it used.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// What the device thread publishes for one sequence, in order:
/// at most one `Prompt`, any number of `Token`, then exactly one
/// `Finished`, `Failed`, `NotBegun` or `Refused`.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// Log-probabilities of the prompt tokens; the first has none.
    Prompt(Vec<Option<SampledToken>>),
    /// One generated token.
    Token(SampledToken),
    /// The end.
    Finished(Finished),
    /// The sequence was lost to a device failure.
    Failed(String),
    /// The executor ended before the sequence had its first step. Nothing of it was
    /// computed, so it cannot be what ended the executor: another one may take it.
    NotBegun(String),
    /// What the request itself asks for cannot be gone on with: its grammar takes more than the
    /// matcher's limits allow. The model is well.
    Refused(String),
}
