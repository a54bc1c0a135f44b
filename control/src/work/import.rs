//! The task kind that brings an artifact in from elsewhere.

use serde::{Deserialize, Serialize};

use super::failed;
use crate::artifacts::{Artifacts, Import, NewArtifact, Progress};
use crate::domain::record::ArtifactKind;
use crate::id::ArtifactId;
use crate::tasks::{Task, TaskContext, TaskFailure};

/// Imports artifacts. Params: [`ImportParams`].
#[derive(Debug, Clone)]
pub struct ImportArtifact(pub Artifacts);

/// What to import, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportParams {
    /// A URL, `s3://…`, `hdfs://…`, `webhdfs://…`, or an absolute path of the worker's machine.
    pub from: String,
    pub name: String,
    pub kind: ArtifactKind,
    /// Whether an archive is taken apart.
    #[serde(default)]
    pub unpack: bool,
    /// What a single file is called, if not as where it comes from.
    #[serde(default)]
    pub file_name: Option<String>,
}

/// What an import or a conversion has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub artifact: ArtifactId,
    pub digest: String,
    pub files: i64,
    pub bytes: i64,
}

impl Task for ImportArtifact {
    const NAME: &'static str = "import";
    type Params = ImportParams;
    type Output = Made;

    async fn run(&self, params: ImportParams, context: &TaskContext) -> Result<Made, TaskFailure> {
        let owner = context.owner().await?;
        let import = Import {
            from: params.from.parse().map_err(failed)?,
            unpack: params.unpack,
            file_name: params.file_name,
            artifact: NewArtifact {
                department: owner.department,
                kind: params.kind,
                name: params.name,
                source: None,
            },
        };
        let progress = |progress: Progress| tell(context, &progress);
        let imported = tokio::select! {
            imported = self.0.import(&owner.actor, import, &progress) => imported.map_err(failed)?,
            // What was taken so far is swept.
            _ = context.stopped() => return Err(TaskFailure::passing("stopped", "the import was stopped")),
        };
        Ok(Made {
            artifact: imported.id,
            digest: imported.record.digest,
            files: imported.record.files,
            bytes: imported.record.bytes,
        })
    }
}

/// How far it is: by bytes where the source said how many there are.
fn tell(context: &TaskContext, progress: &Progress) {
    let fraction = match progress.of_bytes {
        Some(all) if all > 0 => progress.bytes as f64 / all as f64,
        _ => 0.0,
    };
    let mib = progress.bytes as f64 / f64::from(1 << 20);
    context.progress(fraction, format!("{} ({mib:.0} MiB)", progress.path));
}
