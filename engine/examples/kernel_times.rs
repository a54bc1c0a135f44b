//! Times of our kernels on a GPU, beside what reading their input once would take.
//!
//!     cargo run --release -p sluice-engine --example kernel_times
#![expect(clippy::print_stdout, reason = "prints its results")]

use std::error::Error;
use std::time::Duration;

use sluice_engine::cuda::{
    Device, Float, Hidden, LogitsView, Machine as _, PoolKernel, SampleKernel, SlotMove, SlotMoves,
    SlotShape,
};
use sluice_engine::folder::Pooling;
use sluice_engine::request::SamplingParams;
use sluice_engine::sampler::{Draw, SequenceSampling};

const ROUNDS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut device = match Device::open(0, None) {
        Ok(device) => device,
        Err(error) => {
            println!("nothing to measure: {error}");
            return Ok(());
        }
    };
    println!("{:?}", device.gpu());
    println!("{:<52} {:>10} {:>10}", "kernel", "median µs", "GB/s");
    sampling(&mut device)?;
    slots(&mut device)?;
    pooling(&mut device)?;
    println!("{:?}", device.memory()?);
    Ok(())
}

/// Median time on the device of what `work` starts, after a warm-up.
fn median(
    device: &mut Device,
    mut work: impl FnMut(&mut Device) -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    work(device)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = device.mark()?;
        work(device)?;
        times.push(start.until(&device.mark()?)?);
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn line(name: &str, time: Duration, bytes: usize) {
    let rate = bytes as f64 / time.as_secs_f64() / 1e9;
    println!("{name:<52} {:>10.1} {rate:>10.0}", time.as_secs_f64() * 1e6);
}

/// Logits with a normal bulk and a few likely tokens, in half precision.
fn logits(numbers: usize) -> Vec<u8> {
    let uniform = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
    let logit = |i: u32| {
        let bulk: f64 = (0..6)
            .map(|k| uniform(i.wrapping_mul(6) + k) - 0.5)
            .sum::<f64>()
            * 3.0;
        let likely = if i % 1999 == 7 {
            9.0 * uniform(i ^ 0x5bd1)
        } else {
            0.0
        };
        half::f16::from_f64(bulk + likely)
    };
    (0..numbers as u32)
        .flat_map(|i| logit(i).to_ne_bytes())
        .collect()
}

fn sampling(device: &mut Device) -> Result<(), Box<dyn Error>> {
    let base = SamplingParams {
        seed: Some(1),
        ..SamplingParams::default()
    };
    let cases = [
        (
            "greedy",
            SamplingParams {
                temperature: 0.0,
                ..base.clone()
            },
        ),
        ("plain", base.clone()),
        (
            "top_p 0.95",
            SamplingParams {
                top_p: 0.95,
                ..base.clone()
            },
        ),
        (
            "top_k 50, top_p 0.9",
            SamplingParams {
                top_k: 50,
                top_p: 0.9,
                ..base.clone()
            },
        ),
        (
            "presence, top_p 0.95, 5 logprobs",
            SamplingParams {
                presence_penalty: 0.5,
                top_p: 0.95,
                logprobs: Some(5),
                ..base
            },
        ),
    ];
    let vocab = 128_256;
    for rows in [1, 8, 64] {
        let bytes = logits(rows * vocab);
        let mut buffer = device.allocate(bytes.len())?;
        device.write(&mut buffer, &bytes)?;
        let view = LogitsView {
            buffer: &buffer,
            offset: 0,
            float: Float::F16,
            rows,
            stride: vocab,
            vocab,
        };
        for (name, params) in &cases {
            let mut state = SequenceSampling::new(params, &[], &[]);
            (0..100).for_each(|token| state.observe(token));
            let requests: Vec<Draw<'_>> = (0..rows as u32)
                .map(|row| Draw {
                    row,
                    params,
                    state: &state,
                    mask: None,
                    uniform: (f64::from(row) + 0.5) / rows as f64,
                })
                .collect();
            let mut kernel = SampleKernel::default();
            let time = median(device, |device| Ok(kernel.start(device, &view, &requests)?))?;
            kernel.finish(device)?;
            line(
                &format!("sample {rows} × 128 k fp16, {name}"),
                time,
                bytes.len(),
            );
        }
    }
    Ok(())
}

fn slots(device: &mut Device) -> Result<(), Box<dyn Error>> {
    // 32 layers of 8 K/V heads of 128 numbers in half precision.
    let shape = SlotShape {
        planes: 64,
        slots: 4,
        heads: 8,
        capacity: 4096,
        token_bytes: 256,
    };
    let mut arena = device.allocate(shape.bytes())?;
    for tokens in [128, 4096] {
        let moves = [SlotMove {
            from: 3,
            to: 0,
            tokens,
        }];
        let mut kernel = SlotMoves::default();
        let time = median(device, |device| {
            Ok(kernel.run(device, &mut arena, &shape, &moves)?)
        })?;
        let bytes = 2 * shape.planes * shape.heads * shape.token_bytes * tokens as usize;
        line(&format!("move a slot of {tokens} tokens"), time, bytes);
    }
    Ok(())
}

fn pooling(device: &mut Device) -> Result<(), Box<dyn Error>> {
    let (texts, length, width) = (64, 256, 1024);
    let buffer = device.allocate(texts * length * width * 2)?;
    let mut out = device.allocate(texts * width * 4)?;
    let tokens = vec![length as u32; texts];
    let hidden = Hidden {
        buffer: &buffer,
        float: Float::F16,
        tokens: &tokens,
        length,
        width,
    };
    let mut kernel = PoolKernel::default();
    let time = median(device, |device| {
        Ok(kernel.pool(device, &hidden, Pooling::Mean, true, &mut out)?)
    })?;
    line(
        "mean of 64 texts × 256 × 1024 fp16, to length 1",
        time,
        texts * length * width * 2,
    );
    Ok(())
}
