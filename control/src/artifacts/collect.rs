//! Taking away what nobody needs: overdue uploads, unused artifacts and unused blobs. Any number of processes may
//! do this at once, at any time; see the module above for what keeps it safe.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use opendal::ErrorKind;

use super::blobs::blob_path;
use super::upload::upload_folder;
use super::{ArtifactError, Artifacts, Digest};
use crate::domain::machine::Machine as _;
use crate::domain::record::Upload;
use crate::domain::upload::{UploadEvent, UploadState};
use crate::id::UploadId;
use crate::store::{Actor, StoreError};
use crate::time::Timestamp;

/// Rows that are looked at in one go.
const BATCH: i64 = 500;
/// The bytes of one blob are deleted while its row is locked, which holds up others: not for longer than this.
const DELETE_PATIENCE: Duration = Duration::from_secs(3);
/// What lies in the spool and was not written to for so long belongs to a process that died.
const SPOOL_AGE: Duration = Duration::from_secs(24 * 3600);

/// What one sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    pub expired_uploads: u64,
    pub artifacts: u64,
    /// Unused blobs that go after another grace period.
    pub condemned_blobs: u64,
    pub deleted_blobs: u64,
    pub spooled_files: u64,
}

impl Artifacts {
    /// Takes away what was not needed for the grace periods of the settings.
    ///
    /// # Errors
    /// The first that it met; what was done until then stays done, and the next sweep goes on.
    pub async fn collect(&self) -> Result<Collected, ArtifactError> {
        let now = Timestamp::now();
        let store = &self.0.store;
        let settings = &self.0.settings.collection;
        let grace = now.before(settings.blob_grace());
        let actor = Actor::system("collection");

        let expired_uploads = self.expire_uploads(&actor, now).await?;
        store.let_go_of_uploads(now).await?;
        self.discard_finished_uploads().await?;
        let artifacts = self
            .put_away_artifacts(&actor, now.before(settings.artifact_grace()))
            .await?;
        store.forget_files(grace).await?;
        // Those condemned by an earlier sweep before those of this one: with a grace period of zero too, each
        // blob is seen by two sweeps.
        let deleted_blobs = self.delete_condemned(grace).await?;
        let condemned_blobs = self.condemn_unused(grace).await?;
        let spooled_files = self.0.spool.sweep(SPOOL_AGE)?;
        Ok(Collected {
            expired_uploads,
            artifacts,
            condemned_blobs,
            deleted_blobs,
            spooled_files,
        })
    }

    async fn expire_uploads(&self, actor: &Actor, now: Timestamp) -> Result<u64, ArtifactError> {
        let states = [UploadState::Open, UploadState::Completing];
        let mut expired = 0;
        for upload in self.0.store.overdue_uploads(now, states, BATCH).await? {
            let event = UploadEvent::Expire;
            match self
                .0
                .store
                .transition::<Upload>(actor, upload, None, event, |_| ())
                .await
            {
                Ok(_) => expired += 1,
                // Somebody completed or aborted it at this moment.
                Err(
                    StoreError::Stale { .. }
                    | StoreError::IllegalTransition(_)
                    | StoreError::NotFound { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(expired)
    }

    /// Deletes the parts of uploads whose story is over: usually there are none, unless a process died.
    async fn discard_finished_uploads(&self) -> Result<(), ArtifactError> {
        let mut folders = match self.0.blobs.operator().lister("uploads/").await {
            Ok(folders) => folders,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        while let Some(folder) = folders.try_next().await? {
            let Ok(upload) = folder.name().trim_end_matches('/').parse::<UploadId>() else {
                continue;
            };
            let over = match self.0.store.get::<Upload>(upload).await {
                Ok(upload) => upload.state.is_final(),
                Err(StoreError::NotFound { .. }) => true,
                Err(error) => return Err(error.into()),
            };
            if over {
                self.discard_parts(upload).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn discard_parts(&self, upload: UploadId) -> Result<(), ArtifactError> {
        self.0.blobs.delete_all(&upload_folder(upload)).await?;
        let mut tx = self.0.store.begin().await?;
        tx.forget_upload_parts(upload).await?;
        Ok(tx.commit().await?)
    }

    async fn put_away_artifacts(
        &self,
        actor: &Actor,
        before: Timestamp,
    ) -> Result<u64, ArtifactError> {
        let mut put_away = 0;
        for artifact in self.0.store.unused_artifacts(before, BATCH).await? {
            let mut tx = self.0.store.begin().await?;
            put_away += u64::from(tx.put_away_unused(actor, artifact, before).await?);
            tx.commit().await?;
        }
        Ok(put_away)
    }

    async fn condemn_unused(&self, before: Timestamp) -> Result<u64, ArtifactError> {
        let (mut condemned, mut last) = (0, String::new());
        loop {
            let batch = self.0.store.unused_blobs(before, &last, BATCH).await?;
            let Some(end) = batch.last() else {
                return Ok(condemned);
            };
            last.clone_from(end);
            for name in batch {
                let mut tx = self.0.store.begin().await?;
                condemned += u64::from(tx.condemn_blob(&name, before).await?);
                tx.commit().await?;
            }
        }
    }

    async fn delete_condemned(&self, before: Timestamp) -> Result<u64, ArtifactError> {
        let (mut deleted, mut last) = (0, String::new());
        loop {
            let batch = self.0.store.condemned_blobs(before, &last, BATCH).await?;
            let Some(end) = batch.last() else {
                return Ok(deleted);
            };
            last.clone_from(end);
            for name in batch {
                deleted += u64::from(self.delete_blob(&name, before).await?);
            }
        }
    }

    async fn delete_blob(&self, name: &str, before: Timestamp) -> Result<bool, ArtifactError> {
        let store = &self.0.store;
        let Ok(digest) = name.parse::<Digest>() else {
            return Ok(false);
        };
        let mut tx = store.begin().await?;
        if !tx.withdraw_blob(name, before).await? {
            return Ok(false);
        }
        // Before the bytes go it must be on record that they may be gone.
        tx.commit().await?;
        let mut tx = store.begin().await?;
        if !tx.delete_blob(name, before).await? {
            return Ok(false);
        }
        let path = blob_path(&digest);
        if !self.0.blobs.delete_within(&path, DELETE_PATIENCE).await? {
            // The row stays, and the next sweep tries again.
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }
}
