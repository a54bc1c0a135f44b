//! Content: what models, datasets and reports are made of, kept by digest.
//!
//! A *blob* is one file's bytes, named by their SHA-256 and kept once however often it is needed. An *artifact* is
//! a set of named blobs; its digest is that of the sorted list of paths and digests, which is a blob as well. So a
//! digest in an evaluation or an approval names every byte of what was evaluated or approved, and whoever
//! reads can check.
//!
//! Bytes lie in a folder or an object store, under `blobs/sha256/ab/abcd…`; which are there, what consists of them
//! and who needs it lies in the database ([`crate::store`]).
//!
//! # What holds at every moment, also after `kill -9`
//!
//! - An artifact's blobs are all there: it is registered in one transaction that locks each of them as stored, and a
//!   blob is stored only after its bytes arrived whole.
//! - A blob goes only if nothing refers to it, nobody touched it for the grace period, and after being condemned nobody
//!   touched it for as long again. The database decides each of the steps under the blob's lock, so an upload that
//!   brings the same bytes meanwhile either finds them kept or brings them anew.
//! - Bytes on their way in lie in the spool or under `uploads/`; those of a process that died are swept.
//! - What is read is digested on the way. Bytes that are not what their name says end in an error, and are put aside.
//!
//! # Memory
//!
//! Everything streams. A transfer holds at most 1 MiB on a local disk, and 24 MiB to or from an object store (pieces of
//! 8 MiB, two on their way). Lists of files are held whole: 20,000 files are some 5 MB.
//!
//! # Cancelling
//!
//! Every function here may be dropped at any of its waits: what it had begun is swept, what it had finished stays.

mod begin;
mod blobs;
mod collect;
mod digest;
mod error;
mod guard;
mod import;
mod location;
mod manifest;
mod materialise;
mod path;
mod read;
mod settings;
mod spool;
mod upload;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use futures_util::Stream;

pub use begin::Begun;
pub use collect::Collected;
pub use digest::{Digest, DigestError};
pub use error::ArtifactError;
pub(crate) use guard::base_client;
pub use import::{Import, Progress, Source};
pub use manifest::{File, Manifest};
pub use path::{
    MAX_DEPTH, MAX_NAME_BYTES, MAX_PATH_BYTES, PathError, PathSet, check as check_path,
};
pub use settings::{ArtifactSettings, CollectionSettings, ImportSettings, UploadSettings};
pub use upload::{NewUpload, PartAt};

use blobs::{Blobs, blob_path};
use guard::Guard;
use location::Location;
use spool::{Limit, Spool, Spooled};

use crate::domain::record::{Artifact, ArtifactKind};
use crate::id::{ArtifactId, DepartmentId};
use crate::store::{Actor, ArtifactFile, Store, StoreError, Stored};

/// The content of one installation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    blobs: Blobs,
    spool: Spool,
    settings: ArtifactSettings,
    guard: Guard,
    /// Folders that are being made, so that those who want the same one share the work.
    being_made: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// What an artifact is, apart from its files.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    pub department: DepartmentId,
    pub kind: ArtifactKind,
    pub name: String,
    /// Where it came from, without secrets.
    pub source: Option<String>,
}

impl Artifacts {
    /// Opens the storage that the settings name. `data` is the data directory: relative locations and the spool of
    /// remote ones lie in it.
    ///
    /// # Errors
    /// [`ArtifactError::Invalid`] names the setting; [`ArtifactError::Io`] if a folder cannot be made. A remote
    /// store is not asked yet.
    pub fn open(
        store: Store,
        settings: ArtifactSettings,
        data: &Path,
    ) -> Result<Self, ArtifactError> {
        let location = match Location::parse("artifacts.location", &settings.location)? {
            Location::Folder(folder) => Location::Folder(data.join(folder)),
            remote => remote,
        };
        // On the same file system as the blobs, so that a file moves there without being copied.
        let spool = match &location {
            Location::Folder(folder) => folder.join("spool"),
            _ => data.join("spool"),
        };
        Ok(Self(Arc::new(Inner {
            store,
            blobs: Blobs::open(&location, &settings, guard::plain_client()?)?,
            spool: Spool::open(spool)?,
            guard: Guard::new(&settings.import),
            settings,
            being_made: Mutex::default(),
        })))
    }

    /// The folders of this machine that hold content, or what is on its way there.
    pub fn folders(settings: &ArtifactSettings, data: &Path) -> Vec<PathBuf> {
        match Location::parse("artifacts.location", &settings.location) {
            Ok(Location::Folder(folder)) => vec![data.join(folder)],
            _ => vec![data.join("spool")],
        }
    }

    pub fn settings(&self) -> &ArtifactSettings {
        &self.0.settings
    }

