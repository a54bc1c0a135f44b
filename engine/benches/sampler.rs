//! Time of one draw at the vocabularies of Llama 2 (32 k) and Llama 3 (128 k).

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sluice_engine::request::SamplingParams;
use sluice_engine::sampler::{Sampler, SequenceSampling};

/// Logits as a trained model gives them: a normal bulk and a few likely tokens.
fn row(vocab: usize) -> Vec<f32> {
    let uniform = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
    let logit = |i: usize| {
        let i = i as u32;
        let bulk: f64 = (0..6).map(|k| uniform(i * 6 + k) - 0.5).sum::<f64>() * 3.0;
        let likely = if i % 1999 == 7 {
            9.0 * uniform(i ^ 0x5bd1)
        } else {
            0.0
        };
        (bulk + likely) as f32
    };
    (0..vocab).map(logit).collect()
}

fn cases() -> Vec<(&'static str, SamplingParams, bool)> {
    let base = SamplingParams {
        seed: Some(1),
        ..SamplingParams::default()
    };
    let greedy = SamplingParams {
        temperature: 0.0,
        ..base.clone()
    };
    vec![
        ("greedy", greedy.clone(), false),
        ("greedy, mask", greedy.clone(), true),
        (
            "greedy, 20 logprobs",
            SamplingParams {
                logprobs: Some(20),
                ..greedy
            },
            false,
        ),
        ("plain", base.clone(), false),
        (
            "top_k 40",
            SamplingParams {
                top_k: 40,
                ..base.clone()
            },
            false,
        ),
        (
            "top_p 0.95",
            SamplingParams {
                top_p: 0.95,
                ..base.clone()
            },
            false,
        ),
        (
            "min_p 0.05",
            SamplingParams {
                min_p: 0.05,
                ..base.clone()
            },
            false,
        ),
        (
            "all",
            SamplingParams {
                top_k: 200,
                top_p: 0.95,
                min_p: 0.01,
                temperature: 0.7,
                repetition_penalty: 1.1,
                ..base
            },
            false,
        ),
    ]
}

fn sampler(c: &mut Criterion) {
    for vocab in [32_000, 128_256] {
        let row = row(vocab);
        let mask = vec![0x5555_5555; vocab.div_ceil(32)];
        let mut group = c.benchmark_group(format!("sampler/{vocab}"));
        for (name, params, masked) in cases() {
            let prompt: Vec<u32> = (0..1000).collect();
            let mut state = SequenceSampling::new(&params, &prompt, &[2]);
            let mut sampler = Sampler::new();
            let mask = masked.then_some(mask.as_slice());
            group.bench_function(name, |b| {
                b.iter_batched_ref(
                    || row.clone(),
                    |row| black_box(sampler.sample(row, &params, &mut state, mask)),
                    BatchSize::LargeInput,
                );
            });
        }
    }
}

criterion_group!(benches, sampler);
criterion_main!(benches);
