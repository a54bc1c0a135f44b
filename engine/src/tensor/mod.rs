//! Plain tensor models: named tensors in, named tensors out, one run a request
//! (or several requests of one shape a run, where the model allows it).
//!
//! Reading order: [`signature`] (does a request fit), [`queue`] (who runs next),
//! [`worker`] (the owner thread), [`batch`] (several requests as one), [`stats`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::FAILED_RUNS;
use crate::backend::onnx::{GpuOptions, ModelSource, OnnxSession, Provider, SessionOptions};
use crate::backend::tensorrt::{self, NativeOptions};
use crate::batcher::WorkTimings;
use crate::error::LoadError;
use crate::folder::{EncoderConfig, ModelFolder, ModelKind};

mod batch;
mod error;
mod queue;
mod signature;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

pub use crate::backend::onnx::{Datatype, Dimension, TensorData, TensorSlice};
pub use error::InferError;
pub use signature::{Signature, TensorSpec, elements};
pub use stats::{FailureReason, Phase, TensorStats};

use queue::{Job, Queue};
use worker::Graph;

/// A tensor of a request or an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name in the graph.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<i64>,
    /// Elements, row-major; as many as the shape's product.
    pub data: TensorData,
}

/// An answer, and where its time went.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// The outputs, in the order asked for.
    pub outputs: Vec<NamedTensor>,
    /// Waiting, and the run that it was part of.
    pub timings: WorkTimings,
}

/// How a tensor model is run. Everything here is bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorOptions {
    /// Where it is computed.
    pub provider: Provider,
    /// How a GPU is used, where `provider` is one.
    pub gpu: GpuOptions,
    /// Threads of one operator; 0 takes every core.
    pub threads: usize,
    /// Requests that wait at most; more are refused with [`InferError::QueueFull`].
    pub max_waiting: usize,
    /// Examples (rows of the first dimension) that waiting requests are merged to
    /// for one run; 1 runs each alone. Only for models whose rows do not depend on
    /// each other, which no signature tells: the operator must know. Ignored where
    /// [`Signature::has_batch_dimension`] is false. A larger request runs alone.
    pub max_batch: usize,
    /// Runs that fail in a row after which the model counts as lost; 0: never.
    pub failed_runs: u32,
}

impl Default for TensorOptions {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            gpu: GpuOptions::default(),
            threads: 0,
            max_waiting: 256,
            max_batch: 1,
            failed_runs: FAILED_RUNS,
        }
    }
}

impl TensorOptions {
    fn session(&self) -> SessionOptions {
        SessionOptions {
            provider: self.provider,
            threads: self.threads,
            gpu: self.gpu.without_graphs(),
            ..SessionOptions::default()
        }
    }
}

/// A loaded tensor model. Cheap to clone; the last clone ends its thread.
#[derive(Debug, Clone)]
pub struct TensorModel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    signature: Arc<Signature>,
    queue: Arc<Queue>,
    stats: Arc<TensorStats>,
    max_batch: usize,
    native: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close("the model is being unloaded");
    }
}

impl TensorModel {
    /// Loads `path`: an `.onnx` file, or a folder with `model.onnx` or one other
    /// `.onnx` file. Returns when the session is built (on its own thread) and has
    /// run once.
    ///
    /// # Errors
    /// No such file, a graph that ONNX Runtime refuses, or a signature with types
    /// that requests cannot carry.
    pub fn load(name: &str, path: &Path, options: &TensorOptions) -> Result<Self, LoadError> {
        let file = model_file(name, path)?;
        let session_options = options.session();
        let model = name.to_owned();
        let build = move || {
            let session = OnnxSession::open(&model, ModelSource::File(&file), &session_options)?;
            let signature = Signature::of(&model, session.inputs(), session.outputs())?;
            Ok((signature, session))
        };
        Self::start(name, build, options, false)
    }

