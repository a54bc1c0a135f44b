//! What a device lends: memory and streams. TensorRT is given both by us, so that one place accounts for them all.
#![expect(
    unsafe_code,
    reason = "the traits promise what the compiler cannot see: that device pointers are valid"
)]

use std::ffi::c_void;
use std::ptr::NonNull;

/// Lends device memory to TensorRT: weights, and what it needs in passing.
///
/// # Safety
/// Memory that `allocate` gave is valid on the device, and nobody else's, until `release` has it back. Both may be
/// called from any thread.
pub unsafe trait DeviceAllocator: Send + Sync {
    /// Memory of `bytes` bytes at a multiple of `alignment` (0 asks for nothing special), usable in the order of
    /// `stream` (a `cudaStream_t`, null for the default one). `None` when there is none left.
    fn allocate(&self, bytes: u64, alignment: u64, stream: *mut c_void) -> Option<NonNull<c_void>>;

    /// Takes memory back. `false` if it was not from here.
    fn release(&self, memory: NonNull<c_void>, stream: *mut c_void) -> bool;
}

/// A piece of device memory that a tensor or a context may use for as long as this value lives.
///
/// # Safety
/// `address` and `bytes` describe memory valid for reads and writes on the context's device and never change. While
/// a step is in flight nothing else writes to it, nor reads it if the step writes.
pub unsafe trait DeviceMemory: Send + Sync {
    /// Where it starts, on the device.
    fn address(&self) -> NonNull<c_void>;
    /// How long it is.
    fn bytes(&self) -> u64;
}

/// A queue of work on the device.
///
/// # Safety
/// `raw` is a valid `cudaStream_t` for as long as this value lives. `synchronize` returns only when all that was
/// queued before has ended or can no longer touch memory.
pub unsafe trait DeviceStream: Send + Sync {
    /// The `cudaStream_t`.
    fn raw(&self) -> *mut c_void;

    /// Waits for the work queued so far.
    ///
    /// # Errors
    /// The driver's words about what failed since the last call.
    fn synchronize(&self) -> Result<(), String>;
}
