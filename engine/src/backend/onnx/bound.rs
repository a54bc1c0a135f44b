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

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use ort::memory::{Allocator, MemoryInfo};
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, TensorElementType, Value};
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

/// A tensor over memory that it does not own, from the address `start` on.
///
/// # Safety
/// The memory must be valid for reads and writes of `bytes` bytes on the device
/// that `info` names, aligned for `element`, for as long as the returned value
/// is used in a run; nothing else may access it during a run.
pub(super) unsafe fn borrow_tensor(
    start: usize,
    bytes: usize,
    shape: &[i64],
    element: TensorElementType,
    info: &MemoryInfo<'_>,
) -> ort::Result<DynValue> {
    let mut value: *mut ort::sys::OrtValue = ptr::null_mut();
    // SAFETY: ONNX Runtime checks that `bytes` covers `shape`, copies the shape,
    // and does not touch the memory before a run.
    ortsys![unsafe CreateTensorWithDataAsOrtValue(
        info.ptr(),
        ptr::with_exposed_provenance_mut::<c_void>(start),
        bytes,
        shape.as_ptr(),
        shape.len(),
        element.into(),
        &mut value,
    )?; nonNull(value)];
    // SAFETY: `value` is a tensor made just now and owned by nobody else. The
    // allocator is only kept alive by the value, never asked to free the memory.
    Ok(unsafe { Value::from_ptr(value, Some(&Allocator::default())) })
}

/// Where an output goes.
pub(super) enum Output<'a> {
    /// ONNX Runtime allocates it, on the host; afterwards it is here.
    Allocate(Option<DynValue>),
    /// Into the memory of this tensor, in place.
    Into(&'a DynValue),
}

/// Runs `session` on named values.
///
/// Outputs may share memory with inputs where the operator supports it
/// (GroupQueryAttention's past and present).
///
/// # Errors
/// As ONNX Runtime reports: unknown name, wrong type or shape, a failed kernel,
/// or termination through `options`.
pub(super) fn run(
    session: &Session,
    options: &RunOptions,
    inputs: &[(&CStr, &DynValue)],
    outputs: &mut [(&CStr, Output<'_>)],
) -> ort::Result<()> {
    let input_names: Vec<_> = inputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let input_values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
    let output_names: Vec<_> = outputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let mut output_values: Vec<*mut ort::sys::OrtValue> = outputs
        .iter()
        .map(|(_, output)| match output {
            Output::Allocate(_) => ptr::null_mut(),
            Output::Into(value) => value.ptr().cast_mut(),
        })
        .collect();
    // SAFETY: every array has the length passed with it and lives across the
    // call; names are NUL-terminated; ONNX Runtime
    // allows runs of one session on several threads at once. It writes to the tensors' memory, which
    // `borrow_tensor`'s caller allowed, not to the values themselves.
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
        if let Output::Allocate(allocated) = output {
            let Some(value) = NonNull::new(value) else {
                return Err(ort::Error::new(
                    "ONNX Runtime returned no value for an output",
                ));
            };
            // SAFETY: ONNX Runtime allocated this value for us, with the
            // session's own allocator.
            *allocated = Some(unsafe { Value::from_ptr(value, Some(session.allocator())) });
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
