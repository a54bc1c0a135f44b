//! NVIDIA TensorRT, through its C++ interface and without linking to it.
//!
//! TensorRT runs a model faster than anything general can, on NVIDIA's devices only, and may not be shipped with this
//! binary. So the library is opened at run time ([`Library::open`]) and its absence is an ordinary answer. Below is a
//! C interface over the vendor's classes (`kernels/tensorrt_shim.h`), its bindings, and over them:
//!
//! - [`Runtime`] loads serialised engines and plugins, [`Engine`] says what goes in and out and under which shapes,
//!   [`Context`] runs it: shapes, memory, a stream. Memory and streams are lent by us (the traits of [`device`]), so
//!   that one place accounts for the device.
//! - [`build`] makes an engine from an ONNX model, where the library has a builder.
//! - [`Plan`] is an engine at rest, with the digest of what it was made from: a stale one is refused. [`EngineStore`] is
//!   a folder of them.
//!
//! Built without the vendor's headers, only [`OpenError::NotBuilt`] is left of all this; see `docs/tensorrt.md`.

pub mod device;
mod error;
mod plan;
mod shape;
mod version;

#[cfg(tensorrt_shim)]
#[rustfmt::skip]
mod bindings;
#[cfg(tensorrt_shim)]
mod builder;
#[cfg(tensorrt_shim)]
mod context;
#[cfg(tensorrt_shim)]
mod engine;
#[cfg(tensorrt_shim)]
mod hooks;
#[cfg(tensorrt_shim)]
mod library;
#[cfg(tensorrt_shim)]
mod owned;
#[cfg(tensorrt_shim)]
mod runtime;
#[cfg(tensorrt_shim)]
mod store;

pub use error::{Code, Error, OpenError, Reported, Reports};
pub use plan::{Origin, Plan, PlanError, digest};
pub use shape::{Bounds, ElementType, MAX_RANK, Shape};
pub use version::Version;

#[cfg(tensorrt_shim)]
pub use builder::{BuildError, BuildOptions, Built, ROWS, Span, Specification, build};
#[cfg(tensorrt_shim)]
pub use context::Context;
#[cfg(tensorrt_shim)]
pub use engine::{Direction, Engine, Tensor};
#[cfg(tensorrt_shim)]
pub use hooks::{Callbacks, LogSink, Severity, Watch};
#[cfg(tensorrt_shim)]
pub use library::{Library, header_version};
#[cfg(tensorrt_shim)]
pub use runtime::{Runtime, RuntimeOptions};
#[cfg(tensorrt_shim)]
pub use store::{EngineStore, StoreError, Stored, Wanted};

/// What was found of TensorRT, for a report to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: std::path::PathBuf,
    /// Its version.
    pub version: Version,
    /// Whether it makes engines, or only runs them.
    pub builder: bool,
}

/// Looks for TensorRT without starting it; `path` as in [`Library::open`].
///
/// # Errors
/// There is none, or not one that can be used.
pub fn find(path: Option<&std::path::Path>) -> Result<Found, OpenError> {
    #[cfg(tensorrt_shim)]
    {
        let library = Library::open(path)?;
        Ok(Found {
            path: library.path().to_path_buf(),
            version: library.version(),
            builder: library.has_builder(),
        })
    }
    #[cfg(not(tensorrt_shim))]
    {
        let _ = path;
        Err(OpenError::NotBuilt)
    }
}
