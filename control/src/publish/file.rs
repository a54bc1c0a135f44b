//! The last snapshot on disk: what is served when the process starts without a database.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::deploy::replicas::LocalCopy;

/// `control/publish.json` in the data directory.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
}

/// What lies in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    format: u32,
    pub(super) snapshot: Snapshot,
    /// By artifact digest.
    pub(super) copies: BTreeMap<String, LocalCopy>,
}

const FORMAT: u32 = 1;

impl Kept {
    pub(super) fn new(snapshot: Snapshot, copies: BTreeMap<String, LocalCopy>) -> Self {
        Self {
            format: FORMAT,
            snapshot,
            copies,
        }
    }
}

impl SnapshotFile {
    /// `folder` is made when it is first written.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            path: folder.into().join("publish.json"),
        }
    }

    /// `None` before the first write. An unreadable file is said and passed over: the database knows all of it.
    pub(super) fn read(&self) -> Option<Kept> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the last snapshot cannot be read");
                return None;
            }
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.format == FORMAT => Some(kept),
            Ok(kept) => {
                tracing::warn!(path = %self.path.display(), format = kept.format, "the last snapshot is of another format");
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the last snapshot cannot be read");
                None
            }
        }
    }

    /// Whole or not at all, and on the disk when it returns.
    pub(super) fn write(&self, kept: &Kept) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let folder = self.path.parent().unwrap_or(std::path::Path::new("."));
        std::fs::create_dir_all(folder)?;
        let partial = self.path.with_extension("partial");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(kept)?)?;
        file.sync_all()?;
        std::fs::rename(&partial, &self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}
