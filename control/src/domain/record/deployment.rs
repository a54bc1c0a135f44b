//! What is served, and each change to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::gate::Requirement;
use crate::domain::secrecy::Secrecy;
use crate::domain::words::words;
use crate::domain::work_order::WorkOrderState;
use crate::id::{DepartmentId, DeploymentId, ModelId, ModelVersionId, PrincipalId, WorkOrderId};
use crate::store::{Document, Json};
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    pub department: DepartmentId,
    pub owner: Option<PrincipalId>,
    pub model: ModelId,
    /// What requests give as their model.
    pub endpoint: String,
    /// How secret the data behind a version may be that is served here.
    pub clearance: Secrecy,
    /// Thousandths of a core, for each replica.
    pub cpu_millis: i64,
    pub gpus: i64,
    pub memory_bytes: i64,
    pub zone: Option<String>,
    pub replicas: i64,
    pub engine_options: Document,
    pub strategy: Document,
    /// What an approver may override here, by name.
    pub gate_policy: Json<Vec<Requirement>>,
    /// All departments may use it, given the clearance.
    pub open_to_all: bool,
    /// It may stand in for a deployment of the same name in the configuration; only an administrator says so.
    pub adopted: bool,
    /// What traffic reaches now.
    pub live_version: Option<ModelVersionId>,
    pub live_digest: Option<String>,
    pub live_work_order: Option<WorkOrderId>,
}

/// One change of what a deployment serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkOrder {
    pub deployment: DeploymentId,
    pub candidate: ModelVersionId,
    pub candidate_digest: String,
    /// What was live when the order was made.
    pub previous: Option<ModelVersionId>,
    pub author: Option<PrincipalId>,
    pub approver: Option<PrincipalId>,
    pub state: WorkOrderState,
    /// The canary step that it stands at; 0 before the first.
    pub step: u32,
    /// The deployment's settings as they were then.
    pub snapshot: Document,
    /// What the gate saw when it let the candidate through.
    pub evidence: Option<Document>,
    pub override_reason: Option<String>,
    pub reason: String,
    /// Where its release stands; `null` where all traffic is switched at once.
    pub release_state: Option<Document>,
    /// The order whose revision this one brings back.
    pub restores: Option<WorkOrderId>,
    /// The order whose revision was live before.
    pub replaced: Option<WorkOrderId>,
    pub ended_because: Option<String>,
    /// Set with every final state: it frees the deployment for the next order.
    pub finished_at: Option<Timestamp>,
}

words! {
    /// How a step of a work order goes.
    pub enum StepStatus ("status of a step") {
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Skipped = "skipped",
    }
}

impl WorkOrder {
    /// The order that made the revision: its own, or the one that is brought back.
    pub fn origin(&self, id: WorkOrderId) -> WorkOrderId {
        self.restores.unwrap_or(id)
    }
}

words! {
    /// What a line of a release's history is about.
    pub enum DecisionKind ("kind of a decision") {
        /// The planner's.
        Action = "action",
        /// A person's.
        Command = "command",
        /// A person asked, and was refused.
        Refused = "refused",
        /// Something worth knowing that changed nothing.
        Note = "note",
    }
}

/// One decision about a release, with what it was made on. Never edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseDecision {
    #[serde(rename = "release")]
    pub work_order: WorkOrderId,
    /// When it was decided, which is before it was written where the database did not answer then.
    pub at: Timestamp,
    pub actor: String,
    pub kind: DecisionKind,
    pub action: Option<Document>,
    pub reason: Option<String>,
    /// The release after it.
    pub state: Document,
    /// What was known of the candidate.
    pub evidence: Option<Document>,
}

/// Something that was done for a work order, by whom, and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkOrderStep {
    pub work_order: WorkOrderId,
    pub name: String,
    pub status: StepStatus,
    pub actor: String,
    pub detail: Document,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}
