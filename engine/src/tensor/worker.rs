//! The owner thread of one tensor model: takes requests from the queue, runs
//! them, answers. A failure of one run is an answer; only a device that is gone
//! ends the thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::queue::{Job, Queue};
use super::{
    InferError, Inference, NamedTensor, Signature, TensorData, TensorOptions, TensorStats, batch,
};
use crate::backend::FailedRuns;
use crate::backend::onnx::{Dimension, OnnxSession, Tensor, TensorView};
use crate::backend::tensorrt::TensorRtSession;
use crate::batcher::WorkTimings;
use crate::cancel::LoadCanceller;
use crate::error::{BackendError, LoadError};

/// What is run; built and used on the owner thread only.
pub(super) trait Graph: 'static {
    /// Runs once. Outputs come in the order of `wanted`; all of them when it is empty.
    fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError>;
}

impl Graph for OnnxSession {
    fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        Self::run(self, inputs, wanted)
    }
}

impl Graph for TensorRtSession {
    fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        Self::run(self, inputs, wanted)
    }
}

/// Starts the thread; returns the signature when the graph is built and has run.
pub(super) fn start<G: Graph>(
    name: &str,
    build: impl FnOnce() -> Result<(Signature, G), LoadError> + Send + 'static,
    queue: Arc<Queue>,
    stats: Arc<TensorStats>,
    options: &TensorOptions,
) -> Result<Arc<Signature>, LoadError> {
    let (ready, started) = bounded(1);
    let model = name.to_owned();
    let max_batch = options.max_batch.max(1);
    let failures = FailedRuns::new(options.failed_runs);
    let load = LoadCanceller::current();
    std::thread::Builder::new()
        .name(format!("sluice {name}"))
        .spawn(move || {
            let built = catch_unwind(AssertUnwindSafe(|| load.during(build)))
                .unwrap_or_else(|panic| Err(LoadError::Runtime(message(&*panic).to_owned())));
            let (signature, graph) = match built {
                Ok((signature, graph)) => (Arc::new(signature), graph),
                Err(error) => {
                    _ = ready.send(Err(error));
                    return;
                }
            };
            let max_rows = if signature.has_batch_dimension() {
                max_batch
            } else {
                1
            };
            let mut worker = Worker {
                model,
                graph,
                failures,
                zeros: None,
                queue,
                stats,
            };
            worker.warm_up(&signature);
            let loaded = load.check().map(|()| signature);
            let wanted = loaded.is_ok();
            if ready.send(loaded).is_ok() && wanted {
                worker.work(max_rows);
            }
        })
        .map_err(|error| LoadError::Runtime(format!("cannot start a thread: {error}")))?;
    started
        .recv()
        .unwrap_or_else(|_| Err(LoadError::Runtime("the model's thread ended".to_owned())))
}

struct Worker<G> {
    model: String,
    graph: G,
    failures: FailedRuns,
    /// What it was warmed up by, if it takes that.
    zeros: Option<Vec<NamedTensor>>,
    /// Dropped after the graph: see [`Queue`].
    queue: Arc<Queue>,
    stats: Arc<TensorStats>,
}

impl<G: Graph> Worker<G> {
    fn work(&mut self, max_rows: usize) {
        while let Some(jobs) = self.queue.pop(max_rows) {
            self.stats.run_begins(jobs.len());
            let served = self.serve(jobs);
            self.stats.run_ended();
            if let Err(reason) = served {
                tracing::error!(model = self.model, reason, "the device has failed");
                self.queue.fail(&reason);
                return;
            }
        }
    }

    /// Runs on zeros, so that the first client does not pay for the runtime's
    /// first allocations. A graph may rightly dislike zeros: then nothing is lost.
    fn warm_up(&mut self, signature: &Signature) {
        let zeros: Vec<_> = signature
            .inputs
            .iter()
            .map(|spec| {
                let size = |dimension: &Dimension| match dimension {
                    Dimension::Fixed(size) => *size,
                    Dimension::Free(_) => 1,
                };
                let shape: Vec<_> = spec.shape.iter().map(size).collect();
                let count = super::elements(&shape).unwrap_or(0);
                NamedTensor {
                    name: spec.name.clone(),
                    data: TensorData::zeros(spec.datatype, count),
                    shape,
                }
            })
            .collect();
        match self.run(&zeros, &[]) {
            Ok(_) => self.zeros = Some(zeros),
            Err(error) => tracing::debug!(model = self.model, %error, "warm-up on zeros"),
        }
    }

    /// Whether the model is lost after this run. Where runs fail in a row, it may be what
    /// clients ask for: a model that still computes what it computed at the load is not lost.
    fn judge(&mut self, run: &Result<Vec<Tensor>, BackendError>) -> Result<(), String> {
        let verdict = self.failures.note(run);
        let (Err(lost), Err(BackendError::Step(_))) = (&verdict, run) else {
            return verdict;
        };
        let Some(zeros) = self.zeros.clone() else {
            return verdict;
        };
        let again = self.run(&zeros, &[]);
        match (self.failures.note(&again), again) {
            (Ok(()), Ok(_)) => Ok(()),
            _ => Err(lost.clone()),
        }
    }

