//! What can go wrong, by what one would do about it.

use std::fmt;
use std::path::PathBuf;

use crate::shape::{Bounds, Shape};
use crate::version::Version;

/// Why there is no TensorRT to be had. None of these is a reason to panic: a machine without it is an ordinary one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This binary was built without the vendor's headers.
    #[error(
        "this binary was built without TensorRT's headers: run scripts/tensorrt.sh headers and build again"
    )]
    NotBuilt,
    /// No file of that name.
    #[error(
        "TensorRT was not found (tried {}): install it, or name its libnvinfer.so in SLUICE_TENSORRT",
        list(.tried)
    )]
    NotFound {
        /// Every place that was tried.
        tried: Vec<PathBuf>,
    },
    /// There, but the loader would not have it.
    #[error("{} could not be opened: {reason}", .path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// A library, but not this one.
    #[error("{} has no {symbol}: it is not TensorRT, or not all of it", .path.display())]
    MissingSymbol {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        symbol: &'static str,
    },
    /// TensorRT, but one whose interface differs.
    #[error(
        "{} is TensorRT {found}; this binary was built for {built}: use {}.{} or a later {}.x, \
         or build with the headers of yours (SLUICE_TENSORRT_INCLUDE)",
        .path.display(), .built.major, .built.minor, .built.major
    )]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// What the file says of itself.
        found: String,
        /// The version of the headers.
        built: Version,
    },
    /// The library has no builder, so engines have to be brought along.
    #[error(
        "{} is a runtime without a builder: it loads engines but cannot make them from a model",
        .path.display()
    )]
    NoBuilder {
        /// The file.
        path: PathBuf,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// A kind of error that TensorRT tells apart (`nvinfer1::ErrorCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Not said.
    Unspecified,
    /// A fault of the library's.
    Internal,
    /// An argument that makes no sense.
    InvalidArgument,
    /// A configuration that makes no sense.
    InvalidConfig,
    /// No memory left.
    FailedAllocation,
    /// No start: no driver, no device.
    FailedInitialization,
    /// A kernel failed.
    FailedExecution,
    /// A kernel ran and its result is not right.
    FailedComputation,
    /// Called at the wrong time.
    InvalidState,
    /// Not supported here.
    UnsupportedState,
}

impl Code {
    #[cfg(tensorrt_shim)]
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            2 => Self::Internal,
            3 => Self::InvalidArgument,
            4 => Self::InvalidConfig,
            5 => Self::FailedAllocation,
            6 => Self::FailedInitialization,
            7 => Self::FailedExecution,
            8 => Self::FailedComputation,
            9 => Self::InvalidState,
            10 => Self::UnsupportedState,
            _ => Self::Unspecified,
        }
    }
}

/// One error as TensorRT reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Its kind.
    pub code: Code,
    /// TensorRT's words.
    pub text: String,
}

/// All errors of one call, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports(pub Vec<Reported>);

impl Reports {
    /// Whether one of them is of this kind.
    #[must_use]
    pub fn any(&self, code: Code) -> bool {
        self.0.iter().any(|report| report.code == code)
    }
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("TensorRT gave no reason");
        }
        for (place, report) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { "; " };
            write!(f, "{gap}{}", report.text.trim())?;
        }
        Ok(())
    }
}

/// Why a call did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library would not even start.
    #[error("TensorRT did not start: {0}")]
    Declined(Reports),
    /// The library will not have this engine: damaged, of another version, for another device.
    #[error("TensorRT refused the engine: {0}")]
    Refused(Reports),
    /// An engine that this interface cannot serve.
    #[error("the engine cannot be used: {0}")]
    Unsupported(String),
    /// No device memory left.
    #[error("out of device memory while {doing}: {reports}")]
    OutOfMemory {
        /// What was being done.
        doing: &'static str,
        /// TensorRT's words.
        reports: Reports,
    },
    /// The call failed at once.
    #[error("TensorRT failed while {doing}: {reports}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// TensorRT's words.
        reports: Reports,
    },
    /// The device failed after the call had returned; it may not work again before the process restarts.
    #[error("the device failed after the step was started: {0}")]
    Asynchronous(Reports),
    /// No such tensor.
    #[error("the engine has no {kind} {name:?}; it has {}", .known.join(", "))]
    UnknownTensor {
        /// Input or output.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No such optimisation profile.
    #[error("the engine has {count} optimisation profiles; there is no number {asked}")]
    UnknownProfile {
        /// What was asked for.
        asked: u32,
        /// How many there are.
        count: u32,
    },
    /// A shape outside the profile's bounds.
    #[error(
        "{name:?} has shape {given}; optimisation profile {profile} takes {} to {}",
        .bounds.smallest, .bounds.largest
    )]
    Shape {
        /// The input.
        name: String,
        /// What was given.
        given: Box<Shape>,
        /// The profile in use.
        profile: u32,
        /// What it takes.
        bounds: Box<Bounds>,
    },
    /// Tensors without which a step cannot start.
    #[error("nothing is set for {}", .0.join(", "))]
    Unset(Vec<String>),
    /// Memory too small for what is to be in it.
    #[error("{what} needs {needed} bytes and was given {given}")]
    TooSmall {
        /// A tensor's name, or the working memory.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// The ONNX parser would not have the model.
    #[error("TensorRT cannot read the model: {}", .0.join("; "))]
    Model(Vec<String>),
    /// A build specification that does not fit the model.
    #[error("{0}")]
    Specification(String),
    /// The watcher said to stop.
    #[error("the build was stopped")]
    Stopped,
    /// A name with a NUL in it.
    #[error("{0:?} has a NUL character in it")]
    Name(String),
}

impl Error {
    #[cfg(tensorrt_shim)]
    pub(crate) fn of(doing: &'static str, reports: Reports) -> Self {
        if reports.any(Code::FailedAllocation) {
            Self::OutOfMemory { doing, reports }
        } else {
            Self::Failed { doing, reports }
        }
    }

    /// Whether the device has to be taken for lost: what runs on it must be moved, and the process restarted.
    #[must_use]
    pub fn loses_device(&self) -> bool {
        matches!(self, Self::Asynchronous(_))
    }
}
