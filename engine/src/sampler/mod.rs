//! Which token comes out of a row of logits.
//!
//! The order of operations, as [`SamplingParams`] documents it:
//! 1. evidence (log-probabilities) is taken from the untouched row;
//! 2. repetition, frequency and presence penalties, then `logit_bias`;
//! 3. end-of-sequence tokens go while `min_tokens` are not out;
//! 4. the grammar's mask;
//! 5. temperature 0: the likeliest token. Otherwise softmax at the temperature,
//!    `top_k` → `top_p` → `min_p`, and one draw.
//!
//! Everything is defined to the last tie, so that another implementation (CUDA)
//! can be held against the same vectors (`engine/tests/vectors/sampling.json`):
//! tokens are ranked by logit, equal logits by lower id, and a draw `u` in
//! [0, 1) takes the first survivor *in id order* at which the cumulated weight
//! exceeds `u` times the survivors' weight. NaN counts as −∞, +∞ as `f32::MAX`,
//! −0 as 0. Weights are rounded so that their sums are exact in any order
//! ([`softmax::weight`]): implementations agree to the last draw.
//!
//! The vocabulary is never sorted: a full pass computes maxima and weights in
//! vector registers, and only candidates are selected among (see [`select`]).

mod logprobs;
mod select;
mod softmax;
mod state;

pub use logprobs::{MAX_TOP, logprobs_of};
pub use state::SequenceSampling;

use crate::backend::Outputs;
use crate::request::{SampledToken, SamplingParams};
use logprobs::Evidence;
use select::Candidate;
use softmax::Weights;

/// Temperatures below this are greedy, as in vLLM: dividing by them overflows.
pub const GREEDY_BELOW: f32 = 1e-5;

/// No token could be drawn from a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Every logit is masked, −∞ or NaN.
    #[error("no token may follow: every logit is masked or not a number")]
    NothingAllowed,
}

/// A token to draw from a row of logits, on the CPU or on a device.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Row of the logits.
    pub row: u32,
    /// How to draw.
    pub params: &'a SamplingParams,
    /// What the sequence remembers.
    pub state: &'a SequenceSampling,
    /// Tokens that the grammar allows, as [`Sampler::sample`] takes it.
    pub mask: Option<&'a [u32]>,
    /// The sequence's next random number ([`SequenceSampling::draw_number`]), in [0, 1).
    pub uniform: f64,
}

/// Draws tokens; one per device thread, because it owns scratch buffers.
#[derive(Debug, Default)]
pub struct Sampler {
    weights: Weights,
    candidates: Vec<Candidate>,
    /// Logits before they were changed, `(id, logit)`, in the order of the changes.
    changed: Vec<(u32, f32)>,
    /// End-of-sequence logits taken out for `min_tokens`.
    suppressed: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler; buffers grow to the vocabulary with the first row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws the next token of a sequence from its row of logits (`[vocab]`,
    /// overwritten). `mask` is the grammar's: bit `id % 32` of word `id / 32`
    /// allows token `id`; ids beyond its end are not allowed.
    ///
    /// The caller tells `state` which token was taken
    /// ([`SequenceSampling::observe`]).
    ///
    /// # Errors
    /// [`SampleError::NothingAllowed`]; the sequence cannot go on.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        params: &SamplingParams,
        state: &mut SequenceSampling,
        mask: Option<&[u32]>,
    ) -> Result<SampledToken, SampleError> {
        let uniform = state.draw_number(params);
        self.sample_at(logits, params, state, mask, uniform)
    }

