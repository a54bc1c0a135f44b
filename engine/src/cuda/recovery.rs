//! A device whose context is lost, and how this process gets it back.
//!
//! After an illegal access or a failed launch every call in the device's primary context
//! fails, whoever makes it; ONNX Runtime and TensorRT use the same context. Only a reset
//! ends that, and it takes all memory on the device with it.

use cudarc::driver::CudaContext;

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
