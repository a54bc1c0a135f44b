//! The sampling kernel draws what [`Sampler`] draws: the same token from the same
//! number, always, and the same evidence up to the last bit of a logarithm.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::cuda::sampling::{LogitsView, SampleKernel};
use crate::request::{SampledToken, SamplingParams};
use crate::sampler::{Draw, SampleError, Sampler, SequenceSampling};

/// A token to draw from its own row.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) logits: Vec<f32>,
    pub(super) params: SamplingParams,
    pub(super) prompt: Vec<u32>,
    pub(super) output: Vec<u32>,
    pub(super) eos: Vec<u32>,
    pub(super) mask: Option<Vec<u32>>,
    pub(super) uniform: f64,
}

impl Case {
    pub(super) fn of(logits: Vec<f32>, params: SamplingParams, uniform: f64) -> Self {
        Self {
            logits,
            params,
            prompt: Vec::new(),
            output: Vec::new(),
            eos: vec![0],
            mask: None,
            uniform,
        }
    }

    fn state(&self) -> SequenceSampling {
        let mut state = SequenceSampling::new(&self.params, &self.prompt, &self.eos);
        self.output.iter().for_each(|&token| state.observe(token));
        state
    }
}

/// Draws one token a case; all cases have the same vocabulary. Rows are stored last
/// to first, behind a gap, so that nothing works by chance.
pub(super) fn draw<M: Machine>(
    machine: &mut M,
    threads: u32,
    float: Float,
    cases: &[Case],
) -> Vec<Result<SampledToken, SampleError>> {
    let vocab = cases[0].logits.len();
    let stride = vocab + 3;
    let gap = 7;
    let mut numbers = vec![f32::INFINITY; gap];
    for case in cases.iter().rev() {
        numbers.extend(&case.logits);
        numbers.extend([f32::INFINITY; 3]);
    }
    let (bytes, _) = stored(&numbers, float);
    let buffer = upload(machine, &bytes);
    let states: Vec<SequenceSampling> = cases.iter().map(Case::state).collect();
    let last = cases.len() as u32 - 1;
    let requests: Vec<Draw<'_>> = (0u32..)
        .zip(cases.iter().zip(&states))
        .map(|(index, (case, state))| Draw {
            row: last - index,
            params: &case.params,
            state,
            mask: case.mask.as_deref(),
            uniform: case.uniform,
        })
        .collect();
    let view = LogitsView {
        buffer: &buffer,
        offset: gap * float.size(),
        float,
        rows: cases.len(),
        stride,
        vocab,
    };
    let mut kernel = SampleKernel::with_threads(threads);
    kernel.start(machine, &view, &requests).unwrap();
    let drawn = kernel.finish(machine).unwrap();
    let mut after = vec![0; bytes.len()];
    machine.read(&buffer, &mut after).unwrap();
    assert!(after == bytes, "the logits were changed");
    drawn
}

/// What the CPU's sampler draws.
pub(super) fn reference(case: &Case, float: Float) -> Result<SampledToken, SampleError> {
    let (_, mut row) = stored(&case.logits, float);
    let mask = case.mask.as_deref();
    Sampler::new().sample_at(&mut row, &case.params, &case.state(), mask, case.uniform)
}

/// Equal but for the last bit of a logarithm; NaN equals NaN.
fn close(a: f32, b: f32) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 2e-6 * a.abs().max(1.0)
}

fn same(
    drawn: &Result<SampledToken, SampleError>,
    expected: &Result<SampledToken, SampleError>,
) -> bool {
    match (drawn, expected) {
        (Ok(a), Ok(b)) => {
            let tops = a.top.len() == b.top.len()
                && a.top
                    .iter()
                    .zip(&b.top)
                    .all(|(x, y)| x.0 == y.0 && close(x.1, y.1));
            a.id == b.id && close(a.logprob, b.logprob) && tops
        }
        (a, b) => a == b,
    }
}

/// Asserts that a machine draws what the CPU's sampler draws.
pub(super) fn check<M: Machine>(machine: &mut M, threads: u32, float: Float, cases: &[Case]) {
    let drawn = draw(machine, threads, float, cases);
    assert_eq!(drawn.len(), cases.len());
    for (case, drawn) in cases.iter().zip(&drawn) {
        let expected = reference(case, float);
        assert!(
            same(drawn, &expected),
            "{threads} threads, {float:?}: drew {drawn:?}, expected {expected:?} for {:?}, \
             vocabulary {}, number {}",
            case.params,
            case.logits.len(),
            case.uniform
        );
    }
}

fn params() -> impl Strategy<Value = SamplingParams> {
    (
        prop_oneof![1 => Just(0.0f32), 4 => 0.1f32..2.0],
        prop_oneof![Just(1.0f32), 0.0f32..1.0],
        prop_oneof![Just(0u32), 1u32..60],
        prop_oneof![Just(0.0f32), 0.0f32..1.0],
        (
            prop_oneof![Just(0.0f32), -2.0f32..2.0],
            prop_oneof![Just(0.0f32), -2.0f32..2.0],
            prop_oneof![Just(1.0f32), 0.5f32..2.0],
        ),
        prop::collection::vec((0u32..40, -20.0f32..20.0), 0..6),
        prop::option::of(0u8..=25),
        0usize..3,
    )
        .prop_map(
            |(temperature, top_p, top_k, min_p, penalties, bias, logprobs, min_tokens)| {
                SamplingParams {
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    presence_penalty: penalties.0,
                    frequency_penalty: penalties.1,
                    repetition_penalty: penalties.2,
                    // Few ids, so that some stand twice.
                    logit_bias: bias.into(),
                    logprobs,
                    min_tokens,
                    ..SamplingParams::default()
                }
            },
        )
}

/// Rows of one vocabulary, of any length from 1, with ties, NaN and infinities.
fn batch() -> impl Strategy<Value = Vec<Case>> {
    let logit = prop_oneof![
        20 => -12.0f32..12.0,
        10 => (-4i8..4).prop_map(f32::from),
        1 => Just(f32::NAN),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(-0.0f32),
    ];
    let ids = || prop::collection::vec(0u32..1400, 0..8);
    (1usize..1300, 1usize..4)
        .prop_flat_map(move |(vocab, rows)| {
            let case = (
                prop::collection::vec(logit.clone(), vocab),
                params(),
                (ids(), ids(), ids()),
                prop::option::weighted(0.3, prop::collection::vec(any::<u32>(), 0..45)),
                0.0f64..1.0,
            );
            prop::collection::vec(case, rows)
        })
        .prop_map(|rows| {
            rows.into_iter()
                .map(
                    |(logits, params, (prompt, output, eos), mask, uniform)| Case {
                        prompt,
                        output,
                        eos,
                        mask,
                        ..Case::of(logits, params, uniform)
                    },
                )
                .collect()
        })
}

#[test]
fn draws_what_the_cpu_draws() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        // Large blocks take the emulator longer.
        let cases = if threads > 256 { 6 } else { 40 };
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        });
        // The closure may be called again, not at once.
        let machine = RefCell::new(machine);
        runner
            .run(&(batch(), 0usize..3), |(cases, float)| {
                check(*machine.borrow_mut(), threads, FLOATS[float], &cases);
                Ok(())
            })
            .unwrap();
    }
    on_every_machine!(check_all);
}
