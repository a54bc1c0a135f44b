//! From an artifact to a folder that an engine can load: whole, checked, and made once however many want it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::spool::blocking;
use super::{ArtifactError, Artifacts, Digest, DigestError, File, check_path};
use crate::domain::record::Artifact;
use crate::id::ArtifactId;
use crate::store::StoreError;

const PARTIAL: &str = ".partial-";
/// A partial folder that nobody wrote to for so long belongs to a process that died.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

impl Artifacts {
    /// Makes the folder `cache/DIGEST` with the artifact's files and returns its path; at once if it is there. It
    /// appears whole. Files are hard links to the blobs where that can be, copies otherwise, and read-only.
    ///
    /// # Errors
    /// [`ArtifactError::Damaged`] and [`ArtifactError::Missing`] among others; the folder is not there then.
    pub async fn materialise(
        &self,
        artifact: ArtifactId,
        cache: &Path,
    ) -> Result<PathBuf, ArtifactError> {
        let record = self.0.store.get::<Artifact>(artifact).await?;
        let digest: Digest =
            record
                .digest
                .parse()
                .map_err(|error: DigestError| StoreError::Malformed {
                    table: "artifacts",
                    column: "digest".into(),
                    problem: error.to_string(),
                })?;
        let target = cache.join(digest.hex());
        let turn = self.turn(digest);
        let _mine = turn.lock().await;
        if target.is_dir() {
            return Ok(target);
        }
        let files = self.files(artifact).await?;
        std::fs::create_dir_all(cache)?;
        sweep(cache)?;
        // Deleted when dropped, should this end early.
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(cache)?;
        for file in &files {
            check_path(&file.path)?;
            self.place(file, &partial.path().join(&file.path)).await?;
        }
        let from = partial.path().to_owned();
        let to = target.clone();
        blocking(move || publish(&from, &to)).await?;
        Ok(target)
    }

    /// Whose turn it is to make the folder of an artifact.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut being_made = self
            .0
            .being_made
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        being_made.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = being_made.get(&digest).and_then(std::sync::Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        being_made.insert(digest, Arc::downgrade(&turn));
        turn
    }

    async fn place(&self, file: &File, target: &Path) -> Result<(), ArtifactError> {
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let linked = self
            .0
            .blobs
            .file(&file.digest)
            .is_some_and(|blob| std::fs::hard_link(blob, target).is_ok());
        let bytes = if linked {
            self.verify(file.digest).await?
        } else {
            self.copy(file, target).await?
        };
        if bytes == file.bytes {
            return Ok(());
        }
        Err(ArtifactError::OtherSize {
            what: file.path.clone(),
            expected: file.bytes,
            found: bytes,
        })
    }

    async fn copy(&self, file: &File, target: &Path) -> Result<u64, ArtifactError> {
        let mut pieces = std::pin::pin!(self.read(file.digest).await?);
        let mut copy = tokio::fs::File::create_new(target).await?;
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await? {
            copy.write_all(&piece).await?;
            bytes += piece.len() as u64;
        }
        copy.flush().await?;
        copy.sync_all().await?;
        let mut permissions = copy.metadata().await?.permissions();
        permissions.set_readonly(true);
        copy.set_permissions(permissions).await?;
        Ok(bytes)
    }
}

/// Gives the finished folder its name. Another process that was faster made the same one.
fn publish(from: &Path, to: &Path) -> Result<(), ArtifactError> {
    sync_folders(from)?;
    match std::fs::rename(from, to) {
        Ok(()) => {}
        Err(_) if to.is_dir() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if let Some(cache) = to.parent() {
        std::fs::File::open(cache)?.sync_all()?;
    }
    Ok(())
}

fn sync_folders(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    std::fs::File::open(folder)?.sync_all()
}

fn sweep(cache: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        let partial = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        let written = entry.metadata().and_then(|data| data.modified());
        let old = written.is_ok_and(|at| {
            SystemTime::now()
                .duration_since(at)
                .is_ok_and(|age| age >= PARTIAL_AGE)
        });
        if partial
            && old
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "a leftover folder cannot be deleted");
        }
    }
    Ok(())
}
