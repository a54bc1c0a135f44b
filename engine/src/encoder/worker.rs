//! The threads that run an encoder's batches.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::backend::FailedRuns;
use crate::backend::onnx::{GpuOptions, Provider, SessionOptions, ShapeProfile, text_profiles};
use crate::backend::tensorrt::NativeOptions;
use crate::batcher::{Batch, WorkError, WorkQueue, spawn_worker};
use crate::error::{BackendError, LoadError};
use crate::folder::{EncoderConfig, Pooling, is_engine};
use crate::request::Meter;

use super::EncoderOptions;
use super::graph::{EncoderSession, Head};
use super::runner::Runner;
use super::text::{Encoded, EncoderText};

/// One text to run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) encoded: Encoded,
    pub(super) meter: Option<Meter>,
}

impl Job {
    fn begun(&self) {
        if let Some(meter) = &self.meter {
            meter.add_input(self.encoded.tokens());
        }
    }

    fn failed(&self) {
        if let Some(meter) = &self.meter {
            meter.take_back_input(self.encoded.tokens());
        }
    }
}

/// The sessions of one encoder, before their threads start.
pub(super) struct Sessions {
    /// One a worker, all of them handles of one loaded model; never empty.
    narrow: Vec<EncoderSession>,
    wide: Option<EncoderSession>,
}

impl Sessions {
    /// On TensorRT itself where `native` says how, else on ONNX Runtime.
    pub(super) fn open(
        name: &str,
        config: &EncoderConfig,
        options: &EncoderOptions,
        native: Option<&NativeOptions>,
    ) -> Result<Self, LoadError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let gpu = options.pooled_on();
        let workers = match (options.workers, gpu.is_some() || native.is_some()) {
            // One makes a batch ready while the other's runs.
            (0, true) => 2,
            (0, false) => cores,
            (workers, _) => workers,
        };
        let pooling = options.pooling.or(config.pooling).unwrap_or(Pooling::Mean);
        let open = |threads: usize| {
            let runner = match native {
                Some(native) => Runner::native(name, config, &profiled(config, options, native)?)?,
                None => {
                    let session = SessionOptions {
                        provider: options.provider,
                        threads,
                        gpu: gpu_options(config, options)?,
                        ..SessionOptions::default()
                    };
                    Runner::onnx(name, config, &session, gpu)?
                }
            };
            EncoderSession::new(name, config, pooling, runner)
        };
        let mut narrow = vec![open(1)?];
        for _ in 1..workers {
            narrow.push(narrow[0].share()?);
        }
        let on_cpu = native.is_none() && options.provider == Provider::Cpu;
        let wide = match options.wide && on_cpu && workers > 1 {
            true => Some(open(cores)?),
            false => None,
        };
        Ok(Self { narrow, wide })
    }

    pub(super) fn workers(&self) -> usize {
        self.narrow.len()
    }

    pub(super) fn head(&self) -> Head {
        self.narrow[0].head()
    }

    /// The largest batch that is taken, `[texts, tokens]`, if not any.
    pub(super) fn reach(&self) -> Option<[usize; 2]> {
        self.narrow[0].reach()
    }

    pub(super) fn first(&mut self) -> &mut EncoderSession {
        &mut self.narrow[0]
    }

    /// Runs each session once and returns the width of its rows.
    pub(super) fn warm_up(&mut self, name: &str, text: &EncoderText) -> Result<usize, LoadError> {
        let refused = |reason: String| LoadError::Unsupported {
            model: name.to_owned(),
            reason: format!("the warm-up failed: {reason}"),
        };
        let encoded = text.tokenize("warm up", true);
        let encoded = encoded.map_err(|error| refused(error.to_string()))?;
        let mut width = 0;
        for session in self.narrow.iter_mut().chain(&mut self.wide) {
            // Two, unless it was built for one.
            let one = session.reach().is_some_and(|[texts, _]| texts < 2);
            let texts: &[&Encoded] = if one {
                &[&encoded]
            } else {
                &[&encoded, &encoded]
            };
            let rows = session.run(texts);
            let rows = rows.map_err(|error| refused(error.to_string()))?;
            width = rows.first().map_or(0, Vec::len);
        }
        Ok(width)
    }

    /// Hands each worker's session to its thread.
    pub(super) fn start(
        self,
        name: &str,
        queue: &Arc<WorkQueue<Job, Vec<f32>>>,
        options: &EncoderOptions,
    ) -> Result<(), LoadError> {
        let wide = Arc::new(Mutex::new(self.wide));
        for (index, mut narrow) in self.narrow.into_iter().enumerate() {
            let wide = Arc::clone(&wide);
            let thread = format!("{name} {index}");
            let mut failures = FailedRuns::new(options.failed_runs);
            narrow.leave_thread();
            spawn_worker(Arc::clone(queue), thread, options.budget, move |batch| {
                // Not waiting for the lock: if it is taken, cores are too.
                let mut spare = batch.alone.then(|| wide.try_lock()).flatten();
                match spare.as_deref_mut().and_then(Option::as_mut) {
                    Some(wide) => run(wide, batch, &mut failures),
                    None => run(&mut narrow, batch, &mut failures),
                }
            })
            .map_err(|error| {
                queue.close();
                LoadError::Runtime(format!("cannot start a thread: {error}"))
            })?;
        }
        Ok(())
    }
}

