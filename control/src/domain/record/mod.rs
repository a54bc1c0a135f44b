//! The records themselves, as values. What each holds follows `docs/ARCHITECTURE.md`; how it lies in
//! the database is said in `store/`. Ids, versions and instants come with [`Stored`](crate::store::Stored).

mod access;
mod artifact;
mod dataset;
mod deployment;
mod evaluation;
mod model;
mod quota;
mod release_pair;
mod run;
mod task;

pub use access::{Access, ApiKey, Department, Grant, Principal, Scope};
pub use artifact::{Artifact, ArtifactKind, Upload};
pub use dataset::{Dataset, DatasetVersion, Modality};
pub use deployment::{
    DecisionKind, Deployment, ReleaseDecision, StepStatus, WorkOrder, WorkOrderStep,
};
pub use evaluation::{Evaluation, EvaluationMethod, EvaluationRun, PromptVersion};
pub use model::{Model, ModelVersion};
pub use quota::Quota;
pub use release_pair::{PairAnswer, ReleasePair};
pub use run::{ConversionRun, Training, TrainingRun};
pub use task::Task;
