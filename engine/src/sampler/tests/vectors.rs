//! The vectors that every implementation of the sampler must agree with.

use std::sync::Arc;

use serde::Deserialize;

use crate::request::SamplingParams;
use crate::sampler::{Sampler, SequenceSampling};

const VECTORS: &str = include_str!("../../../tests/vectors/sampling.json");

#[derive(Deserialize)]
struct Case {
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
    eos: Vec<u32>,
    prompt: Vec<u32>,
    output: Vec<u32>,
    mask: Option<Vec<u32>>,
    top: u8,
    uniform: f64,
    /// What must come out.
    id: u32,
    logprob: f32,
    top_ids: Vec<u32>,
    top_logprobs: Vec<f32>,
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
    let cases: Vec<Case> = serde_json::from_str(VECTORS).unwrap();
    assert!(cases.len() >= 30);
    let mut sampler = Sampler::new();
    for case in cases {
        let params = SamplingParams {
            temperature: case.temperature,
            top_p: case.top_p,
            top_k: case.top_k,
            min_p: case.min_p,
            presence_penalty: case.presence_penalty,
            frequency_penalty: case.frequency_penalty,
            repetition_penalty: case.repetition_penalty,
            logit_bias: Arc::from(case.logit_bias),
            min_tokens: case.min_tokens,
            logprobs: Some(case.top),
            ..SamplingParams::default()
        };
        let mut state = SequenceSampling::new(&params, &case.prompt, &case.eos);
        case.output.iter().for_each(|&token| state.observe(token));
        let mut logits = row(case.vocab, case.row);
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
