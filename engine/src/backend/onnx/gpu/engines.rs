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
use crate::backend::onnx::runtime::{self, Provider};
use crate::backend::onnx::session::{ModelSource, SessionOptions};
use crate::error::LoadError;
use crate::folder::{ModelFolder, hex};

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
        Ok(hex(&digest[..16]))
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
        prune(cache, &folder, keep);
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

/// Where the engines of this model are kept, if TensorRT is to build some.
pub(in super::super) fn engine_folder(
    source: ModelSource<'_>,
    options: &SessionOptions,
) -> Result<Option<EngineFolder>, LoadError> {
    let (Provider::TensorRt { device }, Some(cache)) =
        (options.provider, &options.gpu.tensorrt.cache)
    else {
        return Ok(None);
    };
    let (info, _) = runtime::environment()?;
    let gpus = crate::cuda::discover().map_err(|error| LoadError::Runtime(error.to_string()))?;
    let gpu = gpus.into_iter().find(|gpu| gpu.ordinal == device);
    let tensorrt = crate::cuda::NvidiaLibrary::TensorRt.open();
    let tensorrt = tensorrt.map_err(|error| LoadError::Runtime(format!("TensorRT: {error}")))?;
    let digest = model_digest(source)?;
    let made_from = MadeFrom {
        model: digest,
        sluice: env!("CARGO_PKG_VERSION"),
        onnx_runtime: info.version,
        tensorrt: tensorrt.version.unwrap_or_default(),
        gpu: gpu.map_or_else(String::new, |gpu| {
            let (major, minor) = gpu.capability;
            format!("{} {major}.{minor}", gpu.name)
        }),
        options: MadeFrom::options(&options.gpu.tensorrt),
    };
    let folder = EngineFolder::open(cache, &made_from, options.gpu.tensorrt.keep);
    folder.map(Some).map_err(|error| LoadError::Folder {
        path: cache.clone(),
        reason: format!("engines cannot be kept there: {error}"),
    })
}

/// Digest of the graph as ONNX Runtime gets it, and of its weights.
pub(super) fn model_digest(source: ModelSource<'_>) -> Result<String, LoadError> {
    let (folder, edited) = match source {
        ModelSource::File(path) => (Some(path), None),
        ModelSource::Bytes { model, folder } => (folder, Some(model)),
    };
    let files = folder.map(|path| ModelFolder::open(path)?.digest());
    let files = files.transpose()?.unwrap_or_default();
    Ok(match edited {
        None => files,
        Some(model) => hex(&Sha256::new_with_prefix(files)
            .chain_update(model)
            .finalize()),
    })
}

/// Removes the folders that were used longest ago; only those with a record of ours. What
/// cannot be removed stays: another model may be loaded at the same time and remove the
/// same, and that is no reason not to load this one.
fn prune(cache: &Path, current: &Path, keep: usize) {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let folder = entry.path();
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
        match fs::remove_dir_all(&old) {
            Ok(()) => {
                tracing::info!(folder = %old.display(), "engines that were not used for long are removed");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(folder = %old.display(), %error, "old engines cannot be removed");
            }
        }
    }
}
