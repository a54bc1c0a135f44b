//! The library itself: found, opened once, and asked what it is.
//!
//! It is opened at run time and never linked, so one binary serves machines with and without it. Once open it stays
//! open until the process ends: it has threads and thread-local memory of its own that outlive its last object.
#![expect(
    unsafe_code,
    reason = "opens a library and takes its symbols; each block states why it is sound"
)]

use std::env;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use crate::bindings as sys;
use crate::error::OpenError;
use crate::version::Version;

/// Names the library's file.
const VARIABLE: &str = "SLUICE_TENSORRT";
const VERSION: &str = "getInferLibVersion";
const RUNTIME: &str = "createInferRuntime_INTERNAL";
const BUILDER: &str = "createInferBuilder_INTERNAL";
const PARSER: &str = "createNvOnnxParser_INTERNAL";

/// An address in an open library.
#[derive(Clone, Copy)]
pub(crate) struct Entry(pub(crate) *mut c_void);

// SAFETY: the address of a function of a library that is never closed; it is the same on every thread.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// An open TensorRT of a version that this binary can talk to.
pub struct Library {
    path: PathBuf,
    version: Version,
    pub(crate) runtime: Entry,
    builder: Option<Entry>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("builder", &self.builder.is_some())
            .finish()
    }
}

/// The version of the headers that this binary was built with.
#[must_use]
pub fn header_version() -> Version {
    // SAFETY: a function of our own shim without arguments or effects.
    let number = unsafe { sys::sluice_trt_header_version() };
    Version::from_number(number).unwrap_or(Version::new(0, 0, 0))
}

impl Library {
    /// Opens the library at `path`, or, without one: what `$SLUICE_TENSORRT` names, else the one that the loader
    /// finds, else that in `$SLUICE_DATA/lib`. The full library is preferred to the lean runtime.
    ///
    /// # Errors
    /// There is none, or not one that can be used.
    pub fn open(path: Option<&Path>) -> Result<Self, OpenError> {
        let named = env::var_os(VARIABLE).filter(|value| !value.is_empty());
        if let Some(path) = path.map(Path::to_path_buf).or(named.map(PathBuf::from)) {
            return Self::open_file(&path);
        }
        let tried = places();
        for path in &tried {
            match Self::open_file(path) {
                Err(OpenError::NotFound { .. } | OpenError::Unloadable { .. }) => {}
                answer => return answer,
            }
        }
        Err(OpenError::NotFound { tried })
    }

    fn open_file(path: &Path) -> Result<Self, OpenError> {
        let library = open(path)?;
        let version = symbol(&library, path, VERSION)?;
        let runtime = symbol(&library, path, RUNTIME)?;
        // SAFETY: `getInferLibVersion` is declared in the vendor's headers as taking nothing and returning an int,
        // and has been since the first version.
        let number = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(version.0)()
        };
        let built = header_version();
        let version = Version::from_number(number)
            .filter(|version| version.serves(built))
            .ok_or_else(|| OpenError::WrongVersion {
                path: path.to_path_buf(),
                found: Version::from_number(number)
                    .map_or_else(|| format!("of version {number}"), |v| v.to_string()),
                built,
            })?;
        let builder = symbol(&library, path, BUILDER).ok();
        tracing::info!(%version, path = %path.display(), builder = builder.is_some(), "TensorRT opened");
        Ok(Self {
            path: path.to_path_buf(),
            version,
            runtime,
            builder,
        })
    }

    /// The file it was opened from, or the name that the loader knew.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it can make engines.
    #[must_use]
    pub fn has_builder(&self) -> bool {
        self.builder.is_some()
    }

    pub(crate) fn builder(&self) -> Result<Entry, OpenError> {
        self.builder.ok_or_else(|| OpenError::NoBuilder {
            path: self.path.clone(),
        })
    }

    /// Opens the ONNX parser, a library of its own, beside this one or where the loader finds it.
    pub(crate) fn parser(&self) -> Result<Entry, OpenError> {
        let mut tried = Vec::new();
        for name in parser_names() {
            if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
                tried.push(folder.join(&name));
            }
            tried.push(PathBuf::from(name));
        }
        for path in &tried {
            if let Ok(library) = open(path) {
                return symbol(&library, path, PARSER);
            }
        }
        Err(OpenError::NotFound { tried })
    }
}

/// What to try without being told, best first.
fn places() -> Vec<PathBuf> {
    let major = header_version().major;
    let names = [
        format!("libnvinfer.so.{major}"),
        "libnvinfer.so".to_owned(),
        format!("libnvinfer_lean.so.{major}"),
        format!("libtensorrt_rtx.so.{major}"),
    ];
    let data = env::var_os("SLUICE_DATA").map_or_else(|| PathBuf::from("data"), PathBuf::from);
    let beside = names.iter().map(|name| data.join("lib").join(name));
    names.iter().map(PathBuf::from).chain(beside).collect()
}

fn parser_names() -> Vec<String> {
    let major = header_version().major;
    vec![
        format!("libnvonnxparser.so.{major}"),
        "libnvonnxparser.so".to_owned(),
        format!("libtensorrt_onnxparser_rtx.so.{major}"),
    ]
}

fn open(path: &Path) -> Result<ManuallyDrop<libloading::Library>, OpenError> {
    // A path that is no file says so; a bare name is the loader's to look for.
    if path.components().count() > 1 && !path.exists() {
        return Err(OpenError::NotFound {
            tried: vec![path.to_path_buf()],
        });
    }
    // SAFETY: initialisers of the library run. The file is the one that the operator installed or named; what it does
    // is as trusted as this binary.
    let library = unsafe { libloading::Library::new(path) };
    library
        .map(ManuallyDrop::new)
        .map_err(|error| OpenError::Unloadable {
            path: path.to_path_buf(),
            reason: words(&error),
        })
}

fn words(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

fn symbol(
    library: &libloading::Library,
    path: &Path,
    name: &'static str,
) -> Result<Entry, OpenError> {
    // SAFETY: the address is only taken here. Who calls it gives it the type that the vendor's header declares.
    let symbol = unsafe { library.get::<*mut c_void>(name) };
    match symbol {
        Ok(symbol) if !symbol.is_null() => Ok(Entry(*symbol)),
        _ => Err(OpenError::MissingSymbol {
            path: path.to_path_buf(),
            symbol: name,
        }),
    }
}
