//! Models and their versions: what every other record is strung on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::model_version::ModelVersionState;
use crate::id::{
    ArtifactId, ConversionRunId, DepartmentId, EvaluationRunId, ModelId, PrincipalId, TrainingRunId,
};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    pub department: DepartmentId,
    pub owner: Option<PrincipalId>,
    pub name: String,
    pub description: String,
    pub train_framework: String,
    pub inference_framework: String,
    pub code_url: Option<String>,
    pub dashboard_url: Option<String>,
}

/// One artifact set with its lineage. The dataset versions of the lineage lie in a table of their own:
/// see `Tx::link_dataset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelVersion {
    pub model: ModelId,
    /// 1, 2, … within the model.
    pub number: i64,
    pub author: Option<PrincipalId>,
    pub state: ModelVersionState,
    pub artifact: Option<ArtifactId>,
    pub digest: Option<String>,
    pub training_run: Option<TrainingRunId>,
    pub conversion_run: Option<ConversionRunId>,
    /// The run that the approval rests on.
    pub evidence: Option<EvaluationRunId>,
    pub approver: Option<PrincipalId>,
    pub approved_at: Option<Timestamp>,
    pub note: String,
}
