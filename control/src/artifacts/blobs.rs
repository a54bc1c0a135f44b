//! The bytes themselves, by digest, on a local disk or in an object store. A blob appears whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use opendal::{ErrorKind, Operator};

use super::digest::Digest;
use super::error::ArtifactError;
use super::location::Location;
use super::settings::ArtifactSettings;
use super::spool::{Spooled, blocking, read_file};

/// One piece of a multipart upload to an object store; two are on their way at a time.
const PIECE: usize = 8 << 20;
const PIECES_AT_ONCE: usize = 2;

pub(super) type Pieces = BoxStream<'static, Result<Bytes, ArtifactError>>;

#[derive(Debug, Clone)]
pub(super) struct Blobs {
    operator: Operator,
    /// The folder, if it is one of this machine: files are then moved rather than copied.
    folder: Option<PathBuf>,
}

/// Where a blob lies.
pub(super) fn blob_path(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

impl Blobs {
    pub(super) fn open(
        location: &Location,
        settings: &ArtifactSettings,
        client: reqwest::Client,
    ) -> Result<Self, ArtifactError> {
        let folder = match location {
            Location::Folder(folder) => {
                std::fs::create_dir_all(folder)?;
                Some(folder.clone())
            }
            _ => None,
        };
        Ok(Self {
            operator: location.operator(location.path(), settings, client)?,
            folder,
        })
    }

    pub(super) const fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The blob's file, if it is one of this machine.
    pub(super) fn file(&self, digest: &Digest) -> Option<PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.join(blob_path(digest)))
    }

    /// Puts a spooled file at `path`, durably. What is there already has the same name and therefore the same content.
    pub(super) async fn put(&self, spooled: Spooled, path: &str) -> Result<(), ArtifactError> {
        match &self.folder {
            Some(folder) => {
                let target = folder.join(path);
                blocking(move || move_into(spooled, &target)).await
            }
            None => self.send(spooled, path).await,
        }
    }

    async fn send(&self, spooled: Spooled, path: &str) -> Result<(), ArtifactError> {
        let file = read_file(spooled.file.reopen()?);
        // Object stores show an object once it is complete. File systems show it while it grows: there it
        // grows under another name.
        let growing = self
            .operator
            .info()
            .capability()
            .rename
            .then(|| format!("incoming/{}", uuid::Uuid::now_v7().simple()));
        self.write(growing.as_deref().unwrap_or(path), file).await?;
        let Some(growing) = growing else {
            return Ok(());
        };
        match self.operator.rename(&growing, path).await {
            Ok(()) => Ok(()),
            // Somebody was faster, and HDFS does not rename onto a file.
            Err(error) => match self.operator.stat(path).await {
                Ok(there) if there.content_length() == spooled.bytes => {
                    Ok(self.operator.delete(&growing).await?)
                }
                _ => Err(error.into()),
            },
        }
    }

    async fn write(
        &self,
        path: &str,
        source: impl Stream<Item = Result<Bytes, ArtifactError>>,
    ) -> Result<(), ArtifactError> {
        let mut source = std::pin::pin!(source);
        let mut writer = self
            .operator
            .writer_with(path)
            .chunk(PIECE)
            .concurrent(PIECES_AT_ONCE)
            .await?;
        while let Some(chunk) = source.next().await {
            let written = match chunk {
                Ok(chunk) => writer.write(chunk).await.map_err(ArtifactError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                // Otherwise the pieces that arrived are kept, and paid for, until the bucket's own rules drop them.
                if let Err(leftover) = writer.abort().await {
                    tracing::warn!(%path, error = %leftover, "pieces of an upload may be left behind");
                }
                return Err(error);
            }
        }
        writer.close().await?;
        Ok(())
    }

    /// The bytes at `path`, unverified. `None` if there are none.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Pieces>, ArtifactError> {
        let size = match self.operator.stat(path).await {
            Ok(found) => found.content_length(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let pieces = read_object(&self.operator, path, size).await?;
        Ok(Some(pieces.map_err(ArtifactError::from).boxed()))
    }

    /// Deletes what is at `path`, if anything is.
    pub(super) async fn delete(&self, path: &str) -> Result<(), ArtifactError> {
        unless_gone(self.operator.delete(path).await)
    }

    /// Deletes what is at `path`, if anything is; false if that was not begun within `patience`. On a disk, what was given up is
    /// not done later either: somebody may have put the bytes there again by then.
    pub(super) async fn delete_within(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<bool, ArtifactError> {
        let Some(folder) = &self.folder else {
            let deleted = tokio::time::timeout(patience, self.delete(path)).await;
            return deleted.map_or(Ok(false), |done| done.map(|()| true));
        };
        let taken = Arc::new(AtomicBool::new(false));
        let (file, mine) = (folder.join(path), Arc::clone(&taken));
        let delete = blocking(move || {
            if mine.swap(true, Relaxed) {
                return Ok(false);
            }
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(true),
            }
        });
        let mut delete = std::pin::pin!(delete);
        match tokio::time::timeout(patience, &mut delete).await {
            Ok(done) => done,
            Err(_) if taken.swap(true, Relaxed) => delete.await,
            Err(_) => Ok(false),
        }
    }

    /// Deletes all below a folder, if there is one.
    pub(super) async fn delete_all(&self, folder: &str) -> Result<(), ArtifactError> {
        let listed = self.operator.lister_with(folder).recursive(true).await;
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut folders = vec![folder.to_owned()];
        loop {
            let entry = match entries.try_next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(error.into()),
            };
            match entry.metadata().is_dir() {
                true => folders.push(entry.path().to_owned()),
                false => self.delete(entry.path()).await?,
            }
        }
        folders.sort_unstable();
        folders.dedup();
        for folder in folders.iter().rev() {
            self.delete(folder).await?;
        }
        Ok(())
    }

    /// Takes damaged bytes out of their place, and keeps them for whoever wants to know what happened. Of several
    /// who find the damage at once, one does it.
    pub(super) async fn put_aside(&self, digest: &Digest) -> Result<(), ArtifactError> {
        let (from, to) = (blob_path(digest), format!("quarantine/{}", digest.hex()));
        let able = self.operator.info().capability();
        if able.rename {
            self.delete(&to).await?;
            unless_gone(self.operator.rename(&from, &to).await)
        } else {
            unless_gone(self.operator.copy(&from, &to).await.map(drop))?;
            self.delete(&from).await
        }
    }
}

