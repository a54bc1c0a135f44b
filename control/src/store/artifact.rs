//! Artifacts, their files, and who needs them. The bytes themselves are no business of the database.

use sqlx::any::AnyRow;

use super::column::{Column, Value, arguments, read};
use super::record::{columns, get, not_found};
use super::{Actor, Store, StoreError, Stored, Tx, mapped, stateful};
use crate::domain::record::{Artifact, Upload};
use crate::domain::upload::UploadState;
use crate::id::{ArtifactId, Id, UploadId};

mapped! {
    Artifact(ArtifactId) in "artifacts":
    fixed [department, owner, kind, digest, bytes, files, source],
    editable [name]
}
mapped! {
    Upload(UploadId) in "uploads":
    fixed [department, principal, path, state, expected_digest, expected_bytes],
    editable [received_bytes, backend_state, blob, expires_at]
}
stateful! { Upload: UploadState as state }

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ArtifactFile {
    pub path: String,
    /// The digest of its bytes.
    pub blob: String,
    pub bytes: i64,
}

/// Who needs an artifact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Reference {
    pub owner_kind: String,
    pub owner_id: String,
}

impl ArtifactFile {
    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            path: read(row, "path")?,
            blob: read(row, "blob")?,
            bytes: read(row, "bytes")?,
        })
    }
}

impl Tx {
    /// Registers an artifact with its files, whose blobs are there, as is the one of its list of files. The same
    /// content of the same owner is the same artifact: that one is returned then, and stays longer. Another owner's is
    /// another, over the same blobs: what becomes of that one, a part of a secret dataset perhaps, is not this one's.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if a blob is not there, [`StoreError::Conflict`] if a path comes twice.
    pub async fn register_artifact(
        &mut self,
        actor: &Actor,
        artifact: Artifact,
        files: &[ArtifactFile],
    ) -> Result<Stored<Artifact>, StoreError> {
        // The department's row is the lock: two that register the same content at once come one after the other.
        self.lock("departments", artifact.department.to_value())
            .await?;
        if let Some(same) = self.same_artifact(&artifact).await? {
            match self.lock_artifact(same.id).await {
                Ok(()) => return Ok(same),
                // Deleted since it was read: it is made anew.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut blobs: Vec<&str> = files.iter().map(|file| file.blob.as_str()).collect();
        blobs.push(&artifact.digest);
        // In one order, so that two that share blobs do not wait for each other in a circle.
        blobs.sort_unstable();
        blobs.dedup();
        for blob in blobs {
            if !self.keep_blob(blob).await? {
                return Err(StoreError::Reference);
            }
        }
        let stored = self.create(actor, artifact).await?;
        for file in files {
            sqlx::query_with(
                "INSERT INTO artifact_files (artifact, path, blob, bytes) VALUES ($1, $2, $3, $4)",
                arguments([
                    stored.id.to_value(),
                    file.path.to_value(),
                    file.blob.to_value(),
                    file.bytes.to_value(),
                ])?,
            )
            .execute(self.connection())
            .await?;
        }
        Ok(stored)
    }

    async fn same_artifact(
        &mut self,
        artifact: &Artifact,
    ) -> Result<Option<Stored<Artifact>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM artifacts WHERE department = $1 AND kind = $2 AND digest = $3 \
             AND COALESCE(owner, '') = $4 AND deleted_at IS NULL",
            columns::<Artifact>()
        );
        let owner = artifact.owner.map(|it| it.to_string());
        let owner = owner.unwrap_or_default();
        let values = arguments([
            artifact.department.to_value(),
            artifact.kind.to_value(),
            artifact.digest.to_value(),
            owner.to_value(),
        ])?;
        // Safe: the columns are constants of the program.
        let row = sqlx::query_with(sqlx::AssertSqlSafe(sql), values)
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(Stored::from_row).transpose()
    }

    /// Says that `owner` needs `artifact`, which then is not collected. Saying it twice is no error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn hold_artifact<I: Id>(
        &mut self,
        artifact: ArtifactId,
        owner: I,
    ) -> Result<(), StoreError> {
        self.lock_artifact(artifact).await?;
        let now = self.now().to_value();
        sqlx::query_with(
            "INSERT INTO artifact_references (artifact, owner_kind, owner_id, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (artifact, owner_kind, owner_id) DO NOTHING",
            arguments([
                artifact.to_value(),
                Value::Text(Some(I::KIND.to_owned())),
                Value::Text(Some(owner.to_string())),
                now,
            ])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Takes the lock of an artifact's row, which also counts as a use: the sweep locks it before it looks
    /// whether anybody needs it.
    async fn lock_artifact(&mut self, artifact: ArtifactId) -> Result<(), StoreError> {
        let now = self.now().to_value();
        let done = sqlx::query_with(
            "UPDATE artifacts SET updated_at = $1 WHERE id = $2 AND deleted_at IS NULL",
            arguments([now, artifact.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Err(not_found::<Artifact>(artifact));
        }
        Ok(())
    }

    /// Takes back what [`hold_artifact`](Self::hold_artifact) said, for all artifacts of `owner`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn release_artifacts<I: Id>(&mut self, owner: I) -> Result<(), StoreError> {
        sqlx::query_with(
            "DELETE FROM artifact_references WHERE owner_kind = $1 AND owner_id = $2",
            arguments([
                Value::Text(Some(I::KIND.to_owned())),
                Value::Text(Some(owner.to_string())),
            ])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The files of an artifact, by path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn artifact_files(
        &self,
        artifact: ArtifactId,
    ) -> Result<Vec<ArtifactFile>, StoreError> {
        let mut reader = self.reader().await?;
        get::<Artifact>(&mut reader, artifact).await?;
        let rows = sqlx::query_with(
            "SELECT path, blob, bytes FROM artifact_files WHERE artifact = $1 ORDER BY path",
            arguments([artifact.to_value()])?,
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(ArtifactFile::from_row).collect()
    }

    /// One file of an artifact, if it has it.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn artifact_file(
        &self,
        artifact: ArtifactId,
        path: &str,
    ) -> Result<Option<ArtifactFile>, StoreError> {
        let row = sqlx::query_with(
            "SELECT path, blob, bytes FROM artifact_files WHERE artifact = $1 AND path = $2",
            arguments([artifact.to_value(), path.to_owned().to_value()])?,
        )
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.as_ref().map(ArtifactFile::from_row).transpose()
    }

    /// Who needs an artifact.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn artifact_references(
        &self,
        artifact: ArtifactId,
    ) -> Result<Vec<Reference>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT owner_kind, owner_id FROM artifact_references WHERE artifact = $1 ORDER BY owner_kind, owner_id",
            arguments([artifact.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Reference {
                    owner_kind: read(row, "owner_kind")?,
                    owner_id: read(row, "owner_id")?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
