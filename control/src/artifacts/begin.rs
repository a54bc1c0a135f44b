//! The beginning of an upload, and sending as little as possible: an upload that was interrupted goes on, and bytes
//! that their sender may read here already need not come again.

use super::spool::Limit;
use super::upload::{NewUpload, invalid};
use super::{ArtifactError, Artifacts, check_path, signed};
use crate::domain::record::Upload;
use crate::domain::upload::{UploadEvent, UploadState};
use crate::store::{Actor, Json, Listing, Stored};

/// An upload that is there now.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    New(Stored<Upload>),
    /// Of the same file by the same person; what it has need not be sent again.
    Resumed(Stored<Upload>),
}

impl Artifacts {
    /// Begins the upload of a file, or goes on with the one that `new.principal` began before with the same path, size
    /// and digest. `known`: the sender may read a file of this size and digest, so it is taken for sent.
    ///
    /// A digest alone must not count as that: whoever has seen one could get at the bytes by it.
    ///
    /// # Errors
    /// As [`Artifacts::create_upload`].
    pub async fn begin_upload(
        &self,
        actor: &Actor,
        new: NewUpload,
        known: bool,
    ) -> Result<Begun, ArtifactError> {
        if let Some(earlier) = self.earlier(&new).await? {
            let end = self.upload_end();
            let id = earlier.id;
            let stored = self
                .0
                .store
                .update::<Upload>(actor, id, None, |it| it.expires_at = end)
                .await?;
            return Ok(Begun::Resumed(stored));
        }
        if known && let Some(adopted) = self.adopt(actor, &new).await? {
            return Ok(Begun::New(adopted));
        }
        self.create_upload(actor, new).await.map(Begun::New)
    }

    /// # Errors
    /// [`ArtifactError::Path`], [`ArtifactError::TooLarge`], [`ArtifactError::Invalid`] for a part size out of bounds.
    pub async fn create_upload(
        &self,
        actor: &Actor,
        new: NewUpload,
    ) -> Result<Stored<Upload>, ArtifactError> {
        let upload = self.planned(&new)?;
        let most = self.0.settings.upload.max_open;
        let mut tx = self.0.store.begin().await?;
        if tx.open_uploads(new.department).await?.unsigned_abs() >= most {
            return Err(ArtifactError::TooLarge {
                what: "the number of open uploads".into(),
                limit: most,
                setting: "upload.max_open",
            });
        }
        let stored = tx.create(actor, upload).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// The record of an upload that nothing was sent for yet.
    fn planned(&self, new: &NewUpload) -> Result<Upload, ArtifactError> {
        let limits = &self.0.settings.upload;
        check_path(&new.path)?;
        let part_bytes = new.part_bytes.unwrap_or(limits.part_bytes);
        if part_bytes == 0 || part_bytes > limits.max_part_bytes {
            let problem = format!(
                "{part_bytes} should be 1 to {} (upload.max_part_bytes)",
                limits.max_part_bytes
            );
            return Err(invalid("part_bytes", problem));
        }
        let whole = Limit {
            bytes: limits
                .max_bytes
                .min(part_bytes.saturating_mul(limits.max_parts)),
            setting: "upload.max_bytes, and upload.max_parts of this size",
        };
        if new.bytes.is_some_and(|bytes| bytes > whole.bytes) {
            return Err(whole.exceeded(&new.path));
        }
        Ok(Upload {
            department: new.department,
            principal: new.principal,
            path: new.path.clone(),
            state: UploadState::Open,
            expected_digest: new.digest.map(|digest| digest.to_string()),
            expected_bytes: new.bytes.map(signed).transpose()?,
            received_bytes: 0,
            backend_state: Some(Json(serde_json::json!({ "part_bytes": part_bytes }))),
            blob: None,
            expires_at: self.upload_end(),
        })
    }

    /// An upload of the same file that can go on, or is done.
    async fn earlier(&self, new: &NewUpload) -> Result<Option<Stored<Upload>>, ArtifactError> {
        let (Some(principal), Some(digest), Some(bytes)) = (new.principal, new.digest, new.bytes)
        else {
            return Ok(None);
        };
        let goes_on = [
            UploadState::Open,
            UploadState::Completing,
            UploadState::Completed,
        ];
        let listing = Listing::<Upload>::new()
            .is("principal", &principal)
            .is("department", &new.department)
            .is("path", &new.path)
            .is("expected_digest", &digest.to_string())
            .is("expected_bytes", &signed(bytes)?)
            .is_one_of("state", &goes_on)
            .limit(1);
        let found = self.0.store.list(&listing).await?.items.pop();
        // Somebody who asks for another size of parts counts on it.
        Ok(found.filter(|it| new.part_bytes.is_none() || new.part_bytes == it.part_bytes()))
    }

    /// An upload that is complete from the start. `None` if the bytes went away at this moment.
    async fn adopt(
        &self,
        actor: &Actor,
        new: &NewUpload,
    ) -> Result<Option<Stored<Upload>>, ArtifactError> {
        let upload = self.planned(new)?;
        let (Some(digest), Some(bytes)) = (upload.expected_digest.clone(), upload.expected_bytes)
        else {
            return Ok(None);
        };
        let mut tx = self.0.store.begin().await?;
        if !tx.keep_blob(&digest).await? {
            return Ok(None);
        }
        let id = tx.create(actor, upload).await?.id;
        tx.transition::<Upload>(actor, id, None, UploadEvent::Complete, |_| ())
            .await?;
        let stored = tx
            .transition::<Upload>(actor, id, None, UploadEvent::Verify, |it| {
                it.blob = Some(digest);
                it.received_bytes = bytes;
            })
            .await?;
        tx.commit().await?;
        Ok(Some(stored))
    }
}

impl Upload {
    /// The size of each part but the last.
    pub fn part_bytes(&self) -> Option<u64> {
        self.backend_state.as_ref()?.0["part_bytes"].as_u64()
    }
}
