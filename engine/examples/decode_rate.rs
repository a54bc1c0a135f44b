//! Decode and prefill rates of a model folder, in process, without server and sampler.
//!
//!     cargo run --release -p sluice-engine --example decode_rate -- FOLDER [threads] [spin] [apart]
//!
//! `spin` lets idle threads spin; `apart` never joins prompts. Prints tokens per second (medians of five rounds of 32 steps) at each batch size:
//! what the engine could deliver at most through HTTP.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_engine::backend::onnx::{OnnxOptions, language_model};
use sluice_engine::backend::{Backend, Batch, Outputs, Row, Wanted};

const PROMPT: usize = 32;
const STEPS: u32 = 32;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments
        .first()
        .ok_or("usage: decode_rate FOLDER [threads] [spin] [apart]")?;
    let options = OnnxOptions {
        threads: arguments.get(1).map_or(Ok(0), |threads| threads.parse())?,
        spin: arguments.iter().any(|argument| argument == "spin"),
        ragged: !arguments.iter().any(|argument| argument == "apart"),
        capacity: Some(256),
        slots: Some(16),
        ..OnnxOptions::default()
    };
    let mut out = std::io::stdout();
    let start = Instant::now();
    let mut backend = language_model(Path::new(folder), folder, &options)?()?;
    backend.warmup()?;
    writeln!(
        out,
        "{:?}, loaded in {:?}",
        backend.capabilities(),
        start.elapsed()
    )?;
    for rows in [1, 2, 4, 8, 16] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(round(backend.as_mut(), rows)?);
        }
        let median = |time: fn(&(Duration, Duration)) -> Duration| {
            let mut times: Vec<_> = rounds.iter().map(time).collect();
            times.sort();
            times[ROUNDS / 2].as_secs_f64()
        };
        let prefill = f64::from(rows) * 32.0 / median(|round| round.0);
        let decode = f64::from(rows * STEPS) / median(|round| round.1);
        writeln!(
            out,
            "{rows:3} rows: decode {decode:7.0} tokens/s, prefill {prefill:7.0} tokens/s"
        )?;
    }
    Ok(())
}

/// Time of the prompts' step and of all decoding steps.
fn round(
    backend: &mut dyn Backend,
    rows: u32,
) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let mut outputs = Outputs::default();
    let prompt: Vec<u32> = (3..).take(PROMPT).collect();
    let row = |slot| Row {
        slot,
        past: 0,
        tokens: &prompt,
        wanted: Wanted::Last,
    };
    let start = Instant::now();
    backend.execute(
        &Batch {
            rows: (0..rows).map(row).collect(),
        },
        &mut outputs,
    )?;
    let prefill = start.elapsed();
    let start = Instant::now();
    for step in 0..STEPS {
        let row = |slot| Row {
            slot,
            past: 32 + step,
            tokens: &[7],
            wanted: Wanted::Last,
        };
        backend.execute(
            &Batch {
                rows: (0..rows).map(row).collect(),
            },
            &mut outputs,
        )?;
    }
    Ok((prefill, start.elapsed()))
}
