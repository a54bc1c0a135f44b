//! What versions are measured by, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Verdict;
use crate::domain::run::RunStatus;
use crate::domain::words::words;
use crate::id::{DatasetVersionId, EvaluationId, ModelId, ModelVersionId, PrincipalId, TaskId};
use crate::store::Document;
use crate::time::Timestamp;

words! {
    /// Who judges.
    pub enum EvaluationMethod ("method of an evaluation") {
        Automatic = "automatic",
        Human = "human",
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    pub model: ModelId,
    pub owner: Option<PrincipalId>,
    pub name: String,
    pub method: EvaluationMethod,
    pub test_set: Option<DatasetVersionId>,
    pub metrics: Document,
    pub thresholds: Document,
    /// `sha256:` over test set, metrics and thresholds: what evidence has to name.
    pub policy_digest: String,
    pub settings: Document,
}

/// A prompt, once and for all: another text is another version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromptVersion {
    pub model: ModelId,
    pub author: Option<PrincipalId>,
    pub name: String,
    pub number: i64,
    pub digest: String,
    pub template: String,
    pub sampling: Document,
    pub note: String,
}

/// One execution of an evaluation. Its inputs and outputs are [`EvaluationSample`](crate::store::EvaluationSample)s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluationRun {
    pub evaluation: EvaluationId,
    pub model_version: ModelVersionId,
    pub task: Option<TaskId>,
    pub author: Option<PrincipalId>,
    pub status: RunStatus,
    pub artifact_digest: String,
    pub test_set: DatasetVersionId,
    pub policy_digest: String,
    /// The live version that it was compared with.
    pub baseline_version: Option<ModelVersionId>,
    /// What is asked and how it is measured, copied from the evaluation when the run was asked for.
    pub plan: Document,
    pub samples: i64,
    pub scores: Document,
    pub verdict: Option<Verdict>,
    pub report: Document,
    pub withdrawn_at: Option<Timestamp>,
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}
