//! Which bytes are there, and which nobody needs any more.
//!
//! A blob's row goes through these states; every step is one transaction, and the row's lock is what an upload and
//! the sweep meet at:
//!
//! - *on its way*: `stored_at` is null. The bytes may or may not be there; nothing refers to it.
//! - *stored*: `stored_at` is set, only after the bytes were all there.
//! - *condemned*: `condemned_at` is set, since nothing had referred to it for a while. Any use clears it.
//! - gone: first `stored_at` is cleared, then, in another transaction that holds the row's lock and looks once more
//!   whether anybody needs it, the bytes and the row go. A crash between leaves a row that is *on its way*.

use super::column::{Column, arguments, read};
use super::{Actor, Store, StoreError, Tx};
use crate::domain::record::Artifact;
use crate::id::ArtifactId;
use crate::time::Timestamp;

/// What [`Tx::touch_blob`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// The bytes are there.
    pub stored: bool,
    /// When the row was made. A row that was collected and made again is another one: bytes that were put for the first are no
    /// longer sure to be there.
    pub row: Timestamp,
}

/// True of a blob's row if nothing needs it.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM artifact_files WHERE artifact_files.blob = blobs.digest) \
     AND NOT EXISTS (SELECT 1 FROM artifacts WHERE artifacts.digest = blobs.digest AND artifacts.deleted_at IS NULL) \
     AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.blob = blobs.digest)";