    /// As [`Self::load`], on TensorRT itself rather than through ONNX Runtime: `path` is
    /// an `.onnx` file that an engine is built from, an engine (`.plan`, `.engine`), or a
    /// folder with either. `options.provider` and `options.gpu` do not count. TensorRT keeps no
    /// names of dimensions, so each request runs alone.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] without TensorRT or a device, [`LoadError::DoesNotFit`],
    /// [`LoadError::Unsupported`] with TensorRT's own words.
    pub fn load_native(
        name: &str,
        path: &Path,
        options: &TensorOptions,
        native: &NativeOptions,
    ) -> Result<Self, LoadError> {
        let file = model_file(name, path)?;
        let (model, native) = (name.to_owned(), native.clone());
        let build = move || {
            let session = tensorrt::open(&model, &file, &native)?;
            let signature = Signature::of(&model, session.inputs(), session.outputs())?;
            Ok((signature, session))
        };
        Self::start(name, build, options, true)
    }

    /// Starts the owner thread on a graph that `build` makes there.
    fn start<G: Graph>(
        name: &str,
        build: impl FnOnce() -> Result<(Signature, G), LoadError> + Send + 'static,
        options: &TensorOptions,
        native: bool,
    ) -> Result<Self, LoadError> {
        let queue = Arc::new(Queue::new(options.max_waiting));
        let stats = Arc::new(TensorStats::default());
        let signature =
            worker::start(name, build, Arc::clone(&queue), Arc::clone(&stats), options)?;
        let max_batch = if signature.has_batch_dimension() {
            options.max_batch.max(1)
        } else {
            1
        };
        Ok(Self {
            inner: Arc::new(Inner {
                signature,
                queue,
                stats,
                max_batch,
                native,
            }),
        })
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.inner.signature
    }

    /// Counters since the load.
    #[must_use]
    pub fn stats(&self) -> &TensorStats {
        &self.inner.stats
    }

    /// Requests waiting at this moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.queue.waiting()
    }

    /// Examples that one run takes at most by merging; 1 when requests run alone.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        self.inner.max_batch
    }

    /// Whether TensorRT itself computes it, and not ONNX Runtime.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.inner.native
    }

    /// Whether requests are taken: not closed, and the device has not failed.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.inner.queue.is_open()
    }

    /// Whether the thread has ended and given its memory back.
    #[must_use]
    pub fn ended(&self) -> bool {
        // The thread holds the queue as long as it lives, and nobody else does.
        Arc::strong_count(&self.inner.queue) == 1
    }

    /// As [`close`](Self::close), but those waiting fail.
    pub fn abort(&self) {
        self.inner.queue.fail("the model is being unloaded");
    }

    /// Refuses new requests; those waiting are still answered, then the thread ends.
    pub fn close(&self) {
        self.inner.queue.close("the model is being unloaded");
    }

    /// Runs the model once and returns the `wanted` outputs in that order (all, in
    /// the graph's order, when `None` or empty).
    ///
    /// A request that is dropped or whose deadline passes while it waits is never
    /// run; one that is running runs to its end, and its answer is thrown away.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn infer(
        &self,
        inputs: Vec<NamedTensor>,
        wanted: Option<&[String]>,
        deadline: Option<Instant>,
    ) -> Result<Vec<NamedTensor>, InferError> {
        let answer = self.infer_timed(inputs, wanted, deadline).await?;
        Ok(answer.outputs)
    }

    /// As [`Self::infer`], and says where the time went.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn infer_timed(
        &self,
        inputs: Vec<NamedTensor>,
        wanted: Option<&[String]>,
        deadline: Option<Instant>,
    ) -> Result<Inference, InferError> {
        let account = Account::open(&self.inner.stats);
        let answer = match self.submit(inputs, wanted, deadline, account.began) {
            Ok(answer) => wait(answer, deadline).await,
            Err(error) => Err(error),
        };
        account.settle(&answer);
        answer
    }

    fn submit(
        &self,
        inputs: Vec<NamedTensor>,
        wanted: Option<&[String]>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<oneshot::Receiver<Result<Inference, InferError>>, InferError> {
        let signature = &self.inner.signature;
        signature.check(&inputs, wanted)?;
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(InferError::Deadline);
        }
        if let Some(expected_wait) = self.too_late(deadline, now) {
            return Err(InferError::DeadlineUnmeetable { expected_wait });
        }
        let (answer, receiver) = oneshot::channel();
        let job = Job {
            rows: rows(signature, &inputs),
            inputs: in_graph_order(signature, inputs),
            wanted: wanted_outputs(signature, wanted),
            submitted: now,
            deadline,
            answer,
        };
        let retry_after = |waiting| self.retry_after(waiting);
        self.inner.queue.push(job, now, retry_after)?;
        Ok(receiver)
    }

    /// When an answer is to be expected that would come too late: after what waits, half of what
    /// runs, and its own run. With nothing waiting it is tried in any case.
    fn too_late(&self, deadline: Option<Instant>, now: Instant) -> Option<Duration> {
        let waiting = self.inner.queue.waiting();
        let deadline = deadline.filter(|_| waiting > 0)?;
        let expected = self.retry_after(waiting) + self.inner.stats.mean_run() * 3 / 2;
        (now + expected > deadline).then_some(expected)
    }

    /// When a full queue has probably moved on by one run.
    fn retry_after(&self, waiting: usize) -> Duration {
        let runs = waiting.div_ceil(self.inner.max_batch);
        self.inner.stats.mean_run() * u32::try_from(runs).unwrap_or(u32::MAX)
    }
}

