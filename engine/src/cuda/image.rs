//! The kernels as they are in the binary: source always, machine code where nvcc was
//! at hand when it was built.

use cudarc::nvrtc::{self, CompileError, CompileOptions, Ptx};

use super::CudaError;

/// A source file of `kernels/`, with its includes written out.
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// Machine code for sm_80 and sm_90, and PTX for what comes after them.
    pub(super) binary: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The oldest devices that the kernels are made for: compute capability 8.0.
pub(super) const OLDEST: (i32, i32) = (8, 0);

/// Whether this binary carries machine code; else NVRTC makes it at the start.
#[must_use]
pub fn compiled_ahead() -> bool {
    IMAGES.iter().all(|image| image.binary.is_some())
}

/// Whether NVRTC is to be found on this machine.
#[must_use]
#[expect(unsafe_code, reason = "opens a library")]
pub fn has_runtime_compiler() -> bool {
    // SAFETY: NVRTC's initialisers do nothing that could harm this process.
    unsafe { nvrtc::sys::is_culib_present() }
}

/// What the driver loads for a device of this compute capability.
pub(super) fn loadable(image: &Image, capability: (i32, i32)) -> Result<Ptx, CudaError> {
    match image.binary {
        Some(binary) => Ok(Ptx::from_binary(binary.to_vec())),
        None => compile(image, capability),
    }
}

/// Compiles every kernel with NVRTC, for a device of this compute capability; needs
/// no device.
///
/// # Errors
/// [`CudaError::Kernel`]: NVRTC is missing or refuses a kernel.
pub fn compile_all(capability: (i32, i32)) -> Result<(), CudaError> {
    IMAGES
        .iter()
        .try_for_each(|image| compile(image, capability).map(drop))
}

fn compile(image: &Image, (major, minor): (i32, i32)) -> Result<Ptx, CudaError> {
    let refused = |reason: String| CudaError::Kernel {
        kernel: image.name,
        reason,
    };
    if !has_runtime_compiler() {
        return Err(refused(
            "this binary was built without nvcc, and NVRTC (libnvrtc.so) is not installed; \
             install CUDA's NVRTC, or build where nvcc is"
                .to_owned(),
        ));
    }
    let options = CompileOptions {
        // As build.rs: every operation rounds as the CPU's does.
        fmad: Some(false),
        options: vec![
            "--std=c++17".to_owned(),
            format!("--gpu-architecture=compute_{major}{minor}"),
        ],
        name: Some(format!("{}.cu", image.name)),
        ..CompileOptions::default()
    };
    nvrtc::compile_ptx_with_opts(image.source, options).map_err(|error| {
        refused(match error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            other => other.to_string(),
        })
    })
}
