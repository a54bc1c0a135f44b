//! NVIDIA's libraries as this process would find them: opened, and asked for their
//! version.
#![expect(
    unsafe_code,
    reason = "opens libraries and asks them for their version"
)]

use std::error::Error as _;
use std::ffi::c_int;
use std::path::{Path, PathBuf};

use libloading::Library;

/// A library, and how it tells its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvidiaLibrary {
    /// CUDA's runtime.
    Cudart,
    /// Matrix products.
    Cublas,
    /// Convolutions and attention.
    Cudnn,
    /// The compiler that runs when the server starts.
    Nvrtc,
    /// TensorRT's runtime.
    TensorRt,
}

/// A library that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Name under which it was found.
    pub name: &'static str,
    /// The file, where the system tells.
    pub path: Option<PathBuf>,
    /// Its version, where it tells.
    pub version: Option<String>,
}

impl NvidiaLibrary {
    /// Names under which it is looked for: those of CUDA 13, of cuDNN 9, of TensorRT 10
    /// and later.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Cudart => &["libcudart.so.13"],
            Self::Cublas => &["libcublas.so.13"],
            Self::Cudnn => &["libcudnn.so.9"],
            Self::Nvrtc => &["libnvrtc.so.13"],
            Self::TensorRt => &["libnvinfer.so.11", "libnvinfer.so.10"],
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// The loader's words when it is missing, or something that it needs is.
    pub fn open(self) -> Result<Opened, String> {
        let mut problem = String::new();
        for name in self.names() {
            match load(Path::new(name)) {
                Ok(library) => {
                    return Ok(Opened {
                        name,
                        path: mapped_file(name),
                        version: self.version(&library),
                    });
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn version(self, library: &Library) -> Option<String> {
        match self {
            Self::Cudart => {
                // SAFETY: its type in cuda_runtime_api.h.
                let ask = unsafe {
                    library
                        .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cudaRuntimeGetVersion")
                };
                let mut version = 0;
                // SAFETY: it writes one number; needs no device.
                let code = unsafe { ask.ok()?(&raw mut version) };
                (code == 0).then(|| dotted(&[version / 1000, version % 1000 / 10]))
            }
            Self::Nvrtc => {
                type Ask = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
                // SAFETY: its type in nvrtc.h.
                let ask = unsafe { library.get::<Ask>(b"nvrtcVersion") }.ok()?;
                let (mut major, mut minor) = (0, 0);
                // SAFETY: it writes two numbers.
                let code = unsafe { ask(&raw mut major, &raw mut minor) };
                (code == 0).then(|| dotted(&[major, minor]))
            }
            Self::Cudnn => {
                // SAFETY: its type in cudnn_version.h.
                let ask =
                    unsafe { library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion") };
                // SAFETY: takes nothing and returns a number.
                let version = unsafe { ask.ok()?() } as c_int;
                Some(dotted(&[
                    version / 10_000,
                    version / 100 % 100,
                    version % 100,
                ]))
            }
            Self::TensorRt => {
                // SAFETY: its type in NvInferRuntime.h.
                let ask =
                    unsafe { library.get::<unsafe extern "C" fn() -> i32>(b"getInferLibVersion") };
                // SAFETY: takes nothing and returns a number.
                let version = unsafe { ask.ok()?() };
                Some(dotted(&[
                    version / 10_000,
                    version / 100 % 100,
                    version % 100,
                ]))
            }
            Self::Cublas => None,
        }
    }
}

/// Opens ONNX Runtime's provider in `folder` (`cuda` or `tensorrt`), as ONNX Runtime
/// does.
///
/// # Errors
/// The loader's words: usually which library it needs and does not find.
pub fn open_provider(folder: &Path, name: &str) -> Result<PathBuf, String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let shared = folder.join("libonnxruntime_providers_shared.so");
    let provider = folder.join(format!("libonnxruntime_providers_{name}.so"));
    for file in [&shared, &provider] {
        if !file.exists() {
            return Err(format!("{} is missing", file.display()));
        }
    }
    // SAFETY: ONNX Runtime opens these in the same way. The first holds nothing but a
    // pointer that the second looks up; both stay open for the life of the process.
    let opened = unsafe {
        Library::open(Some(&shared), RTLD_NOW | RTLD_GLOBAL)
            .map(std::mem::forget)
            .and_then(|()| load_now(&provider).map(std::mem::forget))
    };
    opened.map_err(|error| words(&error))?;
    Ok(provider)
}

/// # Safety
/// As [`Library::new`].
unsafe fn load_now(path: &Path) -> Result<libloading::os::unix::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: the caller's promise.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
}

fn load(path: &Path) -> Result<Library, String> {
    // SAFETY: NVIDIA's libraries have initialisers that every program using them runs.
    unsafe { Library::new(path) }.map_err(|error| words(&error))
}

/// What the loader says, on one line; the binding's own error only says that it failed.
fn words(error: &libloading::Error) -> String {
    let text = match error.source() {
        Some(loader) => loader.to_string(),
        None => error.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn dotted(numbers: &[c_int]) -> String {
    let parts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    parts.join(".")
}

/// The file from which a library of this name is loaded in this process.
fn mapped_file(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let stem = name.split(".so").next()?;
    let files = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let file = files.map(Path::new).find(|file| {
        let own = file.file_name().and_then(|own| own.to_str());
        own.and_then(|own| own.strip_prefix(stem))
            .is_some_and(|rest| rest.starts_with(".so"))
    })?;
    Some(file.to_path_buf())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn what_is_not_there_is_said_in_one_line() {
        let error = load(Path::new("libnobody.so.1")).unwrap_err();
        assert!(error.contains("libnobody.so.1") && !error.contains('\n'));
        let folder = tempfile::tempdir().unwrap();
        let error = open_provider(folder.path(), "cuda").unwrap_err();
        assert!(error.contains("providers_shared.so is missing"), "{error}");
    }

    #[test]
    fn a_provider_that_cannot_be_opened_is_told_from_one_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["shared", "cuda"] {
            let file = format!("libonnxruntime_providers_{name}.so");
            std::fs::write(folder.path().join(file), "not a library").unwrap();
        }
        let error = open_provider(folder.path(), "cuda").unwrap_err();
        assert!(
            !error.contains("missing") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn a_loaded_library_is_traced_to_its_file() {
        assert!(mapped_file("libc.so.6").unwrap().exists());
        assert_eq!(mapped_file("libnobody.so.1"), None);
    }

    #[test]
    fn every_library_has_an_answer() {
        use NvidiaLibrary as N;
        for library in [N::Cudart, N::Cublas, N::Cudnn, N::Nvrtc, N::TensorRt] {
            match library.open() {
                Ok(opened) => assert!(library.names().contains(&opened.name)),
                Err(error) => assert!(error.contains(library.names()[library.names().len() - 1])),
            }
        }
    }
}
