//! What chance does not find: vocabularies as they are in use, flat and peaked
//! distributions, rows without a token, and the vectors of the CPU's sampler.

use super::sampling::{Case, check, reference};
use super::*;
use crate::cuda::sampling::{LogitsView, SampleKernel};
use crate::request::SamplingParams;
use crate::sampler::{Draw, SequenceSampling, vectors};

/// A row with a bulk and a few likely tokens, as of a trained model.
fn row(vocab: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761) >> 8;
    let logit = |i: usize| {
        let bulk = hash(i as u32) as f32 / (1 << 22) as f32;
        if i % 997 == seed as usize % 997 {
            bulk + 6.0
        } else {
            bulk
        }
    };
    (0..vocab).map(logit).collect()
}

fn drawn_with(temperature: f32, top_k: u32, top_p: f32, min_p: f32) -> SamplingParams {
    SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        logprobs: Some(5),
        ..SamplingParams::default()
    }
}

#[test]
fn the_vectors_of_the_sampler_are_met() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        for case in vectors() {
            let case = Case {
                prompt: case.prompt.clone(),
                output: case.output.clone(),
                eos: case.eos.clone(),
                mask: case.mask.clone(),
                ..Case::of(case.logits(), case.params(), case.uniform)
            };
            check(machine, threads, Float::F32, &[case]);
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn real_vocabularies_flat_and_peaked() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        // Llama 2's and Llama 3's, and one that nothing divides.
        for vocab in [32_000, 50_257, 128_256] {
            if threads > 256 && vocab > 32_000 {
                continue;
            }
            let mut cases = Vec::new();
            for (k, params) in [
                drawn_with(1.0, 0, 1.0, 0.0),
                drawn_with(0.7, 50, 0.9, 0.02),
                drawn_with(2.0, 0, 0.95, 0.0),
                drawn_with(0.0, 0, 1.0, 0.0),
            ]
            .into_iter()
            .enumerate()
            {
                let uniform = 0.999 - k as f64 * 0.31;
                cases.push(Case::of(row(vocab, 17 + k as u32), params.clone(), uniform));
                // All equal: a whole vocabulary of ties.
                cases.push(Case::of(vec![1.5; vocab], params.clone(), uniform));
                let mut peak = vec![-30.0; vocab];
                peak[vocab - 1] = 30.0;
                cases.push(Case::of(peak, params, uniform));
            }
            check(machine, threads, Float::F16, &cases);
        }
    }
    on_every_machine!(check_all);
}

/// The two neighbouring numbers between which the CPU's draw passes from tokens up to
/// `last` to later ones.
fn border(case: &Case, last: u32) -> [f64; 2] {
    let drawn = |uniform: f64| {
        let case = Case {
            uniform,
            ..case.clone()
        };
        reference(&case, Float::F32).unwrap().id
    };
    let (mut low, mut high) = (0.0f64, 1.0f64.next_down());
    assert!(drawn(low) <= last && drawn(high) > last);
    while low.next_up() < high {
        // Numbers in [0, 1) are ordered as their bits.
        let middle = f64::from_bits(u64::midpoint(low.to_bits(), high.to_bits()));
        if drawn(middle) <= last {
            low = middle;
        } else {
            high = middle;
        }
    }
    [low, high]
}

/// Every weight and every sum is the same to the last bit: one token gives way to the
/// next at the very same number.
#[test]
fn the_border_between_two_tokens_is_the_same_number() {
    let mut cases = Vec::new();
    for (k, params) in [
        drawn_with(1.0, 0, 1.0, 0.0),
        drawn_with(0.7, 0, 0.9, 0.0),
        drawn_with(1.3, 300, 0.97, 0.01),
    ]
    .into_iter()
    .enumerate()
    {
        let case = Case::of(row(1999, 3 + k as u32), params, 0.0);
        for last in [400, 1000, 1500] {
            cases.extend(border(&case, last).map(|uniform| Case {
                uniform,
                ..case.clone()
            }));
        }
    }
    for threads in [32, 256].into_iter().filter(|_| is_at_hand()) {
        check(
            &mut Emulator::new(threads > 32),
            threads,
            Float::F32,
            &cases,
        );
    }
    if let Some(mut at_hand) = AtHand::find(None) {
        check(&mut at_hand.device, 1024, Float::F32, &cases);
    }
}

#[test]
fn one_token_no_token_and_the_grammars_last_word() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        for temperature in [0.0, 1.0, f32::NAN, f32::INFINITY] {
            let params = drawn_with(temperature, 3, 0.5, 0.0);
            for float in FLOATS {
                check(
                    machine,
                    threads,
                    float,
                    &[Case::of(vec![0.25], params.clone(), 0.0)],
                );
                let nothing = [f32::NAN, f32::NEG_INFINITY]
                    .map(|logit| Case::of(vec![logit; 77], params.clone(), 0.5));
                check(machine, threads, float, &nothing);
            }
            let masked = |mask: Vec<u32>| Case {
                mask: Some(mask),
                eos: vec![0, 0, 5000],
                output: vec![3],
                ..Case::of(
                    (0..77).map(|i| i as f32 / 8.0).collect(),
                    SamplingParams {
                        min_tokens: 2,
                        logit_bias: [(0, 1.0), (0, 0.5), (9000, 3.0)].into(),
                        ..params.clone()
                    },
                    0.75,
                )
            };
            // Nothing; only the end, which `min_tokens` holds back; all but the end.
            let cases = [vec![], vec![0, 0, 0], vec![1], vec![!1, !0, !0]].map(masked);
            check(machine, threads, Float::F32, &cases);
        }
        let extremes = vec![f32::MAX, f32::INFINITY, f32::NAN, -0.0, 0.0, f32::MIN];
        for params in [drawn_with(0.0, 0, 1.0, 0.0), drawn_with(1.0, 1, 0.3, 1.0)] {
            check(
                machine,
                threads,
                Float::F32,
                &[Case::of(extremes.clone(), params, 0.9)],
            );
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn what_lies_outside_is_refused() {
    let mut machine = Emulator::new(false);
    let buffer = upload(&mut machine, &[0; 64]);
    let params = SamplingParams::default();
    let state = SequenceSampling::new(&params, &[], &[]);
    let mut refused = |rows, stride, vocab, row, uniform| {
        let view = LogitsView {
            buffer: &buffer,
            offset: 0,
            float: Float::F32,
            rows,
            stride,
            vocab,
        };
        let request = Draw {
            row,
            params: &params,
            state: &state,
            mask: None,
            uniform,
        };
        let started = SampleKernel::default().start(&mut machine, &view, &[request]);
        matches!(started, Err(CudaError::Shape(_)))
    };
    assert!(!refused(2, 8, 8, 1, 0.5));
    assert!(refused(2, 8, 8, 2, 0.5), "a row beyond the last");
    assert!(refused(3, 8, 8, 0, 0.5), "more rows than fit");
    assert!(refused(2, 8, 9, 0, 0.5), "rows that overlap");
    assert!(refused(2, 8, 0, 0, 0.5), "no vocabulary");
    assert!(
        refused(1, 1 << 20, 1 << 20, 0, 0.5),
        "too large a vocabulary"
    );
    for uniform in [1.0, -0.1, f64::NAN] {
        assert!(refused(2, 8, 8, 0, uniform), "{uniform}");
    }
}