/// What somebody else took away at this moment is away, as was wanted. Not every store says so by itself.
fn unless_gone(done: Result<(), opendal::Error>) -> Result<(), ArtifactError> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The bytes of a file whose size is known. One that shrinks meanwhile is an error of the operator's.
pub(super) async fn read_object(
    operator: &Operator,
    path: &str,
    bytes: u64,
) -> Result<BoxStream<'static, Result<Bytes, opendal::Error>>, opendal::Error> {
    // There is no way to ask HTTP for a range of no bytes.
    if bytes == 0 {
        return Ok(futures_util::stream::empty().boxed());
    }
    let reader = operator.reader(path).await?;
    let stream = reader.into_stream(0..bytes).await?;
    Ok(stream.map_ok(|piece| piece.to_bytes()).boxed())
}

/// Moves a file to its place so that a power cut leaves it there whole or not at all.
fn move_into(spooled: Spooled, target: &Path) -> Result<(), ArtifactError> {
    let folder = target.parent().unwrap_or(target);
    std::fs::create_dir_all(folder)?;
    let file = spooled.file;
    file.as_file().sync_all()?;
    // Shared by hard links with the folders of models: nobody should write to it.
    let mut permissions = file.as_file().metadata()?.permissions();
    permissions.set_readonly(true);
    file.as_file().set_permissions(permissions)?;
    file.persist(target).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}
