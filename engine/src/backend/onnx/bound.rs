//! The only calls into ONNX Runtime's C interface that `ort` has no safe form for.
//!
//! `ort` 2.0.0-rc.15 cannot bind borrowed memory as an *input*: its
//! `IoBinding::bind_input` clones a borrowed tensor and deadlocks on a global
//! lock. So tensors over the K/V arena are made here with
//! `CreateTensorWithDataAsOrtValue`, and a run takes plain pointers. ONNX Runtime
//! then reads the past and writes the present in the same memory.
#![expect(
    unsafe_code,
    reason = "FFI with ONNX Runtime; each block states why it is sound"
)]

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::session::{RunOptions, Session};
use ort::value::{DynValue, Value};
use ort::{AsPointer as _, ortsys};

/// Version string of a library that `ort` has already loaded and accepted.
pub(super) fn library_version(path: &Path) -> Option<String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the library is loaded already, so opening it again only counts a
    // reference and runs no initialiser.
    let library = unsafe { libloading::Library::new(path) }.ok()?;
    // SAFETY: `ort` found this symbol before; its type is ONNX Runtime's stable
    // C interface.
    let get_api_base = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase") }.ok()?;
    // SAFETY: takes no argument; returns a pointer to a static structure.
    let base = unsafe { get_api_base().as_ref() }?;
    // SAFETY: returns a static NUL-terminated string, which outlives `library`
    // because `ort` keeps the library loaded for the life of the process.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    Some(version.to_str().ok()?.to_owned())
}

/// Runs `session` on named values; an output of `None` is allocated by ONNX
/// Runtime on the host, one of `Some` is written in place.
///
/// Outputs may share memory with inputs where the operator supports it
/// (GroupQueryAttention's past and present).
///
/// # Errors
/// As ONNX Runtime reports: unknown name, wrong type or shape, a failed kernel,
/// or termination through `options`.
pub(super) fn run(
    session: &mut Session,
    options: &RunOptions,
    inputs: &[(&CStr, &DynValue)],
    outputs: &mut [(&CStr, Option<DynValue>)],
) -> ort::Result<()> {
    let input_names: Vec<_> = inputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let input_values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
    let output_names: Vec<_> = outputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let mut output_values: Vec<*mut ort::sys::OrtValue> = outputs
        .iter_mut()
        .map(|(_, value)| value.as_mut().map_or(ptr::null_mut(), |v| v.ptr_mut()))
        .collect();
    // SAFETY: every array has the length passed with it and lives across the
    // call; names are NUL-terminated; the session is borrowed exclusively, as
    // `Run` needs it.
    ortsys![unsafe Run(
        session.ptr().cast_mut(),
        options.ptr(),
        input_names.as_ptr(),
        input_values.as_ptr(),
        input_values.len(),
        output_names.as_ptr(),
        output_names.len(),
        output_values.as_mut_ptr(),
    )?];
    for ((_, output), value) in outputs.iter_mut().zip(output_values) {
        if output.is_none() {
            let Some(value) = NonNull::new(value) else {
                return Err(ort::Error::new(
                    "ONNX Runtime returned no value for an output",
                ));
            };
            // SAFETY: ONNX Runtime allocated this value for us, with the
            // session's own allocator.
            *output = Some(unsafe { Value::from_ptr(value, Some(session.allocator())) });
        }
    }
    Ok(())
}

/// A name as C wants it.
///
/// # Errors
/// The name holds a NUL.
pub(super) fn c_name(name: &str) -> ort::Result<CString> {
    CString::new(name).map_err(|_| ort::Error::new(format!("`{name:?}` holds a NUL")))
}
