//! A device whose context is lost, and how this process gets it back.
//!
//! After an illegal access or a failed launch every call in the device's primary context
//! fails, whoever makes it; ONNX Runtime and TensorRT use the same context. Only a reset
//! ends that, and it takes all memory on the device with it.
#![expect(unsafe_code, reason = "asks the driver")]

use cudarc::driver::{CudaContext, result, sys};

use super::CudaError;
use super::device::failed;
use super::driver;

/// Whether nothing works on a device any more in this process. A device that is not
/// there is not lost. Waits until what was asked for there is done.
#[must_use]
pub fn is_lost(ordinal: u32) -> bool {
    if driver::start().is_err() {
        return false;
    }
    let asked = CudaContext::new(ordinal as usize).and_then(|context| context.synchronize());
    asked.is_err_and(|error| failed("work", &error).is_sticky())
}

/// Makes a device's context anew. Everything that this process holds on the device is
/// gone afterwards: whoever used it must have ended before.
///
/// # Errors
/// [`CudaError::Absent`] where there is no driver; [`CudaError::Driver`].
pub fn reset(ordinal: u32) -> Result<(), CudaError> {
    driver::start()?;
    let refused = |error| failed("reset", &error);
    let device = result::device::get(ordinal as i32).map_err(refused)?;
    // SAFETY: `device` is one that the driver has just named.
    let code = unsafe { sys::cuDevicePrimaryCtxReset_v2(device) };
    code.result().map_err(refused)
}
