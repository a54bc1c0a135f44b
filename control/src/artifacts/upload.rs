//! Files that come in parts, in any order, over any number of connections and restarts.
//!
//! All parts have the size that the upload was made with, but for the last; so a part's number says where it
//! belongs. A part that comes again replaces the earlier one. Parts lie in the storage itself, under
//! `uploads/ID/NUMBER-DIGEST`: any process of the installation can take the next one and complete the whole.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};

use super::spool::{Limit, Spooled};
use super::{ArtifactError, Artifacts, Digest, File, NewArtifact, signed};
use crate::domain::record::{Artifact, Upload};
use crate::domain::upload::{UploadEvent, UploadState};
use crate::id::{DepartmentId, PrincipalId, UploadId};
use crate::store::{Actor, StoreError, Stored, UploadPart};
use crate::time::Timestamp;

/// An upload to come.
#[derive(Debug, Clone)]
pub struct NewUpload {
    pub department: DepartmentId,
    pub principal: Option<PrincipalId>,
    /// The file's path in the artifact.
    pub path: String,
    pub bytes: Option<u64>,
    pub digest: Option<Digest>,
    /// The size of every part but the last; the configured one if none is named.
    pub part_bytes: Option<u64>,
}

/// Which part it is. An offset is that of a part's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartAt {
    /// Counted from 0.
    Number(u64),
    Offset(u64),
}

pub(super) fn upload_folder(upload: UploadId) -> String {
    format!("uploads/{upload}/")
}

fn part_path(upload: UploadId, part: &UploadPart) -> String {
    // The digest too: two senders of different bytes for one number must not overwrite each other's file.
    let digest = part.digest.trim_start_matches("sha256:");
    format!("{}{:08}-{digest}", upload_folder(upload), part.part)
}

pub(super) fn invalid(field: &'static str, problem: impl Into<String>) -> ArtifactError {
    ArtifactError::Invalid {
        field,
        problem: problem.into(),
    }
}

/// The shape that an upload was given when it was made.
struct Shape {
    part_bytes: u64,
    whole: Option<u64>,
    max_parts: u64,
}

impl Shape {
    fn of(upload: &Upload, max_parts: u64) -> Result<Self, ArtifactError> {
        Ok(Self {
            part_bytes: upload
                .part_bytes()
                .filter(|&bytes| bytes > 0)
                .ok_or_else(|| invalid("upload", "was made by another version; make a new one"))?,
            whole: upload
                .expected_bytes
                .and_then(|bytes| u64::try_from(bytes).ok()),
            max_parts,
        })
    }

    /// The number of a part and the most bytes that it may have.
    fn place(&self, at: PartAt) -> Result<(u64, u64), ArtifactError> {
        let number = match at {
            PartAt::Number(number) => number,
            PartAt::Offset(offset) if offset % self.part_bytes == 0 => offset / self.part_bytes,
            PartAt::Offset(offset) => {
                let problem = format!(
                    "{offset} should be a multiple of the part size, {}",
                    self.part_bytes
                );
                return Err(invalid("offset", problem));
            }
        };
        let count = self
            .whole
            .map_or(self.max_parts, |whole| whole.div_ceil(self.part_bytes));
        if number >= count {
            return Err(invalid("part", format!("{number} should be below {count}")));
        }
        let left = self
            .whole
            .map_or(self.part_bytes, |whole| whole - number * self.part_bytes);
        Ok((number, left.min(self.part_bytes)))
    }

    /// Which parts are missing or too short to be where they are.
    fn missing(&self, parts: &[UploadPart]) -> Vec<u64> {
        let count = match self.whole {
            Some(whole) => whole.div_ceil(self.part_bytes),
            None => parts.last().map_or(1, |last| last.part.unsigned_abs() + 1),
        };
        let mut parts = parts.iter().peekable();
        (0..count)
            .filter(|&number| {
                let Some(part) = parts.next_if(|part| part.part.unsigned_abs() == number) else {
                    return true;
                };
                let wanted = match self.whole {
                    Some(whole) => (whole - number * self.part_bytes).min(self.part_bytes),
                    None if number + 1 == count => return false,
                    None => self.part_bytes,
                };
                part.bytes.unsigned_abs() != wanted
            })
            .collect()
    }
}

impl Artifacts {
    pub(super) fn upload_end(&self) -> Timestamp {
        Timestamp::now().after(std::time::Duration::from_secs(
            self.0.settings.upload.expires_s,
        ))
    }