    /// The same with the draw given: a pure function of its arguments.
    /// `uniform` is in [0, 1) and unused when greedy.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_at(
        &mut self,
        logits: &mut [f32],
        params: &SamplingParams,
        state: &SequenceSampling,
        mask: Option<&[u32]>,
        uniform: f64,
    ) -> Result<SampledToken, SampleError> {
        let evidence = params.logprobs.map(|top| Evidence::of(logits, top));
        self.changed.clear();
        self.penalise(logits, params, state);
        self.bias(logits, params);
        self.suppress(logits, params, state);
        if let Some(mask) = mask {
            apply_mask(logits, mask);
        }
        let (best, max) = self.best(logits, mask)?;
        let id = if is_greedy(params) {
            best
        } else {
            self.draw(logits, params, max, uniform)
        };
        Ok(self.report(id, logits, evidence))
    }

    /// Draws from rows of a step's logits, which it overwrites.
    pub fn draw_all(
        &mut self,
        outputs: &mut Outputs,
        draws: &[Draw<'_>],
        tokens: &mut Vec<Result<SampledToken, SampleError>>,
    ) {
        tokens.clear();
        tokens.extend(draws.iter().map(|draw| {
            let logits = outputs.row_mut(draw.row as usize);
            self.sample_at(logits, draw.params, draw.state, draw.mask, draw.uniform)
        }));
    }

    /// Repetition divides positive and multiplies negative logits; frequency and
    /// presence subtract. Only tokens of the history are touched.
    fn penalise(&mut self, logits: &mut [f32], params: &SamplingParams, state: &SequenceSampling) {
        for (id, occurrences) in state.history() {
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            self.changed.push((id, *logit));
            *logit = if *logit > 0.0 {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
            if occurrences > 0 {
                *logit -= params.frequency_penalty * occurrences as f32 + params.presence_penalty;
            }
        }
    }

    fn bias(&mut self, logits: &mut [f32], params: &SamplingParams) {
        for &(id, bias) in params.logit_bias.iter() {
            if let Some(logit) = logits.get_mut(id as usize) {
                self.changed.push((id, *logit));
                *logit += bias;
            }
        }
    }

    fn suppress(&mut self, logits: &mut [f32], params: &SamplingParams, state: &SequenceSampling) {
        self.suppressed.clear();
        for &id in state.suppressed(params) {
            if let Some(logit) = logits.get_mut(id as usize) {
                self.changed.push((id, *logit));
                self.suppressed.push((id, *logit));
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The likeliest token. When `min_tokens` took out all that the grammar
    /// allows, the grammar wins: it has ended, and the count cannot be reached.
    fn best(&self, logits: &mut [f32], mask: Option<&[u32]>) -> Result<(u32, f32), SampleError> {
        if let Some(best) = select::argmax(logits) {
            return Ok(best);
        }
        // In reverse, so that the first change of a token listed twice prevails.
        for &(id, logit) in self.suppressed.iter().rev() {
            if mask.is_none_or(|mask| allows(mask, id)) {
                logits[id as usize] = logit;
            }
        }
        select::argmax(logits).ok_or(SampleError::NothingAllowed)
    }

    fn draw(&mut self, logits: &[f32], params: &SamplingParams, max: f32, uniform: f64) -> u32 {
        let inverse = 1.0 / params.temperature;
        let nucleus = params.top_p < 1.0;
        let mass = |total: f64| f64::from(params.top_p) * total;
        // The likeliest token has weight 1.
        let least = params.min_p.min(1.0);
        match params.top_k as usize {
            k if k > 0 && k < logits.len() => {
                select::top_k(logits, k, &mut self.candidates);
                softmax::weigh(&mut self.candidates, max, inverse);
                if nucleus {
                    let total = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
                    select::nucleus(&mut self.candidates, mass(total));
                }
                self.candidates.retain(|c| c.weight >= least);
                self.candidates.sort_unstable_by_key(|c| c.id);
                select::draw(&self.candidates, uniform)
            }
            _ => {
                let total = self.weights.fill(logits, max, inverse);
                if nucleus {
                    self.weights
                        .keep_nucleus(logits, mass(total), &mut self.candidates);
                }
                if least > 0.0 {
                    self.weights.drop_below(least);
                }
                self.weights.draw(uniform)
            }
        }
    }

    fn report(&self, id: u32, logits: &[f32], evidence: Option<Evidence>) -> SampledToken {
        let Some(evidence) = evidence else {
            return SampledToken {
                id,
                logprob: f32::NAN,
                top: Vec::new(),
            };
        };
        let changed = self.changed.iter().find(|(changed, _)| *changed == id);
        let raw = changed.map_or(logits[id as usize], |(_, raw)| *raw);
        evidence.report(id, raw)
    }
}

/// Whether the likeliest token is taken without a draw.
pub(crate) fn is_greedy(params: &SamplingParams) -> bool {
    // A NaN temperature is greedy too.
    params.temperature.is_nan() || params.temperature < GREEDY_BELOW
}

fn allows(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32)
        .is_some_and(|word| word >> (id % 32) & 1 == 1)
}

fn apply_mask(logits: &mut [f32], mask: &[u32]) {
    for (index, logits) in logits.chunks_mut(32).enumerate() {
        match mask.get(index).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::vectors::vectors;
