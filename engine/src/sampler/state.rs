//! What sampling remembers of one sequence.

use indexmap::IndexMap;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::is_greedy;
use crate::request::SamplingParams;

/// Random numbers and token counts of one sequence. They depend on nothing but
/// the sequence, so the same seed draws the same tokens in any batch.
#[derive(Debug, Clone)]
pub struct SequenceSampling {
    rng: ChaCha8Rng,
    /// Occurrences among the generated tokens; 0 for a token of the prompt only.
    /// Empty unless a penalty is on.
    history: IndexMap<u32, u32>,
    counts: bool,
    generated: usize,
    /// Tokens that must not come before `min_tokens` are out.
    suppressed: Vec<u32>,
}

impl SequenceSampling {
    /// The state of a sequence that starts after `prompt`. `eos` are the model's
    /// end-of-sequence ids.
    #[must_use]
    pub fn new(params: &SamplingParams, prompt: &[u32], eos: &[u32]) -> Self {
        let repetition = params.repetition_penalty != 1.0;
        let mut suppressed = Vec::new();
        if params.min_tokens > 0 {
            suppressed.extend_from_slice(&params.stop_token_ids);
            if !params.ignore_eos {
                suppressed.extend_from_slice(eos);
            }
        }
        Self {
            rng: match params.seed {
                Some(seed) => ChaCha8Rng::seed_from_u64(seed),
                None => ChaCha8Rng::seed_from_u64(rand::random()),
            },
            history: if repetition {
                prompt.iter().map(|&id| (id, 0)).collect()
            } else {
                IndexMap::new()
            },
            counts: repetition || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0,
            generated: 0,
            suppressed,
        }
    }

    /// Notes a generated token.
    pub fn observe(&mut self, token: u32) {
        self.generated += 1;
        if self.counts {
            *self.history.entry(token).or_insert(0) += 1;
        }
    }

    /// Tokens noted so far.
    #[must_use]
    pub fn generated(&self) -> usize {
        self.generated
    }

    pub(crate) fn history(&self) -> impl Iterator<Item = (u32, u32)> {
        self.history
            .iter()
            .map(|(&id, &occurrences)| (id, occurrences))
    }

    pub(crate) fn suppressed(&self, params: &SamplingParams) -> &[u32] {
        if self.generated < params.min_tokens {
            &self.suppressed
        } else {
            &[]
        }
    }

    /// The number that the next token is drawn with: the sequence's next one in
    /// [0, 1), or 0, taking none, when greedy.
    pub fn draw_number(&mut self, params: &SamplingParams) -> f64 {
        if is_greedy(params) {
            0.0
        } else {
            self.uniform()
        }
    }

    /// Uniform in [0, 1): the upper 53 bits of the generator's word.
    fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.rng.next_u64() >> 11) as f64 * STEP
    }
}
