//! The long work of a process: which kinds of task it takes, and the worker that does them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Open;
use crate::pipelines::{Convert, KeepInFolder, PipelineError, Pipelines};
use crate::tasks::executor::{Limits, LocalExecutor};
use crate::tasks::{Kinds, Worker, WorkerSettings};

/// How much of it, and where.
#[derive(Debug, Clone)]
pub struct WorkSettings {
    /// Tasks at once.
    pub slots: usize,
    /// Conversions at once, on all workers together; `None` is as many as there are slots.
    pub conversions: Option<u32>,
    /// Bytes of one conversion with all its processes.
    pub memory: Option<u64>,
    /// Where conversion pipelines lie.
    pub pipelines: PathBuf,
    /// Where their Python environments are made.
    pub environments: PathBuf,
    /// The data directory: scratch folders and logs lie in it.
    pub data: PathBuf,
    /// How long running tasks may go on when the process stops.
    pub drain: Duration,
}

/// The kinds that any process can take, beside a server or without one.
///
/// # Errors
/// The folder of pipelines cannot be read.
pub fn kinds(_open: &Open, settings: &WorkSettings) -> Result<Kinds, PipelineError> {
    let limits = Limits {
        memory: settings.memory,
        ..Limits::default()
    };
    let convert = Convert {
        pipelines: Pipelines::new(&settings.pipelines, &settings.environments, limits)?,
        keep: KeepInFolder(settings.data.join("conversions")),
    };
    Ok(match settings.conversions {
        Some(limit) => Kinds::new().with_limit(convert, limit),
        None => Kinds::new().with(convert),
    })
}

/// Starts the worker.
pub fn start(open: &Open, kinds: Kinds, settings: &WorkSettings) -> Worker {
    let worker = WorkerSettings {
        slots: settings.slots,
        drain: settings.drain,
        ..WorkerSettings::new(settings.data.join("tasks"))
    };
    Worker::start(open.queue.clone(), kinds, Arc::new(LocalExecutor), worker)
}
