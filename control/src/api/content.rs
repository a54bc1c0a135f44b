//! Content over HTTP: what its errors are to a client, and where handlers find it.

use http::StatusCode;

use super::call::Desk;
use super::problem::Problem;
use crate::artifacts::ArtifactError;
use crate::control::Open;
use crate::store::StorageFault;
use crate::tasks::TaskError;

impl Desk {
    /// Content and the queue of tasks, which writes as the request does.
    pub(super) fn open(&self) -> Result<Open, Problem> {
        // There is a store, so there is all of it.
        let open = self
            .control
            .open()
            .ok_or_else(|| Problem::unavailable("the control plane is being opened"))?;
        Ok(Open {
            store: self.store.clone(),
            artifacts: open.artifacts.clone(),
            queue: open.queue.with_store(self.store.clone()),
        })
    }
}

impl From<ArtifactError> for Problem {
    fn from(error: ArtifactError) -> Self {
        let text = error.to_string();
        match error {
            ArtifactError::Store(error) => error.into(),
            ArtifactError::Path(_) => Self::field("path", text),
            ArtifactError::Entry { .. } | ArtifactError::Empty => Self::field("files", text),
            ArtifactError::OtherDigest { .. } => Self::field("digest", text),
            ArtifactError::OtherSize { .. } => Self::field("bytes", text),
            ArtifactError::Invalid { field, problem } => Self::field(field, problem),
            ArtifactError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
            }
            ArtifactError::Incomplete(_) => Self::conflict("incomplete", text),
            ArtifactError::NotOpen { .. } => Self::conflict("not_open", text),
            ArtifactError::Collected { .. } => Self::conflict("collected", text),
            ArtifactError::Forbidden(_) => Self::forbidden(text),
            ArtifactError::Interrupted(_) => Self::bad_request(text),
            ArtifactError::Source { .. } => Self::new(StatusCode::BAD_GATEWAY, "bad_source", text),
            ArtifactError::NoSpace => Self::content(StorageFault::Full, text),
            ArtifactError::Io(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                Self::content(StorageFault::ReadOnly, text)
            }
            ArtifactError::Storage(source) => {
                tracing::error!(error = %source, "the object store failed");
                // What it said may name hosts and paths; that stays in the log.
                Self::unavailable("the object store does not answer as it should")
            }
            ArtifactError::Io(_) | ArtifactError::Damaged(_) | ArtifactError::Missing(_) => {
                tracing::error!(error = text, "content cannot be given or taken");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
        }
    }
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Store(error) => error.into(),
            error @ TaskError::OtherParams { .. } => {
                Self::field("idempotency_key", error.to_string())
            }
            error @ TaskError::Fenced { .. } => Self::conflict("fenced", error.to_string()),
        }
    }
}
