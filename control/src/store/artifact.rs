//! Artifacts, their files, and who needs them. The bytes themselves are no business of the database.

use sqlx::any::AnyRow;

use super::column::{Column, Value, arguments, read};
use super::record::{columns, get};
use super::{Actor, Store, StoreError, Stored, Tx, mapped, stateful};
use crate::domain::record::{Artifact, ArtifactKind, Upload};
use crate::domain::upload::UploadState;
use crate::id::{ArtifactId, DepartmentId, Id, UploadId};

mapped! {
    Artifact(ArtifactId) in "artifacts":
    fixed [department, kind, digest, bytes, files, source],
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
    /// Says that the bytes with this digest are in the store, or were looked at again just now: an
    /// unused blob is collected only some time after.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn touch_blob(&mut self, digest: &str, bytes: i64) -> Result<(), StoreError> {
        let now = self.now().to_value();
        sqlx::query_with(
            "INSERT INTO blobs (digest, bytes, created_at, touched_at, condemned_at) VALUES ($1, $2, $3, $3, NULL) \
             ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at, condemned_at = NULL",
            arguments([digest.to_owned().to_value(), bytes.to_value(), now])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Registers an artifact with its files, whose blobs are there. The same content in the same
    /// department is the same artifact: that one is returned then, and nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if a blob is unknown, [`StoreError::Conflict`] if a path comes twice.
    pub async fn register_artifact(
        &mut self,
        actor: &Actor,
        artifact: Artifact,
        files: &[ArtifactFile],
    ) -> Result<Stored<Artifact>, StoreError> {
        // The department's row is the lock: two that register the same content at once come one after the other.
        self.lock("departments", artifact.department.to_value())
            .await?;
        if let Some(same) = self
            .artifact_by_digest(artifact.department, artifact.kind, &artifact.digest)
            .await?
        {
            return Ok(same);
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

    async fn artifact_by_digest(
        &mut self,
        department: DepartmentId,
        kind: ArtifactKind,
        digest: &str,
    ) -> Result<Option<Stored<Artifact>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM artifacts WHERE department = $1 AND kind = $2 AND digest = $3 AND deleted_at IS NULL",
            columns::<Artifact>()
        );
        let values = arguments([
            department.to_value(),
            kind.to_value(),
            digest.to_owned().to_value(),
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
    /// [`StoreError::Reference`] if there is no such artifact.
    pub async fn hold_artifact<I: Id>(
        &mut self,
        artifact: ArtifactId,
        owner: I,
    ) -> Result<(), StoreError> {
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
