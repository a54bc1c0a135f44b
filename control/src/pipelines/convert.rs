//! The task kind that runs a conversion pipeline and keeps what it made.

use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Pipelines, Ran};
use crate::tasks::{Task, TaskContext, TaskFailure};

/// What becomes of a pipeline's output before its scratch folder goes.
pub trait Keep: Send + Sync + 'static {
    /// Says where it is now. May be called again for the same task, by a later attempt.
    fn keep<'a>(
        &'a self,
        context: &'a TaskContext,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Json, TaskFailure>>;
}

/// Keeps outputs as folders, named by their task.
#[derive(Debug, Clone)]
pub struct KeepInFolder(pub PathBuf);

impl Keep for KeepInFolder {
    fn keep<'a>(
        &'a self,
        context: &'a TaskContext,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Json, TaskFailure>> {
        async move {
            tokio::fs::create_dir_all(&self.0).await?;
            let kept = self.0.join(context.task().to_string());
            if kept.exists() {
                // Of an attempt that was killed between here and its end.
                tokio::fs::remove_dir_all(&kept).await?;
            }
            tokio::fs::rename(folder, &kept).await.map_err(|error| {
                let message = format!(
                    "{} cannot be moved to {}: {error}",
                    folder.display(),
                    kept.display()
                );
                TaskFailure::lasting("not_kept", message)
            })?;
            Ok(json!({"folder": kept}))
        }
        .boxed()
    }
}

/// Runs pipelines. Params: `{"pipeline": "convert-encoder", "params": {…}}`.
#[derive(Debug, Clone)]
pub struct Convert<K> {
    pub pipelines: Pipelines,
    pub keep: K,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertParams {
    pub pipeline: String,
    /// The pipeline's own.
    pub params: Json,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConvertOutput {
    pub pipeline: String,
    /// The pipeline's `result.json`.
    pub result: Json,
    /// Where its output is, in the words of [`Keep`].
    pub kept: Json,
}

impl<K: Keep> Task for Convert<K> {
    const NAME: &'static str = "convert";
    type Params = ConvertParams;
    type Output = ConvertOutput;

    async fn run(
        &self,
        params: ConvertParams,
        context: &TaskContext,
    ) -> Result<ConvertOutput, TaskFailure> {
        let ConvertParams { pipeline, params } = params;
        // One step: the output lies in the scratch folder until it is kept.
        let (result, kept) = context
            .step("convert", async {
                let Ran { result, folder } =
                    self.pipelines.run(context, &pipeline, &params).await?;
                let kept = self.keep.keep(context, &folder).await?;
                Ok((result, kept))
            })
            .await?;
        Ok(ConvertOutput {
            pipeline,
            result,
            kept,
        })
    }
}
