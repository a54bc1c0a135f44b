//! One run of a pipeline within a task: parameters in, `result.json` or `error.json` out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Pipeline, PipelineError, discover, python};
use crate::tasks::executor::{Command, Exit, Limits};
use crate::tasks::{TaskContext, TaskFailure};

/// The pipelines of a folder, and where and within which limits they run.
#[derive(Debug, Clone)]
pub struct Pipelines {
    all: BTreeMap<String, Pipeline>,
    /// Virtual environments are made in here.
    environments: PathBuf,
    limits: Limits,
}

/// What a run left.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// `result.json`.
    pub result: Json,
    /// The output folder; it goes with the attempt's scratch folder.
    pub folder: PathBuf,
}

/// A result or error file is no larger than this.
const LARGEST: u64 = 16 * 1024 * 1024;

/// `error.json`.
#[derive(Deserialize)]
struct ErrorFile {
    code: String,
    message: String,
    #[serde(default)]
    details: Json,
}

impl Pipelines {
    /// Those below `root`.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn new(
        root: &Path,
        environments: impl Into<PathBuf>,
        limits: Limits,
    ) -> Result<Self, PipelineError> {
        let root = std::path::absolute(root).map_err(|source| PipelineError::Read {
            path: root.display().to_string(),
            source,
        })?;
        Ok(Self {
            all: discover(&root)?,
            environments: environments.into(),
            limits,
        })
    }

    pub const fn all(&self) -> &BTreeMap<String, Pipeline> {
        &self.all
    }

    /// Runs a pipeline to its end, making its environment before if there is none.
    ///
    /// # Errors
    /// The failure that its `error.json` names; `no_pipeline`; `out_of_memory`, `took_too_long`, `killed` and others
    /// if it did not live to write one.
    pub async fn run(
        &self,
        context: &TaskContext,
        name: &str,
        params: &Json,
    ) -> Result<Ran, TaskFailure> {
        let pipeline = self.all.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
            TaskFailure::lasting(
                "no_pipeline",
                format!(
                    "pipeline: there is no \"{name}\"; there are: {}",
                    known.join(", ")
                ),
            )
        })?;
        let environments = std::path::absolute(&self.environments)?;
        let python = python::environment(context, pipeline, &environments).await?;
        let scratch = std::path::absolute(context.scratch())?;
        let (given, output) = (scratch.join("params.json"), scratch.join("output"));
        tokio::fs::write(&given, params.to_string()).await?;
        tokio::fs::create_dir_all(&output).await?;
        let mut command = Command::new(python, &scratch)
            .arg(pipeline.folder.join(&pipeline.entry))
            .arg("--params")
            .arg(given)
            .arg("--output")
            .arg(&output);
        command.limits = self.limits;
        // What a model's own code would write into the checkout, several workers would write at once.
        command
            .variables
            .push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        command
            .variables
            .push(("PYTHONUNBUFFERED".into(), "1".into()));
        let exit = context.execute(command).await?;
        if exit == Exit::Code(0) {
            let result = read::<serde_json::Map<String, Json>>(&output.join("result.json")).await;
            let result = result.map_err(|problem| {
                TaskFailure::lasting(
                    "no_result",
                    format!("the pipeline ended well, but {problem}"),
                )
            })?;
            return Ok(Ran {
                result: Json::Object(result),
                folder: output,
            });
        }
        Err(
            match (exit, read::<ErrorFile>(&output.join("error.json")).await) {
                (Exit::Code(_), Ok(error)) => {
                    TaskFailure::lasting(error.code, error.message).with(error.details)
                }
                (exit, _) => without_words(exit),
            },
        )
    }
}

async fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let file = path.file_name().unwrap_or_default().display().to_string();
    let size = match tokio::fs::symlink_metadata(path).await {
        Ok(found) if found.is_file() => found.len(),
        _ => return Err(format!("it left no {file}")),
    };
    if size > LARGEST {
        return Err(format!(
            "its {file} has {size} bytes; the limit is {LARGEST}"
        ));
    }
    let text = tokio::fs::read(path)
        .await
        .map_err(|error| format!("its {file} cannot be read: {error}"))?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("its {file} is not as it should be: {error}"))
}

/// The failure of a pipeline that said nothing itself.
fn without_words(exit: Exit) -> TaskFailure {
    let message = format!("the pipeline {exit}; its last words are in the log");
    match exit {
        Exit::OutOfMemory(_) => TaskFailure::lasting("out_of_memory", message),
        Exit::WallTime | Exit::CpuTime => TaskFailure::lasting("took_too_long", message),
        Exit::Stopped => TaskFailure::passing("stopped", message),
        Exit::Signal(_) => TaskFailure::passing("killed", message),
        Exit::Code(_) => TaskFailure::lasting("crashed", message),
    }
}
