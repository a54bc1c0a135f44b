//! What an artifact is: the list of its files. Its digest is the artifact's, so the list has one form only.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::ArtifactError;
use super::path::PathSet;

/// One file: its path in the artifact, the digest of its bytes and how many they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    pub digest: Digest,
    pub bytes: u64,
}

/// The files of an artifact, by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of this document: 1.
    version: u32,
    files: Vec<File>,
}

impl Manifest {
    /// # Errors
    /// [`ArtifactError::Path`] for a path that is unsafe or collides with another, [`ArtifactError::Empty`].
    pub fn new(mut files: Vec<File>) -> Result<Self, ArtifactError> {
        if files.is_empty() {
            return Err(ArtifactError::Empty);
        }
        let mut paths = PathSet::default();
        for file in &files {
            paths.add(&file.path)?;
        }
        // By bytes, as the database sorts as well.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { version: 1, files })
    }

    pub fn files(&self) -> &[File] {
        &self.files
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The canonical form: JSON without spaces, fields in the order of their declaration, files by path.
    ///
    /// # Errors
    /// Only in theory: text and numbers are always JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ArtifactError> {
        serde_json::to_vec(self).map_err(|error| ArtifactError::Io(error.into()))
    }
}