    /// Answers every job; `Err` when the device is gone for good.
    fn serve(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let began = Instant::now();
        for job in &jobs {
            self.stats
                .queue
                .add(began.saturating_duration_since(job.submitted));
        }
        if jobs.len() > 1 {
            return self.serve_merged(jobs);
        }
        self.serve_each(jobs)
    }

    /// One run for all. If that fails, each job gets a run of its own, so that
    /// none fails for its neighbour's input.
    fn serve_merged(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let began = Instant::now();
        let (Some(first), Some(merged)) = (jobs.first(), batch::merge(&jobs)) else {
            return self.serve_each(jobs);
        };
        let wanted: Vec<_> = first.wanted.iter().map(|name| &**name).collect();
        self.stats.compute_input.add(began.elapsed());
        let (run, compute) = self.run_timed(&merged, &wanted);
        if let Err(lost) = self.judge(&run) {
            for job in jobs {
                job.answer(Err(InferError::Failed(lost.clone())));
            }
            return Err(lost);
        }
        let outputs = match run {
            Ok(outputs) => outputs,
            Err(error) => {
                let reason = error.to_string();
                tracing::debug!(
                    model = self.model,
                    reason,
                    "a merged run failed; each runs alone"
                );
                return self.serve_each(jobs);
            }
        };
        let computed = Instant::now();
        let Some(dealt) = batch::split(&outputs, &jobs) else {
            tracing::warn!(
                model = self.model,
                "the outputs have not one row for each input row: set max_batch to 1"
            );
            return self.serve_each(jobs);
        };
        self.stats.compute_output.add(computed.elapsed());
        self.stats
            .computed(jobs.iter().map(|job| job.rows as u64).sum());
        let count = jobs.len();
        for (job, outputs) in jobs.into_iter().zip(dealt) {
            let timings = timings(&job, began, compute, count);
            job.answer(Ok(Inference { outputs, timings }));
        }
        Ok(())
    }

    fn serve_each(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            let wanted: Vec<_> = job.wanted.iter().map(|name| &**name).collect();
            let began = Instant::now();
            let (run, compute) = self.run_timed(&job.inputs, &wanted);
            let verdict = self.judge(&run);
            match run {
                Ok(outputs) => {
                    let computed = Instant::now();
                    let outputs = named(&wanted, outputs);
                    self.stats.compute_output.add(computed.elapsed());
                    self.stats.computed(job.rows as u64);
                    let timings = timings(&job, began, compute, 1);
                    job.answer(Ok(Inference { outputs, timings }));
                }
                Err(BackendError::Refused(reason)) => {
                    job.answer(Err(InferError::Refused(reason)));
                }
                Err(BackendError::Step(reason) | BackendError::Fatal(reason)) => {
                    job.answer(Err(InferError::Failed(reason)));
                }
            }
            if let Err(reason) = verdict {
                refuse(jobs, &reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    fn run_timed(
        &mut self,
        inputs: &[NamedTensor],
        wanted: &[&str],
    ) -> (Result<Vec<Tensor>, BackendError>, Duration) {
        let began = Instant::now();
        let result = self.run(inputs, wanted);
        let took = began.elapsed();
        self.stats.compute_infer.add(took);
        (result, took)
    }

    /// One run; a panic in it is a failed step.
    fn run(
        &mut self,
        inputs: &[NamedTensor],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        let views: Vec<_> = inputs
            .iter()
            .map(|tensor| (tensor.name.as_str(), view(tensor)))
            .collect();
        let graph = &mut self.graph;
        catch_unwind(AssertUnwindSafe(|| graph.run(&views, wanted)))
            .unwrap_or_else(|panic| Err(BackendError::Step(message(&*panic).to_owned())))
    }
}

/// Of a job whose run began then, with `batch` jobs in it.
fn timings(job: &Job, began: Instant, compute: Duration, batch: usize) -> WorkTimings {
    WorkTimings {
        queue: began.saturating_duration_since(job.submitted),
        compute,
        batch,
    }
}

fn view(tensor: &NamedTensor) -> TensorView<'_> {
    TensorView {
        shape: &tensor.shape,
        data: tensor.data.as_slice(),
    }
}

fn named(wanted: &[&str], outputs: Vec<Tensor>) -> Vec<NamedTensor> {
    let name = |(name, tensor): (&&str, Tensor)| NamedTensor {
        name: (*name).to_owned(),
        shape: tensor.shape,
        data: tensor.data,
    };
    wanted.iter().zip(outputs).map(name).collect()
}

/// Turns away what was taken from the queue and not run any more.
fn refuse(jobs: impl Iterator<Item = Job>, reason: &str) {
    for job in jobs {
        job.answer(Err(InferError::Unavailable(reason.to_owned())));
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}
