//! The parts of uploads. They come by the thousand, so they are no records with versions and audit rows: the
//! upload's row is their lock.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::column::{Column, arguments, read};
use super::{Store, StoreError, Tx};
use crate::domain::upload::UploadState;
use crate::id::{DepartmentId, UploadId};
use crate::time::Timestamp;

/// A part that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct UploadPart {
    /// Counted from 0.
    pub part: i64,
    pub start_byte: i64,
    pub bytes: i64,
    pub digest: String,
}

impl UploadPart {
    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            part: read(row, "part")?,
            start_byte: read(row, "start_byte")?,
            bytes: read(row, "bytes")?,
            digest: read(row, "digest")?,
        })
    }
}

impl Tx {
    /// Writes down a part in place of what had that number before, and puts the upload's end of patience off to
    /// `expires_at`. False if the upload takes no parts any more.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn put_upload_part(
        &mut self,
        upload: UploadId,
        part: &UploadPart,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let now = self.now().to_value();
        let locked = sqlx::query_with(
            "UPDATE uploads SET expires_at = $1, updated_at = $2 WHERE id = $3 AND state = $4 AND deleted_at IS NULL",
            arguments([
                expires_at.to_value(),
                now.clone(),
                upload.to_value(),
                UploadState::Open.to_value(),
            ])?,
        )
        .execute(self.connection())
        .await?;
        if locked.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query_with(
            "INSERT INTO upload_parts (upload, part, start_byte, bytes, digest, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (upload, part) DO UPDATE SET \
             start_byte = excluded.start_byte, bytes = excluded.bytes, digest = excluded.digest, \
             created_at = excluded.created_at",
            arguments([
                upload.to_value(),
                part.part.to_value(),
                part.start_byte.to_value(),
                part.bytes.to_value(),
                part.digest.to_value(),
                now,
            ])?,
        )
        .execute(self.connection())
        .await?;
        sqlx::query_with(
            "UPDATE uploads SET received_bytes = \
             (SELECT CAST(SUM(bytes) AS BIGINT) FROM upload_parts WHERE upload = $1) WHERE id = $1",
            arguments([upload.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(true)
    }

    /// The parts of an upload that have arrived, in order.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn upload_parts(&mut self, upload: UploadId) -> Result<Vec<UploadPart>, StoreError> {
        parts(self.connection(), upload).await
    }

    /// Forgets the parts of an upload whose story is over.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn forget_upload_parts(&mut self, upload: UploadId) -> Result<(), StoreError> {
        sqlx::query_with(
            "DELETE FROM upload_parts WHERE upload = $1",
            arguments([upload.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// How many uploads a department has open. Its row is locked, so that the count holds until the end of the
    /// transaction.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn open_uploads(&mut self, department: DepartmentId) -> Result<i64, StoreError> {
        self.lock("departments", department.to_value()).await?;
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS open FROM uploads WHERE department = $1 AND state IN ($2, $3) AND deleted_at IS NULL",
            arguments([
                department.to_value(),
                UploadState::Open.to_value(),
                UploadState::Completing.to_value(),
            ])?,
        )
        .fetch_one(self.connection())
        .await?;
        read(&row, "open")
    }
}

async fn parts(
    connection: &mut AnyConnection,
    upload: UploadId,
) -> Result<Vec<UploadPart>, StoreError> {
    let rows = sqlx::query_with(
        "SELECT part, start_byte, bytes, digest FROM upload_parts WHERE upload = $1 ORDER BY part",
        arguments([upload.to_value()])?,
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(UploadPart::from_row).collect()
}

impl Store {
    /// The parts of an upload that have arrived, in order.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn upload_parts(&self, upload: UploadId) -> Result<Vec<UploadPart>, StoreError> {
        parts(&mut *self.reader().await?, upload).await
    }

    /// Uploads whose patience ended before `before` and that are in one of two states, `limit` at most.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn overdue_uploads(
        &self,
        before: Timestamp,
        states: [UploadState; 2],
        limit: i64,
    ) -> Result<Vec<UploadId>, StoreError> {
        let [one, other] = states;
        let rows = sqlx::query_with(
            "SELECT id FROM uploads WHERE expires_at <= $1 AND state IN ($2, $3) AND deleted_at IS NULL \
             ORDER BY id LIMIT $4",
            arguments([
                before.to_value(),
                one.to_value(),
                other.to_value(),
                limit.to_value(),
            ])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(|row| read(row, "id")).collect()
    }

    /// Lets go of the blobs of completed uploads whose patience ended before `before`: an artifact was made of
    /// them by then, or never.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn let_go_of_uploads(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query_with(
            "UPDATE uploads SET blob = NULL, version = version + 1, updated_at = $1, deleted_at = $1 \
             WHERE state = $2 AND expires_at <= $3 AND deleted_at IS NULL",
            arguments([
                tx.now().to_value(),
                UploadState::Completed.to_value(),
                before.to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}
