//! The vectors that every implementation of the sampler must agree with: the CUDA
//! kernel's tests take them from here.

use serde::Deserialize;

use crate::request::SamplingParams;
use crate::sampler::{Sampler, SequenceSampling};

const VECTORS: &str = include_str!("../../../tests/vectors/sampling.json");

#[derive(Deserialize)]
pub(crate) struct Vector {
    name: String,
    vocab: usize,
    /// Parameter of the row's formula: see `row`.
    row: u32,
    temperature: f32,
    top_p: f32,
    top_k: u32,
    min_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repetition_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    min_tokens: usize,
    pub(crate) eos: Vec<u32>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) output: Vec<u32>,
    pub(crate) mask: Option<Vec<u32>>,
    top: u8,
    pub(crate) uniform: f64,
    /// What must come out.
    id: u32,
    logprob: f32,
    top_ids: Vec<u32>,
    top_logprobs: Vec<f32>,
}

impl Vector {
    pub(crate) fn params(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.clone().into(),
            min_tokens: self.min_tokens,
            logprobs: Some(self.top),
            ..SamplingParams::default()
        }
    }

    pub(crate) fn logits(&self) -> Vec<f32> {
        row(self.vocab, self.row)
    }
}

pub(crate) fn vectors() -> Vec<Vector> {
    serde_json::from_str(VECTORS).unwrap()
}

/// `row(i) = ((i · (2·row + 1) · 2654435761 mod 2³²) >> 20) / 256 − 8`: exact in
/// single precision, with ties.
fn row(vocab: usize, row: u32) -> Vec<f32> {
    let logit = |i: u32| {
        let hash = i.wrapping_mul(2 * row + 1).wrapping_mul(2_654_435_761);
        (hash >> 20) as f32 / 256.0 - 8.0
    };
    (0..vocab as u32).map(logit).collect()
}

#[test]
fn every_vector_is_met() {
    let cases = vectors();
    assert!(cases.len() >= 30);
    let mut sampler = Sampler::new();
    for case in cases {
        let params = case.params();
        let mut state = SequenceSampling::new(&params, &case.prompt, &case.eos);
        case.output.iter().for_each(|&token| state.observe(token));
        let mut logits = case.logits();
        let token = sampler
            .sample_at(
                &mut logits,
                &params,
                &state,
                case.mask.as_deref(),
                case.uniform,
            )
            .unwrap();
        let name = &case.name;
        assert_eq!(token.id, case.id, "{name}");
        assert!((token.logprob - case.logprob).abs() < 1e-5, "{name}");
        let ids: Vec<u32> = token.top.iter().map(|entry| entry.0).collect();
        assert_eq!(ids, case.top_ids, "{name}");
        for ((_, got), expected) in token.top.iter().zip(&case.top_logprobs) {
            assert!((got - expected).abs() < 1e-5, "{name}");
        }
    }
}