    /// Takes one part. `digest` is what the sender says that its bytes have.
    ///
    /// # Errors
    /// [`ArtifactError::NotOpen`], [`ArtifactError::Invalid`] for a place outside, [`ArtifactError::TooLarge`],
    /// [`ArtifactError::OtherDigest`]; nothing is kept of the part then.
    pub async fn put_part<S>(
        &self,
        upload: UploadId,
        at: PartAt,
        digest: Option<Digest>,
        source: S,
    ) -> Result<UploadPart, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>> + Send,
    {
        let record = self.0.store.get::<Upload>(upload).await?;
        open(&record)?;
        let shape = Shape::of(&record, self.0.settings.upload.max_parts)?;
        let (number, most) = shape.place(at)?;
        let what = format!("part {number}");
        let limit = Limit {
            bytes: most,
            setting: "the upload's part size and total size",
        };
        let spooled = self.0.spool.take(&what, source, limit).await?;
        agrees(&what, &spooled, digest, None)?;
        if spooled.bytes == 0 {
            return Err(invalid("part", "is empty"));
        }
        let part = UploadPart {
            part: signed(number)?,
            start_byte: signed(number * shape.part_bytes)?,
            bytes: signed(spooled.bytes)?,
            digest: spooled.digest.to_string(),
        };
        self.0.blobs.put(spooled, &part_path(upload, &part)).await?;
        let mut tx = self.0.store.begin().await?;
        if !tx.put_upload_part(upload, &part, self.upload_end()).await? {
            drop(tx);
            let now = self.0.store.get::<Upload>(upload).await?;
            return Err(ArtifactError::NotOpen {
                state: now.state.to_string(),
            });
        }
        tx.commit().await?;
        Ok(part)
    }

