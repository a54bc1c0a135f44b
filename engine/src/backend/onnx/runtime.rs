//! The ONNX Runtime library: found, loaded once, and asked what it can do.
//!
//! The library is opened at run time, so the binary builds and starts without
//! it. ONNX Runtime allows one environment a process; this module owns it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use parking_lot::Mutex;

use crate::error::LoadError;

const LIBRARY: &str = "libonnxruntime.so";

/// Where the arithmetic runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Provider {
    /// The host's cores.
    #[default]
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda {
        /// CUDA's device number.
        device: u32,
    },
    /// ONNX Runtime's TensorRT provider; what it declines runs on CUDA.
    TensorRt {
        /// CUDA's device number.
        device: u32,
    },
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { device } => write!(f, "cuda:{device}"),
            Self::TensorRt { device } => write!(f, "tensorrt:{device}"),
        }
    }
}

impl Provider {
    /// CUDA's number of the device; none on the host.
    #[must_use]
    pub fn device(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Cuda { device } | Self::TensorRt { device } => Some(device),
        }
    }
}

/// ONNX Runtime's name of the memory that a provider computes in.
pub(super) fn device_memory(provider: Provider) -> ort::Result<MemoryInfo<'static>> {
    match provider.device() {
        None => Ok(MemoryInfo::default()),
        Some(device) => MemoryInfo::new(
            AllocationDevice::CUDA,
            i32::try_from(device).unwrap_or(i32::MAX),
            AllocatorType::Device,
            MemoryType::Default,
        ),
    }
}

/// The loaded library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// File it was loaded from.
    pub path: PathBuf,
    /// Version as the library reports it, for example `1.32.0`.
    pub version: String,
}

impl RuntimeInfo {
    /// The `32` of `1.32.0`; 0 when the version cannot be read.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.version
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok())
            .unwrap_or(0)
    }
}

struct Loaded {
    info: RuntimeInfo,
    environment: Environment,
}

/// ONNX Runtime's environment is one a process and lives until the process ends.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Loads ONNX Runtime, once a process; later calls report what is loaded.
///
/// `library` is tried alone when given. Otherwise, in this order:
/// `$ORT_DYLIB_PATH`, `$SLUICE_DATA/lib/libonnxruntime.so`,
/// `data/lib/libonnxruntime.so`, and beside the executable.
///
/// # Errors
/// [`LoadError::Runtime`] naming every place that was tried.
pub fn init_runtime(library: Option<&Path>) -> Result<RuntimeInfo, LoadError> {
    with_loaded(library, |loaded| loaded.info.clone())
}

/// The environment that sessions are made in; loads the library if need be.
pub(super) fn environment() -> Result<(RuntimeInfo, Environment), LoadError> {
    with_loaded(None, |loaded| {
        (loaded.info.clone(), loaded.environment.clone())
    })
}

/// Whether the loaded library was built with `provider`; its own libraries may still
/// be missing. `false` when none is loaded.
#[must_use]
pub fn has_provider(provider: Provider) -> bool {
    // Asking would load a library from anywhere.
    if LOADED.lock().is_none() {
        return false;
    }
    let built_in = match provider {
        Provider::Cpu => return true,
        Provider::Cuda { .. } => ort::ep::CUDA::is_available(),
        Provider::TensorRt { .. } => ort::ep::TensorRT::is_available(),
    };
    built_in.unwrap_or(false)
}

/// Says in one line why `provider` cannot be used with the loaded library.
///
/// # Errors
/// [`LoadError::Runtime`].
pub(super) fn check_provider(provider: Provider, info: &RuntimeInfo) -> Result<(), LoadError> {
    if has_provider(provider) {
        return Ok(());
    }
    let name = match provider {
        Provider::Cpu => "CPU",
        Provider::Cuda { .. } => "CUDA",
        Provider::TensorRt { .. } => "TensorRT",
    };
    Err(LoadError::Runtime(format!(
        "the {name} provider is not in this ONNX Runtime ({} {}): use a GPU build of the library, \
         or provider = \"cpu\" (`sluice doctor` says what is missing)",
        info.path.display(),
        info.version
    )))
}

fn with_loaded<T>(library: Option<&Path>, then: impl FnOnce(&Loaded) -> T) -> Result<T, LoadError> {
    let mut slot = LOADED.lock();
    if let Some(loaded) = slot.as_ref() {
        return Ok(then(loaded));
    }
    let loaded = load(&find(&places(library))?)?;
    tracing::info!(version = loaded.info.version, path = %loaded.info.path.display(), "ONNX Runtime loaded");
    Ok(then(slot.insert(loaded)))
}

/// Candidate files, best first.
fn places(library: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = library {
        return vec![path.to_path_buf()];
    }
    let mut places = Vec::new();
    let not_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = not_empty("ORT_DYLIB_PATH") {
        places.push(PathBuf::from(path));
    }
    if let Some(data) = not_empty("SLUICE_DATA") {
        places.push(Path::new(&data).join("lib").join(LIBRARY));
    }
    places.push(Path::new("data").join("lib").join(LIBRARY));
    if let Some(folder) = std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(Path::parent)
    {
        places.push(folder.join(LIBRARY));
    }
    places
}

fn find(places: &[PathBuf]) -> Result<PathBuf, LoadError> {
    // Made absolute, because `ort` resolves relative paths against the executable.
    if let Some(found) = places.iter().find_map(|path| path.canonicalize().ok()) {
        return Ok(found);
    }
    let tried: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
    Err(LoadError::Runtime(format!(
        "ONNX Runtime not found; tried {}. Run `make models`, or set ORT_DYLIB_PATH to the library file",
        tried.join(", ")
    )))
}

fn load(path: &Path) -> Result<Loaded, LoadError> {
    let failed =
        |what: &dyn fmt::Display| LoadError::Runtime(format!("{}: {what}", path.display()));
    let environment = ort::init_from(path)
        .map_err(|e| failed(&e))?
        .with_name("sluice")
        .with_telemetry(false)
        .with_logger(Arc::new(forward_log))
        .build()
        .map_err(|e| failed(&e))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(Loaded {
        info: RuntimeInfo {
            path: path.to_path_buf(),
            version: super::bound::library_version(path).unwrap_or_else(|| "unknown".to_owned()),
        },
        environment,
    })
}

/// ONNX Runtime's own log. Its errors come back as `Err` too, so they are not
/// errors a second time here.
fn forward_log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Error => tracing::debug!(target: "onnxruntime", category, location, "{message}"),
        _ => tracing::trace!(target: "onnxruntime", category, location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_missing_library_names_the_places_tried_and_the_remedy() {
        let text = find(&["/nowhere/a.so".into(), "/nowhere/b.so".into()])
            .unwrap_err()
            .to_string();
        for part in [
            "/nowhere/a.so",
            "/nowhere/b.so",
            "make models",
            "ORT_DYLIB_PATH",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn an_explicit_path_is_tried_alone() {
        assert_eq!(places(Some(Path::new("/x.so"))), [PathBuf::from("/x.so")]);
    }

    #[test]
    fn a_provider_that_is_not_built_in_is_refused_in_one_line() {
        super::super::testing::ready();
        let info = init_runtime(None).unwrap();
        assert!(info.minor() >= 24, "{info:?}");
        check_provider(Provider::Cpu, &info).unwrap();
        if let Err(error) = check_provider(Provider::TensorRt { device: 0 }, &info) {
            let text = error.to_string();
            assert!(text.contains("TensorRT") && !text.contains('\n'), "{text}");
        }
    }
}
