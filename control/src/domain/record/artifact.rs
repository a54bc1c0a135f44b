//! Content: sets of files by digest, and files on their way in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::upload::UploadState;
use crate::domain::words::words;
use crate::id::{DepartmentId, PrincipalId};
use crate::store::Document;
use crate::time::Timestamp;

words! {
    /// What an artifact is for.
    pub enum ArtifactKind ("kind of artifact") {
        /// What training left: safetensors, a TorchScript file, a SavedModel.
        Checkpoint = "checkpoint",
        /// A folder that the engine can load.
        Model = "model",
        Dataset = "dataset",
        Report = "report",
    }
}

/// A set of named files. Never edited: other content is another artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    pub department: DepartmentId,
    /// Who brought it; `null` for what the system made.
    #[serde(default)]
    pub owner: Option<PrincipalId>,
    pub kind: ArtifactKind,
    pub name: String,
    /// `sha256:` over the sorted list of paths and their digests.
    pub digest: String,
    pub bytes: i64,
    pub files: i64,
    /// Where it was imported from.
    pub source: Option<String>,
}

/// One file on its way in, in parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Upload {
    pub department: DepartmentId,
    pub principal: Option<PrincipalId>,
    pub path: String,
    pub state: UploadState,
    pub expected_digest: Option<String>,
    pub expected_bytes: Option<i64>,
    pub received_bytes: i64,
    /// What the object store needs to go on after a restart.
    #[serde(skip_serializing, default)]
    #[schemars(skip)]
    pub backend_state: Option<Document>,
    /// The digest of the finished blob.
    pub blob: Option<String>,
    pub expires_at: Timestamp,
}
