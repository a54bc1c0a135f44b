//! Where engines that TensorRT builds for ONNX Runtime are kept.
//!
//! The provider finds an engine again by the graph's name and shape, and uses whatever
//! lies there: an engine of other weights, of another TensorRT or for another GPU fails
//! late, or answers wrongly. So each model has a folder whose name is the digest of
//! everything that an engine depends on; a readable record lies beside the engines.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::TensorRtOptions;

/// Name of the record.
const RECORD: &str = "made_from.json";

/// Everything that a built engine depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in super::super) struct MadeFrom {
    /// SHA-256 over the model's files.
    pub(in super::super) model: String,
    /// What edits the graph before it is loaded.
    pub(in super::super) sluice: &'static str,
    pub(in super::super) onnx_runtime: String,
    pub(in super::super) tensorrt: String,
    /// Name and compute capability.
    pub(in super::super) gpu: String,
    /// Those options that change the engine.
    pub(in super::super) options: String,
}

impl MadeFrom {
    /// The options as the key has them.
    pub(in super::super) fn options(options: &TensorRtOptions) -> String {
        let TensorRtOptions {
            fp16,
            bf16,
            int8,
            workspace,
            optimization_level,
            profiles,
            // Where and how many are kept changes nothing.
            cache: _,
            keep: _,
        } = options;
        format!(
            "fp16={fp16} bf16={bf16} int8={int8} workspace={workspace:?} \
             level={optimization_level:?} profiles={:?}",
            super::shapes(profiles)
        )
    }

    fn key(&self) -> io::Result<String> {
        let record = serde_json::to_vec(self)?;
        let digest = Sha256::digest(record);
        Ok(digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

/// The folder of one model's engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct EngineFolder(PathBuf);

impl EngineFolder {
    /// Makes the folder in `cache`, or finds it; the folders used longest ago go where
    /// there are more than `keep`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(in super::super) fn open(
        cache: &Path,
        made_from: &MadeFrom,
        keep: usize,
    ) -> io::Result<Self> {
        let folder = cache.join(made_from.key()?);
        fs::create_dir_all(&folder)?;
        // Written every time: its time says when the folder was last used.
        fs::write(folder.join(RECORD), serde_json::to_vec_pretty(made_from)?)?;
        prune(cache, &folder, keep)?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Engines in it.
    pub(super) fn engines(&self) -> usize {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "engine"))
            .count()
    }
}

/// Removes the folders that were used longest ago; only those with a record of ours.
fn prune(cache: &Path, current: &Path, keep: usize) -> io::Result<()> {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(cache)? {
        let folder = entry?.path();
        let used = folder
            .join(RECORD)
            .metadata()
            .and_then(|record| record.modified());
        match used {
            Ok(used) if folder != current => others.push((used, folder)),
            _ => {}
        }
    }
    others.sort_unstable_by(|a, b| b.cmp(a));
    for (_, old) in others.into_iter().skip(keep.saturating_sub(1)) {
        tracing::info!(folder = %old.display(), "engines that were not used for long are removed");
        fs::remove_dir_all(old)?;
    }
    Ok(())
}
