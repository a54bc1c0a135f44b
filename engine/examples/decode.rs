//! A model folder on a device, in process, without server: greedy tokens, and decode rates.
//!
//!     cargo run --release -p sluice-engine --example decode -- FOLDER [--provider cpu|cuda] [--device 0]
//!         [--graphs] [--slots 64] [--capacity 512] [--prompts FILE --tokens 64] [--rates 1,8,64 --past 256 --steps 64]
//!         [--reloads 100]
//!
//! `--prompts` is a JSON list of lists of token ids. Prints one JSON object: `tokens`, the
//! greedy continuation of each prompt, and `rates`, tokens per second at each batch size (the
//! median of five rounds), each step a run of the graph and a draw of every row. `--reloads` loads and
//! drops the model so many times: `free_bytes` of the GPU after the first and after the last.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use sluice_engine::backend::onnx::{
    GpuOptions, OnnxOptions, Provider, init_runtime, language_model,
};
use sluice_engine::backend::{Backend, Batch, Outputs, Row, Wanted};
use sluice_engine::cuda::Device;
use sluice_engine::request::{SampledToken, SamplingParams};
use sluice_engine::sampler::{Draw, SampleError, Sampler, SequenceSampling};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).map(String::as_str)
    };
    let number = |name: &str, default: u32| named(name).map_or(Ok(default), str::parse);
    let folder = arguments.first().ok_or("usage: decode FOLDER [options]")?;
    init_runtime(None)?;
    let device = number("--device", 0)?;
    let options = OnnxOptions {
        provider: match named("--provider").unwrap_or("cpu") {
            "cpu" => Provider::Cpu,
            "cuda" => Provider::Cuda { device },
            other => return Err(format!("--provider {other}: cpu or cuda").into()),
        },
        gpu: GpuOptions {
            cuda_graphs: arguments.iter().any(|argument| argument == "--graphs"),
            ..GpuOptions::default()
        },
        slots: Some(number("--slots", 64)?),
        capacity: Some(number("--capacity", 512)?),
        ..OnnxOptions::default()
    };
    let load = || -> Result<Box<dyn Backend>, Box<dyn Error>> {
        let mut backend = language_model(Path::new(folder), folder, &options)?()?;
        backend.warmup()?;
        Ok(backend)
    };
    let mut report = Map::new();
    let reloads = number("--reloads", 0)?;
    let mut free = Vec::new();
    for round in 0..reloads {
        drop(load()?);
        if (round == 0 || round + 1 == reloads) && options.provider.device().is_some() {
            free.push(Device::memory_of(device)?.free);
        }
    }
    if reloads > 0 {
        report.insert("reloads".to_owned(), json!(reloads));
        report.insert("free_bytes".to_owned(), json!(free));
    }
    let start = Instant::now();
    let mut decoder = Decoder::new(load()?);
    report.insert(
        "load_seconds".to_owned(),
        json!(start.elapsed().as_secs_f64()),
    );
    let capabilities = decoder.backend.capabilities();
    report.insert("provider".to_owned(), json!(capabilities.provider));
    report.insert("weight_bytes".to_owned(), json!(capabilities.weight_bytes));
    report.insert("kv_bytes".to_owned(), json!(capabilities.kv_bytes));
    if let Some(file) = named("--prompts") {
        let prompts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(file)?)?;
        let tokens = number("--tokens", 64)?;
        let answers: Result<Vec<_>, _> =
            prompts.iter().map(|p| decoder.greedy(p, tokens)).collect();
        report.insert("tokens".to_owned(), json!(answers?));
    }
    if let Some(batches) = named("--rates") {
        let (past, steps) = (number("--past", 256)?, number("--steps", 64)?);
        let mut rates = Map::new();
        for batch in batches.split(',') {
            let rate = decoder.rate(batch.parse()?, past, steps)?;
            rates.insert(batch.to_owned(), json!(rate));
        }
        report.insert("rates".to_owned(), Value::Object(rates));
    }
    writeln!(std::io::stdout(), "{}", Value::Object(report))?;
    Ok(())
}

/// Drives the backend as the device's thread does.
struct Decoder {
    backend: Box<dyn Backend>,
    sampler: Sampler,
    outputs: Outputs,
    params: SamplingParams,
    state: SequenceSampling,
    drawn: Vec<Result<SampledToken, SampleError>>,
}

impl Decoder {
    fn new(backend: Box<dyn Backend>) -> Self {
        let params = SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        };
        Self {
            backend,
            sampler: Sampler::new(),
            outputs: Outputs::default(),
            state: SequenceSampling::new(&params, &[], &[]),
            params,
            drawn: Vec::new(),
        }
    }

    /// Runs rows that all want a token, and gives the likeliest of each.
    fn step(&mut self, rows: Vec<Row<'_>>) -> Result<Vec<u32>, Box<dyn Error>> {
        let batch = Batch { rows };
        self.backend.execute(&batch, &mut self.outputs)?;
        let ends: Vec<u32> = self
            .outputs
            .ranges
            .iter()
            .map(|range| (range.end - 1) as u32)
            .collect();
        let draws: Vec<Draw<'_>> = ends
            .iter()
            .map(|&row| Draw {
                row,
                params: &self.params,
                state: &self.state,
                mask: None,
                uniform: 0.0,
            })
            .collect();
        self.backend.draw(
            &mut self.sampler,
            &mut self.outputs,
            &draws,
            &mut self.drawn,
        )?;
        let ids: Result<Vec<u32>, _> = self
            .drawn
            .drain(..)
            .map(|drawn| drawn.map(|t| t.id))
            .collect();
        Ok(ids?)
    }

    /// The greedy continuation of a prompt, alone in the first slot.
    fn greedy(&mut self, prompt: &[u32], tokens: u32) -> Result<Vec<u32>, Box<dyn Error>> {
        fn row(past: usize, tokens: &[u32]) -> Row<'_> {
            Row {
                slot: 0,
                past: past as u32,
                tokens,
                wanted: Wanted::Last,
            }
        }
        let mut answer = self.step(vec![row(0, prompt)])?;
        while answer.len() < tokens as usize {
            let last = [answer[answer.len() - 1]];
            let past = prompt.len() + answer.len() - 1;
            let next = self.step(vec![row(past, &last)])?;
            answer.extend(next);
        }
        Ok(answer)
    }

    /// Tokens per second of `batch` sequences that hold `past` tokens at the start.
    fn rate(&mut self, batch: u32, past: u32, steps: u32) -> Result<f64, Box<dyn Error>> {
        let prompt: Vec<u32> = (3..).take(past as usize).collect();
        let prompt: Vec<u32> = prompt
            .iter()
            .map(|id| id % self.backend.capabilities().vocab)
            .collect();
        let mut ids = Vec::new();
        for slot in 0..batch {
            let row = Row {
                slot,
                past: 0,
                tokens: &prompt,
                wanted: Wanted::Last,
            };
            ids.extend(self.step(vec![row])?);
        }
        let mut seconds = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            // The same positions again and again: what lies behind is overwritten.
            for step in 0..steps {
                let last: Vec<[u32; 1]> = ids.iter().map(|&id| [id]).collect();
                let rows = (0..).zip(&last).map(|(slot, tokens)| Row {
                    slot,
                    past: past + step,
                    tokens,
                    wanted: Wanted::Last,
                });
                ids = self.step(rows.collect())?;
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(f64::from(batch * steps) / seconds[ROUNDS / 2])
    }
}
