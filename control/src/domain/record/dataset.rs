//! Data, as far as lineage needs it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::secrecy::Secrecy;
use crate::domain::words::words;
use crate::id::{ArtifactId, DatasetId, DatasetVersionId, DepartmentId, PrincipalId};
use crate::store::Document;

words! {
    /// What the rows are.
    pub enum Modality ("modality") {
        Text = "text",
        Image = "image",
        Audio = "audio",
        Video = "video",
        Table = "table",
    }
}

/// A named body of data; its rows are in versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dataset {
    pub department: DepartmentId,
    pub owner: Option<PrincipalId>,
    pub name: String,
    pub description: String,
    pub source: String,
    pub modality: Modality,
    pub secrecy: Secrecy,
}

/// The rows, once and for all: only the note can be edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetVersion {
    pub dataset: DatasetId,
    pub number: i64,
    pub author: Option<PrincipalId>,
    pub artifact: Option<ArtifactId>,
    pub digest: String,
    pub row_count: i64,
    pub bytes: i64,
    pub schema_json: Document,
    pub statistics: Document,
    /// The version that it was made from.
    pub parent: Option<DatasetVersionId>,
    pub note: String,
}