    /// Stores the bytes of a stream. They stay for the grace period, and for good once an artifact has them.
    ///
    /// # Errors
    /// [`ArtifactError::TooLarge`] over the limit of one file, [`ArtifactError::NoSpace`], and what the stream reports.
    pub async fn put<S>(&self, path: &str, source: S) -> Result<File, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>> + Send,
    {
        let limit = Limit {
            bytes: self.0.settings.upload.max_bytes,
            setting: "upload.max_bytes",
        };
        let spooled = self.0.spool.take(path, source, limit).await?;
        let file = File {
            path: path.to_owned(),
            digest: spooled.digest,
            bytes: spooled.bytes,
        };
        self.keep(spooled).await?;
        Ok(file)
    }

    /// Makes a spooled file a blob.
    async fn keep(&self, spooled: Spooled) -> Result<(), ArtifactError> {
        let digest = spooled.digest;
        let (name, path) = (digest.to_string(), blob_path(&digest));
        let bytes = signed(spooled.bytes)?;
        let mut tx = self.0.store.begin().await?;
        let touched = tx.touch_blob(&name, bytes).await?;
        tx.commit().await?;
        if touched.stored {
            return Ok(());
        }
        self.0.blobs.put(spooled, &path).await?;
        let mut tx = self.0.store.begin().await?;
        if tx.blob_stored(&name, touched).await? {
            return Ok(tx.commit().await?);
        }
        // This took longer than two grace periods, and the row was collected. With a new row nobody deletes the
        // bytes, if they are still there; unless that is collected, too.
        let touched = tx.touch_blob(&name, bytes).await?;
        tx.commit().await?;
        if self.0.blobs.operator().exists(&path).await? {
            let mut tx = self.0.store.begin().await?;
            if tx.blob_stored(&name, touched).await? {
                return Ok(tx.commit().await?);
            }
        }
        Err(ArtifactError::Collected { path: name })
    }

    /// Registers an artifact whose files were stored. The same content in the same department is the same artifact.
    ///
    /// # Errors
    /// [`ArtifactError::Path`], [`ArtifactError::Empty`], [`ArtifactError::Collected`] if a file is not there.
    pub async fn register(
        &self,
        actor: &Actor,
        new: NewArtifact,
        files: Vec<File>,
    ) -> Result<Stored<Artifact>, ArtifactError> {
        let manifest = Manifest::new(files)?;
        let json = Bytes::from(manifest.to_json()?);
        let list = self
            .put("the list of files", futures_util::stream::iter([Ok(json)]))
            .await?;
        let files = manifest
            .files()
            .iter()
            .map(|file| {
                Ok(ArtifactFile {
                    path: file.path.clone(),
                    blob: file.digest.to_string(),
                    bytes: signed(file.bytes)?,
                })
            })
            .collect::<Result<Vec<_>, ArtifactError>>()?;
        let artifact = Artifact {
            department: new.department,
            owner: actor.principal,
            kind: new.kind,
            name: new.name,
            digest: list.digest.to_string(),
            bytes: signed(manifest.bytes())?,
            files: signed(files.len() as u64)?,
            source: new.source,
        };
        let mut tx = self.0.store.begin().await?;
        let registered = tx.register_artifact(actor, artifact, &files).await;
        let stored = registered.map_err(|error| match error {
            StoreError::Reference => ArtifactError::Collected {
                path: "one of the files".into(),
            },
            other => other.into(),
        })?;
        tx.commit().await?;
        Ok(stored)
    }

    /// The files of an artifact, by path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn files(&self, artifact: ArtifactId) -> Result<Vec<File>, ArtifactError> {
        let files = self.0.store.artifact_files(artifact).await?;
        files.into_iter().map(stored_file).collect()
    }

    /// One file of an artifact; `None` if it has none of this path.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn file(
        &self,
        artifact: ArtifactId,
        path: &str,
    ) -> Result<Option<File>, ArtifactError> {
        let file = self.0.store.artifact_file(artifact, path).await?;
        file.map(stored_file).transpose()
    }
}

/// Reads back what [`Artifacts::register`] wrote.
fn stored_file(file: ArtifactFile) -> Result<File, ArtifactError> {
    let damaged = |problem: String| StoreError::Malformed {
        table: "artifact_files",
        column: "blob".into(),
        problem,
    };
    Ok(File {
        digest: file
            .blob
            .parse()
            .map_err(|error: DigestError| damaged(error.to_string()))?,
        bytes: u64::try_from(file.bytes).map_err(|error| damaged(error.to_string()))?,
        path: file.path,
    })
}

/// Sizes are signed in the database.
fn signed(bytes: u64) -> Result<i64, ArtifactError> {
    i64::try_from(bytes).map_err(|_| ArtifactError::TooLarge {
        what: "the whole".into(),
        limit: i64::MAX as u64,
        setting: "the database",
    })
}

#[cfg(test)]
mod tests;
