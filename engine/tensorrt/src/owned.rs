//! Handles of the C interface that end with their owner.
#![expect(
    unsafe_code,
    reason = "destroys handles of the C interface; each block states why it is sound"
)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

use crate::bindings as sys;
use crate::error::Error;
use crate::shape::{MAX_RANK, Shape};

const _: () = assert!(MAX_RANK == sys::SLUICE_TRT_MAX_RANK as usize);

/// An object of TensorRT's, destroyed when dropped.
pub(crate) struct Owned<T> {
    raw: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

// SAFETY: TensorRT's objects are tied to no thread. Which of them may be used from several at once is for the
// wrappers to say; this is not `Sync`.
unsafe impl<T> Send for Owned<T> {}

impl<T> Owned<T> {
    /// Takes over what a `_create` function of the C interface gave, unless that is null.
    ///
    /// # Safety
    /// `raw` is null or a live object that nothing else destroys, and `destroy` is the function for it. What it
    /// depends on outlives the result.
    pub(crate) unsafe fn new(raw: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        let raw = NonNull::new(raw)?;
        Some(Self { raw, destroy })
    }

    pub(crate) fn raw(&self) -> *mut T {
        self.raw.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`, live and ours.
        unsafe { (self.destroy)(self.raw.as_ptr()) }
    }
}

/// Copies the bytes of host memory that TensorRT gave, which may be null.
///
/// # Safety
/// `raw` is null or what a function of the C interface just returned as memory that the caller destroys.
pub(crate) unsafe fn copy_memory(raw: *mut sys::sluice_trt_memory) -> Option<Vec<u8>> {
    // SAFETY: by the contract; depends on nothing else once it is made.
    let memory = unsafe { Owned::new(raw, sys::sluice_trt_memory_destroy) }?;
    // SAFETY: live until the end of this function.
    let (data, bytes) = unsafe {
        (
            sys::sluice_trt_memory_data(memory.raw()),
            sys::sluice_trt_memory_bytes(memory.raw()),
        )
    };
    let bytes = usize::try_from(bytes).ok()?;
    if data.is_null() || bytes == 0 {
        return None;
    }
    // SAFETY: TensorRT says that so many bytes lie there; they are copied before `memory` ends.
    Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) }.to_vec())
}

/// A text that lives as long as some object of TensorRT's; `None` for null.
///
/// # Safety
/// `text` is null or points to a string that ends with NUL and is valid during the call.
pub(crate) unsafe fn copy_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the contract.
    Some(
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    )
}

pub(crate) fn c_text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Name(text.to_owned()))
}

/// `None` where TensorRT means "no such tensor".
pub(crate) fn shape_from(shape: &sys::sluice_trt_shape) -> Option<Shape> {
    let rank = usize::try_from(shape.rank).ok()?;
    Shape::new(shape.sizes.get(..rank)?)
}

pub(crate) fn shape_to(shape: &Shape) -> sys::sluice_trt_shape {
    let mut sizes = [0; MAX_RANK];
    let given = shape.sizes();
    sizes[..given.len()].copy_from_slice(given);
    sys::sluice_trt_shape {
        // At most MAX_RANK.
        rank: i32::try_from(given.len()).unwrap_or(-1),
        sizes,
    }
}