/// As configured; TensorRT is told which batches will come where nothing is.
pub(super) fn gpu_options(
    config: &EncoderConfig,
    options: &EncoderOptions,
) -> Result<GpuOptions, LoadError> {
    let mut gpu = options.gpu.without_graphs();
    if matches!(options.provider, Provider::TensorRt { .. }) && gpu.tensorrt.profiles.is_empty() {
        gpu.tensorrt.profiles = batches(config, options)?;
    }
    Ok(gpu)
}

/// The same for TensorRT itself; an engine was built for what it was built for.
fn profiled(
    config: &EncoderConfig,
    options: &EncoderOptions,
    native: &NativeOptions,
) -> Result<NativeOptions, LoadError> {
    let mut native = native.clone();
    if native.build.profiles.is_empty() && !is_engine(&config.model) {
        native.build.profiles = batches(config, options)?;
    }
    Ok(native)
}

/// Shapes of the batches that will come.
pub(super) fn batches(
    config: &EncoderConfig,
    options: &EncoderOptions,
) -> Result<Vec<ShapeProfile>, LoadError> {
    let declared = config.max_tokens as usize;
    let tokens = options.max_tokens.unwrap_or(declared).min(declared);
    text_profiles(&config.model, options.budget.items, tokens)
}

/// Runs a batch. Where it fails, each text runs alone, so that only the one that
/// the model refuses is lost. `Err`: why nothing can be run any more.
fn run(
    session: &mut EncoderSession,
    batch: Batch<'_, Job, Vec<f32>>,
    failures: &mut FailedRuns,
) -> Result<(), String> {
    batch.jobs().for_each(Job::begun);
    let texts: Vec<&Encoded> = batch.jobs().map(|job| &job.encoded).collect();
    let failed = |error: BackendError| WorkError::Failed(error.to_string());
    let together = session.run(&texts);
    let mut verdict = failures.note(&together);
    let results: Vec<_> = match together {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) if texts.len() == 1 => vec![Err(failed(error))],
        Err(_) => texts
            .iter()
            .map(|text| {
                verdict.clone().map_err(WorkError::Failed)?;
                let alone = session.run(&[text]);
                verdict = failures.note(&alone);
                Ok(alone.map_err(failed)?.swap_remove(0))
            })
            .collect(),
    };
    for (job, result) in batch.jobs().zip(&results) {
        if result.is_err() {
            job.failed();
        }
    }
    batch.answer(results);
    verdict
}
