//! The task kind that runs a conversion pipeline, and keeps what it made as an artifact.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::content::placed;
use super::{Pipelines, Ran};
use crate::artifacts::{Artifacts, NewArtifact};
use crate::domain::record::{self, ArtifactKind, ConversionRun};
use crate::id::ArtifactId;
use crate::store;
use crate::tasks::{Follower, Task, TaskContext, TaskFailure};
use crate::work::{Made, failed};

/// Runs pipelines. Params: [`ConvertParams`].
#[derive(Debug, Clone)]
pub struct Convert {
    pub pipelines: Pipelines,
    pub artifacts: Artifacts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertParams {
    pub pipeline: String,
    /// What the artifact is called that comes out.
    pub name: String,
    /// The pipeline's own; content is named as in [`super::content`].
    pub params: Json,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConvertOutput {
    pub pipeline: String,
    /// The pipeline's `result.json`.
    pub result: Json,
    /// The folder that `result.folder` names.
    #[serde(flatten)]
    pub made: Made,
}

impl Task for Convert {
    const NAME: &'static str = "convert";
    type Params = ConvertParams;
    type Output = ConvertOutput;

    async fn run(
        &self,
        params: ConvertParams,
        context: &TaskContext,
    ) -> Result<ConvertOutput, TaskFailure> {
        // One step: the output lies in the scratch folder until it is kept.
        let (result, made) = context
            .step("convert", async {
                let inputs = std::path::absolute(context.scratch())?.join("inputs");
                let given = placed(&self.artifacts, &params.params, &inputs).await?;
                let ran = self
                    .pipelines
                    .run(context, &params.pipeline, &given)
                    .await?;
                let made = self.keep(context, &params, &ran).await?;
                Ok((ran.result, made))
            })
            .await?;
        Ok(ConvertOutput {
            pipeline: params.pipeline,
            result,
            made,
        })
    }
}

impl Convert {
    async fn keep(
        &self,
        context: &TaskContext,
        params: &ConvertParams,
        ran: &Ran,
    ) -> Result<Made, TaskFailure> {
        let folder = output_folder(ran).ok_or_else(|| {
            TaskFailure::lasting(
                "no_result",
                "result.json: folder should name a folder of the output, such as \"model\"",
            )
        })?;
        let owner = context.owner().await?;
        let new = NewArtifact {
            department: owner.department,
            kind: ArtifactKind::Model,
            name: params.name.clone(),
            source: Some(format!("{} by task {}", params.pipeline, context.task())),
        };
        context.log("the model passed and is kept");
        let kept = self
            .artifacts
            .take_folder(&owner.actor, new, &folder)
            .await
            .map_err(failed)?;
        Ok(Made {
            artifact: kept.id,
            digest: kept.record.digest,
            files: kept.record.files,
            bytes: kept.record.bytes,
        })
    }
}

/// Where the pipeline says that its model is: below its output, and nowhere else.
fn output_folder(ran: &Ran) -> Option<PathBuf> {
    let named = ran.result["folder"].as_str().map(Path::new);
    named
        .filter(|path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        })
        .map(|path| ran.folder.join(path))
        .filter(|path| path.is_dir())
}

/// What a conversion's task leaves in its run: the evidence that the gate asks for.
impl Follower for ConversionRun {
    fn settle(&mut self, task: &record::Task) -> Option<ArtifactId> {
        let output = task
            .result
            .as_ref()
            .and_then(|result| serde_json::from_value::<ConvertOutput>(result.0.clone()).ok());
        let failure = task.error.as_ref().map(|error| &error.0);
        let parity = match (&output, failure) {
            (Some(output), _) => &output.result["parity"],
            // A conversion that computes something else leaves the numbers that say so.
            (None, Some(failure)) => &failure["details"]["parity"],
            (None, None) => &Json::Null,
        };
        if parity.is_object() {
            self.parity_passed = parity["passed"].as_bool();
            self.parity = Some(store::Json(parity.clone()));
        }
        self.error = failure.and_then(|failure| {
            let (code, message) = (failure["code"].as_str()?, failure["message"].as_str()?);
            Some(format!("{message} ({code})"))
        });
        let output = output?;
        self.opset = output.result["opset"].as_i64();
        self.output_digest = Some(output.made.digest);
        self.output_artifact = Some(output.made.artifact);
        self.output_artifact
    }
}
