//! Pooling equals the encoder's, bit for bit; lengths within the last bit.

use super::*;
use crate::cuda::machine::values_of;
use crate::cuda::pooling::{Hidden, PoolKernel};
use crate::encoder::pooling as reference;
use crate::folder::Pooling;

const MODES: [Pooling; 5] = [
    Pooling::Cls,
    Pooling::LastToken,
    Pooling::Max,
    Pooling::Mean,
    Pooling::MeanSqrtLength,
];

struct Texts {
    values: Vec<f32>,
    tokens: Vec<u32>,
    length: usize,
    width: usize,
}

fn texts(tokens: &[u32], length: usize, width: usize) -> Texts {
    let number = |i: usize| {
        let hash = (i as u32).wrapping_mul(2_654_435_761) >> 8;
        hash as f32 / (1 << 22) as f32 - 2.0
    };
    Texts {
        values: (0..tokens.len() * length * width).map(number).collect(),
        tokens: tokens.to_vec(),
        length,
        width,
    }
}

fn pooled<M: Machine>(
    machine: &mut M,
    threads: u32,
    float: Float,
    texts: &Texts,
    (mode, normalize): (Pooling, bool),
) -> Vec<f32> {
    let (bytes, _) = stored(&texts.values, float);
    let buffer = upload(machine, &bytes);
    let size = texts.tokens.len() * texts.width * 4;
    let mut out = machine.allocate(size).unwrap();
    let hidden = Hidden {
        buffer: &buffer,
        float,
        tokens: &texts.tokens,
        length: texts.length,
        width: texts.width,
    };
    PoolKernel::with_threads(threads)
        .pool(machine, &hidden, mode, normalize, &mut out)
        .unwrap();
    let mut bytes = vec![0; size];
    machine.read(&out, &mut bytes).unwrap();
    values_of(&bytes).collect()
}

fn check<M: Machine>(machine: &mut M, threads: u32, float: Float, texts: &Texts) {
    let (_, rounded) = stored(&texts.values, float);
    for mode in MODES {
        for normalize in [false, true] {
            let got = pooled(machine, threads, float, texts, (mode, normalize));
            let each = rounded.chunks(texts.length * texts.width);
            for ((hidden, &tokens), got) in each.zip(&texts.tokens).zip(got.chunks(texts.width)) {
                let mut expected = reference::pool(mode, hidden, texts.width, tokens as usize);
                if normalize {
                    reference::normalize(&mut expected);
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * f32::EPSILON;
                    assert!(got.iter().zip(&expected).all(near), "{mode:?} {float:?}");
                } else {
                    assert_eq!(got, expected, "{mode:?} {float:?}");
                }
            }
        }
    }
}

#[test]
fn pools_what_the_encoder_pools() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        for float in FLOATS {
            check(machine, threads, float, &texts(&[1, 13, 7, 12], 13, 37));
            check(machine, threads, float, &texts(&[1], 1, 1));
            check(machine, threads, float, &texts(&[5, 3], 6, 1030));
            let mut zero = texts(&[2, 2], 2, 40);
            zero.values.fill(0.0);
            check(machine, threads, float, &zero);
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn a_maximum_passes_over_what_is_not_a_number() {
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        let mut one = texts(&[3], 3, 33);
        one.values[33..66].fill(f32::NAN);
        let got = pooled(machine, threads, Float::F16, &one, (Pooling::Max, false));
        let (_, rounded) = stored(&one.values, Float::F16);
        assert_eq!(got, reference::pool(Pooling::Max, &rounded, 33, 3));
    }
    on_every_machine!(check_all);
}

/// All of them, through the one kernel that passes a number on as it is.
#[test]
fn every_half_precision_number_is_read_right() {
    use half::{bf16, f16};
    fn check_all<M: Machine>(machine: &mut M, threads: u32) {
        for float in [Float::F16, Float::Bf16] {
            let value = |bits: u16| match float {
                Float::F16 => f16::from_bits(bits).to_f32(),
                _ => bf16::from_bits(bits).to_f32(),
            };
            let all = Texts {
                values: (0..=u16::MAX).map(value).collect(),
                tokens: vec![1],
                length: 1,
                width: 1 << 16,
            };
            let got = pooled(machine, threads, float, &all, (Pooling::Cls, false));
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(got.iter().zip(&all.values).all(same), "{float:?}");
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn what_lies_outside_is_refused() {
    let mut machine = Emulator::new(false);
    let buffer = upload(&mut machine, &[0; 96]);
    let mut out = machine.allocate(24).unwrap();
    let mut refused = |tokens: &[u32], length, width| {
        let hidden = Hidden {
            buffer: &buffer,
            float: Float::F32,
            tokens,
            length,
            width,
        };
        let pooled =
            PoolKernel::default().pool(&mut machine, &hidden, Pooling::Mean, false, &mut out);
        matches!(pooled, Err(CudaError::Shape(_)))
    };
    assert!(!refused(&[4, 1], 4, 3));
    assert!(!refused(&[], 4, 3));
    assert!(refused(&[5, 1], 4, 3), "more tokens than the text is long");
    assert!(refused(&[0, 1], 4, 3), "a text of no token");
    assert!(refused(&[4, 1], 5, 3), "more than the buffer holds");
    assert!(refused(&[1; 6], 1, 4), "more than fits into the result");
}