/// Counts a request once, however it ends; dropped unsettled, the client is gone.
struct Account<'a> {
    stats: &'a TensorStats,
    began: Instant,
    settled: bool,
}

impl<'a> Account<'a> {
    fn open(stats: &'a TensorStats) -> Self {
        Self {
            stats,
            began: Instant::now(),
            settled: false,
        }
    }

    fn settle<T>(mut self, answer: &Result<T, InferError>) {
        self.settled = true;
        let took = self.began.elapsed();
        match answer {
            Ok(_) => self.stats.success.add(took),
            Err(error) => self.stats.failed(FailureReason::of(error), took),
        }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.stats
                .failed(FailureReason::Canceled, self.began.elapsed());
        }
    }
}

async fn wait(
    answer: oneshot::Receiver<Result<Inference, InferError>>,
    deadline: Option<Instant>,
) -> Result<Inference, InferError> {
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => return Err(InferError::Deadline),
        },
    };
    answer.unwrap_or_else(|_| Err(InferError::Unavailable("its thread has ended".to_owned())))
}

/// Examples of a request: its first dimension where that counts examples, else 1.
fn rows(signature: &Signature, inputs: &[NamedTensor]) -> usize {
    let first = inputs.first().and_then(|tensor| tensor.shape.first());
    match first {
        Some(&rows) if signature.has_batch_dimension() => usize::try_from(rows).unwrap_or(0),
        _ => 1,
    }
}

/// Checked inputs, so that requests can be compared position by position.
fn in_graph_order(signature: &Signature, mut inputs: Vec<NamedTensor>) -> Vec<NamedTensor> {
    let position = |name: &str| signature.inputs.iter().position(|spec| spec.name == name);
    inputs.sort_by_key(|tensor| position(&tensor.name));
    inputs
}

fn wanted_outputs(signature: &Signature, wanted: Option<&[String]>) -> Vec<Arc<str>> {
    match wanted {
        Some(wanted) if !wanted.is_empty() => {
            wanted.iter().map(|name| name.as_str().into()).collect()
        }
        _ => signature
            .outputs
            .iter()
            .map(|spec| spec.name.as_str().into())
            .collect(),
    }
}

/// The graph or engine of a folder, or the file itself.
fn model_file(name: &str, path: &Path) -> Result<PathBuf, LoadError> {
    match ModelFolder::open(path)?.kind {
        ModelKind::Tensor { model } | ModelKind::Encoder(EncoderConfig { model, .. }) => Ok(model),
        ModelKind::Generative(_) => Err(LoadError::Unsupported {
            model: name.to_owned(),
            reason: "it is a language model, not a function over tensors".to_owned(),
        }),
    }
}