    /// Joins the parts and checks the whole. May be called again if a call was cut short, and by several at once.
    ///
    /// # Errors
    /// [`ArtifactError::Incomplete`] leaves the upload open. [`ArtifactError::OtherDigest`] and [`ArtifactError::OtherSize`]
    /// end it.
    pub async fn complete_upload(
        &self,
        actor: &Actor,
        upload: UploadId,
    ) -> Result<Stored<Upload>, ArtifactError> {
        let record = self.0.store.get::<Upload>(upload).await?;
        match record.state {
            UploadState::Completed => return Ok(record),
            UploadState::Open => self.close(actor, &record).await?,
            // Somebody is at it, or was and died: joining twice makes the same blob.
            UploadState::Completing => {}
            _ => {
                return Err(ArtifactError::NotOpen {
                    state: record.state.to_string(),
                });
            }
        }
        let parts = self.0.store.upload_parts(upload).await?;
        match self.join(&record, &parts).await {
            Ok(joined) => {
                let file = (joined.digest.to_string(), signed(joined.bytes)?);
                self.keep(joined).await?;
                self.end_upload(actor, upload, UploadEvent::Verify, Some(file))
                    .await?;
            }
            // Somebody else finished, and took the parts away; without them the size and the digest are others too.
            Err(_) if self.0.store.get::<Upload>(upload).await?.state == UploadState::Completed => {
            }
            Err(error @ (ArtifactError::OtherDigest { .. } | ArtifactError::OtherSize { .. })) => {
                self.end_upload(actor, upload, UploadEvent::Refuse, None)
                    .await?;
                self.discard_parts(upload).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        self.discard_parts(upload).await?;
        Ok(self.0.store.get::<Upload>(upload).await?)
    }

    /// From open to completing, if all parts are there.
    async fn close(&self, actor: &Actor, record: &Stored<Upload>) -> Result<(), ArtifactError> {
        let mut tx = self.0.store.begin().await?;
        let moved = tx
            .transition::<Upload>(actor, record.id, None, UploadEvent::Complete, |_| ())
            .await;
        match moved {
            Ok(_) => {}
            // Somebody else was faster; all parts were there then.
            Err(StoreError::Stale { .. } | StoreError::IllegalTransition(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // Looked at after the lock: no part comes from here on. Without the commit it stays open.
        let parts = tx.upload_parts(record.id).await?;
        let missing = Shape::of(record, self.0.settings.upload.max_parts)?.missing(&parts);
        if !missing.is_empty() {
            return Err(ArtifactError::Incomplete(missing));
        }
        Ok(tx.commit().await?)
    }

    async fn join(
        &self,
        record: &Stored<Upload>,
        parts: &[UploadPart],
    ) -> Result<Spooled, ArtifactError> {
        let (artifacts, upload) = (self.clone(), record.id);
        let pieces = futures_util::stream::iter(parts.to_vec())
            .then(move |part| {
                let artifacts = artifacts.clone();
                async move {
                    let found = artifacts.0.blobs.read(&part_path(upload, &part)).await?;
                    found.ok_or_else(|| {
                        ArtifactError::Interrupted(format!("part {} is gone", part.part))
                    })
                }
            })
            .try_flatten()
            .boxed();
        let limit = Limit {
            bytes: self.0.settings.upload.max_bytes,
            setting: "upload.max_bytes",
        };
        let joined = self.0.spool.take(&record.path, pieces, limit).await?;
        let digest = record
            .expected_digest
            .as_deref()
            .map(str::parse)
            .transpose();
        let digest =
            digest.map_err(|error: super::DigestError| invalid("digest", error.to_string()))?;
        let bytes = record.expected_bytes.map(i64::unsigned_abs);
        agrees(&record.path, &joined, digest, bytes)?;
        Ok(joined)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`StoreError::IllegalTransition`] if it is over already.
    pub async fn abort_upload(
        &self,
        actor: &Actor,
        upload: UploadId,
    ) -> Result<Stored<Upload>, ArtifactError> {
        let aborted = self
            .0
            .store
            .transition::<Upload>(actor, upload, None, UploadEvent::Abort, |_| ())
            .await?;
        self.discard_parts(upload).await?;
        Ok(aborted)
    }

    /// Ends an upload that is completing, with the digest and size of its blob. Whoever comes second finds it ended.
    async fn end_upload(
        &self,
        actor: &Actor,
        upload: UploadId,
        event: UploadEvent,
        blob: Option<(String, i64)>,
    ) -> Result<(), ArtifactError> {
        let mut tx = self.0.store.begin().await?;
        if let Some((digest, _)) = &blob
            && !tx.keep_blob(digest).await?
        {
            return Err(ArtifactError::Collected {
                path: digest.clone(),
            });
        }
        let edit = |upload: &mut Upload| {
            if let Some((digest, bytes)) = blob {
                (upload.blob, upload.received_bytes) = (Some(digest), bytes);
            }
        };
        match tx
            .transition::<Upload>(actor, upload, None, event, edit)
            .await
        {
            Ok(_) => Ok(tx.commit().await?),
            Err(StoreError::Stale { .. } | StoreError::IllegalTransition(_)) => {
                drop(tx);
                match (self.0.store.get::<Upload>(upload).await?.state, event) {
                    (UploadState::Completed, UploadEvent::Verify)
                    | (UploadState::Refused, UploadEvent::Refuse) => Ok(()),
                    (state, _) => Err(ArtifactError::NotOpen {
                        state: state.to_string(),
                    }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an artifact of completed uploads of one department. An upload may be given another path than the one that
    /// it was made with.
    ///
    /// # Errors
    /// [`ArtifactError::Invalid`] for an upload that is not completed, [`ArtifactError::Path`] if two collide.
    pub async fn artifact_of_uploads(
        &self,
        actor: &Actor,
        new: NewArtifact,
        uploads: Vec<(Stored<Upload>, Option<String>)>,
    ) -> Result<Stored<Artifact>, ArtifactError> {
        let files = uploads.into_iter().map(|(upload, path)| {
            let id = upload.id;
            if upload.department != new.department {
                return Err(invalid(
                    "files",
                    format!("{id} belongs to another department"),
                ));
            }
            let digest = upload.blob.as_deref().and_then(|blob| blob.parse().ok());
            let digest: Digest = digest.ok_or_else(|| {
                invalid(
                    "files",
                    format!("{id} is {}; it should be completed", upload.state),
                )
            })?;
            Ok(File {
                digest,
                bytes: upload.received_bytes.unsigned_abs(),
                path: path.unwrap_or(upload.record.path),
            })
        });
        let files = files.collect::<Result<_, ArtifactError>>()?;
        self.register(actor, new, files).await
    }
}

fn open(upload: &Stored<Upload>) -> Result<(), ArtifactError> {
    if upload.state == UploadState::Open {
        return Ok(());
    }
    Err(ArtifactError::NotOpen {
        state: upload.state.to_string(),
    })
}

fn agrees(
    what: &str,
    spooled: &Spooled,
    digest: Option<Digest>,
    bytes: Option<u64>,
) -> Result<(), ArtifactError> {
    if let Some(expected) = bytes.filter(|&bytes| bytes != spooled.bytes) {
        return Err(ArtifactError::OtherSize {
            what: what.to_owned(),
            expected,
            found: spooled.bytes,
        });
    }
    if let Some(expected) = digest.filter(|&digest| digest != spooled.digest) {
        return Err(ArtifactError::OtherDigest {
            what: what.to_owned(),
            expected,
            found: spooled.digest,
        });
    }
    Ok(())
}