impl Tx {
    /// Says that somebody wants the bytes with this digest to be there. If they are not, they are to be brought, and
    /// [`blob_stored`](Self::blob_stored) said after.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn touch_blob(&mut self, digest: &str, bytes: i64) -> Result<Touched, StoreError> {
        let now = self.now().to_value();
        let row = sqlx::query_with(
            "INSERT INTO blobs (digest, bytes, created_at, stored_at, touched_at, condemned_at) \
             VALUES ($1, $2, $3, NULL, $3, NULL) ON CONFLICT (digest) \
             DO UPDATE SET touched_at = excluded.touched_at, condemned_at = NULL RETURNING stored_at, created_at",
            arguments([digest.to_owned().to_value(), bytes.to_value(), now])?,
        )
        .fetch_one(self.connection())
        .await?;
        Ok(Touched {
            stored: read::<Option<Timestamp>>(&row, "stored_at")?.is_some(),
            row: read(&row, "created_at")?,
        })
    }

    /// Says that the bytes have all arrived for a row that was touched. False if that was collected meanwhile, also if
    /// somebody has made another since: then it is to be touched again.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn blob_stored(
        &mut self,
        digest: &str,
        touched: Touched,
    ) -> Result<bool, StoreError> {
        let values = arguments([
            self.now().to_value(),
            digest.to_owned().to_value(),
            touched.row.to_value(),
        ])?;
        let done = sqlx::query_with(
            "UPDATE blobs SET stored_at = $1, touched_at = $1, condemned_at = NULL WHERE digest = $2 AND created_at = $3",
            values,
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Says that the bytes turned out not to be there: the next who brings them stores them again.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn blob_lost(&mut self, digest: &str) -> Result<bool, StoreError> {
        self.on_blob(
            "UPDATE blobs SET stored_at = NULL, touched_at = $1 WHERE digest = $2",
            digest,
        )
        .await
    }

    /// Locks a stored blob against the sweep until the transaction ends. False if it is not stored.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn keep_blob(&mut self, digest: &str) -> Result<bool, StoreError> {
        self.on_blob(
            "UPDATE blobs SET touched_at = $1, condemned_at = NULL WHERE digest = $2 AND stored_at IS NOT NULL",
            digest,
        )
        .await
    }

    /// One statement on one blob's row, with the transaction's instant as `$1` and the digest as `$2`.
    async fn on_blob(&mut self, sql: &'static str, digest: &str) -> Result<bool, StoreError> {
        let values = arguments([self.now().to_value(), digest.to_owned().to_value()])?;
        let done = sqlx::query_with(sql, values)
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Condemns a blob that nobody touched since `before`. One at a time: a statement that locked many rows could wait
    /// in a circle with a registration that locks some of them.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn condemn_blob(
        &mut self,
        digest: &str,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let values = arguments([
            self.now().to_value(),
            digest.to_owned().to_value(),
            before.to_value(),
        ])?;
        let done = sqlx::query_with(
            "UPDATE blobs SET condemned_at = $1 WHERE digest = $2 AND condemned_at IS NULL AND touched_at <= $3",
            values,
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes a condemned blob out of use, if it was condemned before `before` and is still unused. Nobody
    /// counts on its bytes after that, so that they may go.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn withdraw_blob(
        &mut self,
        digest: &str,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        if !self.lock_condemned(digest, before).await? {
            return Ok(false);
        }
        self.on_blob(
            "UPDATE blobs SET stored_at = NULL WHERE digest = $2 AND condemned_at <= $1",
            digest,
        )
        .await
    }

    /// Deletes the row of a blob that was withdrawn and not brought back since. True: the caller holds the
    /// row's lock until the transaction ends, and deletes the bytes before it commits.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn delete_blob(
        &mut self,
        digest: &str,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        if !self.lock_condemned(digest, before).await? {
            return Ok(false);
        }
        let done = sqlx::query_with(
            "DELETE FROM blobs WHERE digest = $1 AND stored_at IS NULL",
            arguments([digest.to_owned().to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The lock first and the look second: PostgreSQL shows a statement what was committed before it began, so that
    /// looking while waiting for the lock would not see a use that the holder of the lock had just added.
    async fn lock_condemned(
        &mut self,
        digest: &str,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let locked = sqlx::query_with(
            "UPDATE blobs SET condemned_at = condemned_at WHERE digest = $1 AND condemned_at <= $2",
            arguments([digest.to_owned().to_value(), before.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        if locked.rows_affected() == 0 {
            return Ok(false);
        }
        let sql = format!("SELECT digest FROM blobs WHERE digest = $1 AND {UNUSED}");
        // Safe: the condition is a constant of the program.
        let unused = sqlx::query_with(
            sqlx::AssertSqlSafe(sql),
            arguments([digest.to_owned().to_value()])?,
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(unused.is_some())
    }

    /// Puts an artifact away if no record refers to it and nobody used it since `before`. Its blobs are
    /// unused then.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn put_away_unused(
        &mut self,
        actor: &Actor,
        artifact: ArtifactId,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let locked = sqlx::query_with(
            "UPDATE artifacts SET updated_at = updated_at WHERE id = $1 AND updated_at <= $2 AND deleted_at IS NULL",
            arguments([artifact.to_value(), before.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        if locked.rows_affected() == 0 {
            return Ok(false);
        }
        let needed = sqlx::query_with(
            "SELECT 1 AS needed FROM artifact_references WHERE artifact = $1 LIMIT 1",
            arguments([artifact.to_value()])?,
        )
        .fetch_optional(self.connection())
        .await?;
        if needed.is_some() {
            return Ok(false);
        }
        self.delete::<Artifact>(actor, artifact, None).await?;
        Ok(true)
    }
}

impl Store {
    /// Blobs that nothing needs and nobody touched since `before`, after `after` by digest, `limit` at most.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn unused_blobs(
        &self,
        before: Timestamp,
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "SELECT digest FROM blobs WHERE condemned_at IS NULL AND touched_at <= $1 AND digest > $2 AND {UNUSED} \
             ORDER BY digest LIMIT $3"
        );
        let values = arguments([
            before.to_value(),
            after.to_owned().to_value(),
            limit.to_value(),
        ])?;
        // Safe: the condition is a constant of the program.
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), values)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(|row| read(row, "digest")).collect()
    }

    /// Blobs that were condemned before `before`, after `after` by digest, `limit` at most.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn condemned_blobs(
        &self,
        before: Timestamp,
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT digest FROM blobs WHERE condemned_at <= $1 AND digest > $2 ORDER BY digest LIMIT $3",
            arguments([before.to_value(), after.to_owned().to_value(), limit.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(|row| read(row, "digest")).collect()
    }

    /// Artifacts that no record refers to and nobody used since `before`, oldest first, `limit` at most.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn unused_artifacts(
        &self,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<ArtifactId>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT id FROM artifacts WHERE deleted_at IS NULL AND updated_at <= $1 AND NOT EXISTS \
             (SELECT 1 FROM artifact_references WHERE artifact_references.artifact = artifacts.id) ORDER BY id LIMIT $2",
            arguments([before.to_value(), limit.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(|row| read(row, "id")).collect()
    }

    /// Forgets the files of artifacts that were put away before `before`, so that they need no blobs.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn forget_files(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query_with(
            "DELETE FROM artifact_files WHERE artifact IN (SELECT id FROM artifacts WHERE deleted_at <= $1)",
            arguments([before.to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    /// Whether the store says that the bytes with this digest are there.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn has_blob(&self, digest: &str) -> Result<bool, StoreError> {
        let row = sqlx::query_with(
            "SELECT digest FROM blobs WHERE digest = $1 AND stored_at IS NOT NULL",
            arguments([digest.to_owned().to_value()])?,
        )
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        Ok(row.is_some())
    }
}
