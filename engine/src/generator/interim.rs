//! Greedy drawing until `crate::sampler` is there; the same names and signatures.

use crate::request::{SampledToken, SamplingParams};

#[derive(Debug, Default)]
pub(super) struct Sampler;

#[derive(Debug)]
pub(super) struct SequenceSampling;

impl SequenceSampling {
    pub(super) fn new(_: &SamplingParams, _: &[u32], _: &[u32]) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "the sampler's signature")]
    pub(super) fn observe(&mut self, _: u32) {}
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "the sampler's signature")]
    pub(super) fn sample(
        &mut self,
        logits: &mut [f32],
        _: &SamplingParams,
        _: &mut SequenceSampling,
        mask: Option<&[u32]>,
    ) -> Result<SampledToken, &'static str> {
        let allowed = |id: usize| {
            mask.is_none_or(|mask| {
                mask.get(id / 32)
                    .is_some_and(|word| word >> (id % 32) & 1 == 1)
            })
        };
        let best = (0..logits.len())
            .filter(|&id| allowed(id))
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
            .ok_or("no token may follow")?;
        Ok(logprobs_of(logits, best as u32, 0))
    }
}

pub(super) fn logprobs_of(logits: &[f32], token: u32, _: u8) -> SampledToken {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - max).exp()).sum();
    SampledToken {
        id: token,
        logprob: logits[token as usize] - max - sum.ln(),
        top: Vec::new(),
    }
}
