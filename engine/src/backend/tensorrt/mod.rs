//! TensorRT itself, for models without K/V: an engine is loaded, or built from a graph,
//! and run on one device, without ONNX Runtime in between.
//!
//! Reading order: [`load`] (from files to an engine), [`session`] (one step), [`device`]
//! (memory and the stream, which are lent), [`values`], [`progress`].
//!
//! Bounds. A session has one thread, one stream and one [`Device`](crate::cuda::Device);
//! everything on the GPU is within [`NativeOptions::memory_budget`]: the engine's weights,
//! once, and for each session the working memory of its largest profile, and of each tensor
//! less than twice its largest shape so far. In host memory: one request's tensors, and their page-locked
//! copy. The engine's file is read whole, once, while it is loaded. A build has threads
//! and host memory as TensorRT sees fit, and one thread that tells of it.

use std::path::{Path, PathBuf};

use sluice_tensorrt::{Plan, PlanError};

use crate::backend::onnx::TensorRtOptions;
use crate::error::LoadError;
use crate::folder::wrong;

#[cfg(tensorrt_shim)]
mod device;
#[cfg(tensorrt_shim)]
mod load;
#[cfg(tensorrt_shim)]
mod progress;
#[cfg(tensorrt_shim)]
mod session;
#[cfg(all(test, tensorrt_shim))]
mod tests;
#[cfg(tensorrt_shim)]
mod values;

#[cfg(not(tensorrt_shim))]
mod absent;

#[cfg(not(tensorrt_shim))]
pub use absent::{TensorRtSession, build_plan, open};
#[cfg(tensorrt_shim)]
pub use load::{build_plan, open};
#[cfg(tensorrt_shim)]
pub use session::TensorRtSession;
pub use sluice_tensorrt::Origin;

/// What an engine that Sluice laid aside was made from; none of a foreign one.
///
/// # Errors
/// [`LoadError::Folder`]: it cannot be read, or is damaged.
pub fn origin(file: &Path) -> Result<Option<Origin>, LoadError> {
    let read = std::fs::read(file);
    let bytes = read.map_err(|error| wrong(file, &format!("cannot be read: {error}")))?;
    match Plan::from_bytes(&bytes) {
        Ok(plan) => Ok(Some(plan.origin)),
        Err(PlanError::NotAPlan) => Ok(None),
        Err(error) => Err(wrong(file, &error.to_string())),
    }
}

/// How a model is run on TensorRT itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NativeOptions {
    /// CUDA's number of the device.
    pub device: u32,
    /// Bytes that the model may hold on the device, all its threads together; no limit by
    /// default.
    pub memory_budget: Option<u64>,
    /// How an engine is built, and where it is kept. `fp16`, `bf16` and `int8` have to be
    /// off: TensorRT 11 computes in the types that the graph states. `keep` does not count.
    pub build: TensorRtOptions,
    /// The library; looked for where TensorRT is looked for by default.
    pub library: Option<PathBuf>,
}
