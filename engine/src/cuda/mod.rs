//! What the engine does on NVIDIA devices by itself, beside ONNX Runtime: sampling
//! where the logits are, so that only token ids come back; moves of K/V between
//! slots; gathering of hidden rows; pooling.
//!
//! The driver is opened at run time and its absence is an ordinary answer
//! ([`Absent`]). Kernels ([`image`]) are compiled when this crate is built, or by
//! NVRTC when the server starts. Each kernel's module builds a [`Launch`] from
//! checked shapes; a [`Machine`] carries it out: a [`Device`], or in tests an
//! emulator that runs the same source on the CPU. Each kernel has its reference
//! there: [`crate::sampler`], the arena's copies, the encoder's pooling.

mod buffers;
mod device;
mod driver;
mod gather;
mod image;
mod libraries;
mod machine;
mod pooling;
mod primary;
mod sampling;
mod slots;

#[cfg(test)]
mod emulator;
#[cfg(test)]
pub(crate) mod standin;
#[cfg(test)]
mod tests;

pub use device::{Device, DeviceBuffer, Event, Memory};
pub use driver::{Absent, Gpu, WANTED_DRIVER, discover, driver_version};
pub use gather::{Gather, RowGather};
pub use image::{compile_all, compiled_ahead, has_runtime_compiler};
pub use libraries::{NvidiaLibrary, Opened, open_provider};
pub use machine::{Buffer, Float, Launch, Machine};
pub use pooling::{Hidden, PoolKernel};
pub use primary::Room;
pub use sampling::{LogitsView, SampleKernel};
pub use slots::{SlotMove, SlotMoves, SlotShape, compaction};

/// Something on the device did not go as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no device to run on.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// The device's memory, or the budget of it, does not suffice.
    #[error("{wanted} bytes of device memory were asked for, {free} are free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that could be had.
        free: u64,
    },
    /// A GPU cannot be reset under the hands of who uses it.
    #[error("GPU {0} is in use by this process: everything on it has to be dropped first")]
    InUse(u32),
    /// Buffers, shapes and indices disagree; nothing was launched.
    #[error("{0}")]
    Shape(String),
    /// A kernel could not be compiled or loaded.
    #[error("kernel `{kernel}` cannot be used: {reason}")]
    Kernel {
        /// Name of the source file, without its extension.
        kernel: &'static str,
        /// The compiler's or the driver's words.
        reason: String,
    },
    /// A call of the driver failed.
    #[error("{call}: {reason}")]
    Driver {
        /// What was tried.
        call: &'static str,
        /// The driver's name for the error.
        reason: String,
        /// Nothing works in this process's context from now on: the replica has to
        /// be ejected and its process or context made anew.
        sticky: bool,
    },
}

impl CudaError {
    /// Whether the device is lost to this process (an illegal access, a failed launch).
    #[must_use]
    pub fn is_sticky(&self) -> bool {
        matches!(self, Self::Driver { sticky: true, .. })
    }
}
