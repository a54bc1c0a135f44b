//! Trainings with their runs, and conversions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::run::RunStatus;
use crate::id::{ArtifactId, ModelId, ModelVersionId, PrincipalId, TaskId, TrainingId};
use crate::store::Document;
use crate::time::Timestamp;

/// How a model is trained. Its dataset versions lie in a table of their own: see `Tx::train_on`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Training {
    pub model: ModelId,
    pub owner: Option<PrincipalId>,
    pub name: String,
    pub base_version: Option<ModelVersionId>,
    /// A pipeline's name, or a command.
    pub recipe: String,
    pub hyperparameters: Document,
    pub resources: Document,
}

/// One execution of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingRun {
    pub training: TrainingId,
    pub task: Option<TaskId>,
    pub author: Option<PrincipalId>,
    pub status: RunStatus,
    pub params: Document,
    pub metrics: Document,
    /// The exact inputs, by digest.
    pub inputs: Document,
    pub artifact: Option<ArtifactId>,
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// One conversion of a checkpoint into what the engine loads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConversionRun {
    pub model: ModelId,
    pub task: Option<TaskId>,
    pub author: Option<PrincipalId>,
    pub status: RunStatus,
    pub source_artifact: Option<ArtifactId>,
    pub source_framework: String,
    pub exporter: String,
    pub opset: Option<i64>,
    /// fp32, fp16, int8, int4.
    pub number_format: String,
    pub params: Document,
    pub parity: Option<Document>,
    pub parity_passed: Option<bool>,
    pub output_artifact: Option<ArtifactId>,
    pub output_digest: Option<String>,
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}
