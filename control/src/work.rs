//! The long work of a process: which kinds of task it takes, and the worker that does them.

mod collect;
mod import;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use collect::{CollectGarbage, CollectParams};
pub use import::{ImportArtifact, ImportParams, Made};

use crate::artifacts::ArtifactError;
use crate::control::Open;
use crate::pipelines::{Convert, PipelineError, Pipelines};
use crate::tasks::executor::{Limits, LocalExecutor};
use crate::tasks::{Kinds, TaskFailure, Worker, WorkerSettings};

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
pub fn kinds(open: &Open, settings: &WorkSettings) -> Result<Kinds, PipelineError> {
    let limits = Limits {
        memory: settings.memory,
        ..Limits::default()
    };
    let kinds = Kinds::new()
        .with(ImportArtifact(open.artifacts.clone()))
        .with_limit(CollectGarbage(open.artifacts.clone()), 1);
    if !settings.pipelines.is_dir() {
        let folder = settings.pipelines.display();
        tracing::warn!(%folder, "there is no folder of pipelines; conversions are left to others");
        return Ok(kinds);
    }
    let convert = Convert {
        pipelines: Pipelines::new(&settings.pipelines, &settings.environments, limits)?,
        artifacts: open.artifacts.clone(),
    };
    Ok(match settings.conversions {
        Some(limit) => kinds.with_limit(convert, limit),
        None => kinds.with(convert),
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

/// What a task says when content was not taken or given.
pub(crate) fn failed(error: ArtifactError) -> TaskFailure {
    let may_pass = error.is_retryable();
    let text = error.to_string();
    let code = match error {
        ArtifactError::Store(error) => return error.into(),
        ArtifactError::Path(_) | ArtifactError::Entry { .. } | ArtifactError::Empty => {
            "bad_content"
        }
        ArtifactError::TooLarge { .. } => "too_large",
        ArtifactError::Invalid { .. } => "bad_params",
        ArtifactError::Forbidden(_) => "forbidden",
        ArtifactError::Source { .. } => "bad_source",
        ArtifactError::NoSpace => "no_space",
        ArtifactError::Damaged(_) | ArtifactError::Missing(_) => "damaged",
        _ => "content",
    };
    if may_pass {
        TaskFailure::passing(code, text)
    } else {
        TaskFailure::lasting(code, text)
    }
}
