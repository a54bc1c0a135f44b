//! Where replicas get their models from: folders made of artifacts, and found again without a database.

use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Artifacts, Materialised};
use crate::artifacts::Digest;
use crate::control::Control;
use crate::id::ArtifactId;

/// Folders by digest, in one folder of this machine. Files are hard links to the content where that lies on the same
/// disk, and take no room of their own then.
#[derive(Debug)]
pub struct Shelf {
    control: Control,
    folder: PathBuf,
}

impl Shelf {
    pub fn new(control: Control, folder: impl Into<PathBuf>) -> Self {
        Self {
            control,
            folder: folder.into(),
        }
    }

    async fn fetch(
        &self,
        artifact: Option<ArtifactId>,
        digest: &str,
    ) -> Result<Materialised, String> {
        let name: Digest = digest
            .parse()
            .map_err(|error| format!("the digest {digest}: {error}"))?;
        let there = self.folder.join(name.hex());
        let folder = match (self.control.open(), artifact) {
            // A folder appears under its digest only when it is whole and checked.
            _ if there.is_dir() => there,
            (Some(open), Some(artifact)) => open
                .artifacts
                .materialise(artifact, &self.folder)
                .await
                .map_err(|error| error.to_string())?,
            (_, None) => {
                return Err(format!(
                    "{digest} was registered without its content; upload or import it, and register the version by its artifact"
                ));
            }
            (None, _) => {
                return Err(format!(
                    "{digest} is not on this machine yet, and there is no database to say where it is"
                ));
            }
        };
        // The artifact may have another content by now than what was approved.
        if folder.file_name().and_then(|name| name.to_str()) != Some(&name.hex()) {
            return Err(format!("the artifact is no longer {digest}"));
        }
        let bytes = bytes_of(&folder).map_err(|error| error.to_string())?;
        Ok(Materialised { folder, bytes })
    }
}

impl Artifacts for Shelf {
    fn materialise<'a>(
        &'a self,
        artifact: Option<ArtifactId>,
        digest: &'a str,
    ) -> BoxFuture<'a, Result<Materialised, String>> {
        self.fetch(artifact, digest).boxed()
    }
}

fn bytes_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_of(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}
