//! What a [`Device`] lends to TensorRT: its stream, and memory within its budget.
//!
//! TensorRT asks from threads of its own, so the device is behind a lock. The lock is
//! never held across a call of TensorRT's, which may ask for memory in the middle.
#![expect(
    unsafe_code,
    reason = "promises of the device that the compiler cannot see; each says why it holds"
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use sluice_tensorrt::device::{DeviceAllocator, DeviceMemory, DeviceStream};

use crate::backend::pooled::{Pooled, Pooler};
use crate::cuda::{Buffer as _, CudaError, Device, DeviceBuffer, Machine as _};

/// The driver's memory starts at multiples of this.
const ALIGNMENT: u64 = 256;

/// A device that TensorRT and this crate use together.
#[derive(Debug, Clone)]
pub(super) struct Gpu(Arc<Mutex<Device>>);

impl Gpu {
    pub(super) fn new(device: Device) -> Self {
        Self(Arc::new(Mutex::new(device)))
    }

    /// Makes this thread use the device: TensorRT works on whichever is the thread's.
    pub(super) fn enter(&self) -> Result<(), CudaError> {
        self.0.lock().make_current()
    }

    /// Name and compute capability: an engine is built for both.
    pub(super) fn name(&self) -> String {
        let device = self.0.lock();
        let gpu = device.gpu();
        format!("{} {}.{}", gpu.name, gpu.capability.0, gpu.capability.1)
    }

    pub(super) fn allocate(&self, bytes: u64) -> Result<Arc<Lent>, CudaError> {
        let size = usize::try_from(bytes).map_err(|_| CudaError::OutOfMemory {
            wanted: bytes,
            free: 0,
        })?;
        let buffer = self.0.lock().allocate(size)?;
        Ok(Arc::new(Lent {
            address: buffer.address(),
            bytes,
            buffer: Mutex::new(buffer),
        }))
    }

    pub(super) fn write(&self, to: &Lent, bytes: &[u8]) -> Result<(), CudaError> {
        self.0.lock().write(&mut to.buffer.lock(), bytes)
    }

    pub(super) fn read(&self, from: &Lent, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.0.lock().read(&from.buffer.lock(), bytes)
    }

    /// The same GPU with one more stream, for another thread; what both hold counts together.
    pub(super) fn again(&self) -> Result<Self, CudaError> {
        Ok(Self::new(self.0.lock().again()?))
    }

    /// One vector a text of the token vectors in `hidden`.
    pub(super) fn pool(
        &self,
        pooler: &mut Pooler,
        hidden: &Lent,
        pooled: &Pooled,
        texts: (&[u32], usize),
    ) -> Result<Vec<Vec<f32>>, CudaError> {
        pooler.pool(&mut self.0.lock(), &hidden.buffer.lock(), pooled, texts)
    }

    /// Whether the device is lost to this process, and why.
    pub(super) fn lost(&self) -> Option<CudaError> {
        self.0
            .lock()
            .synchronize()
            .err()
            .filter(CudaError::is_sticky)
    }

    pub(super) fn stream(&self) -> Arc<dyn DeviceStream> {
        let raw = self.0.lock().raw_stream().expose_provenance();
        let gpu = self.clone();
        Arc::new(Lane { gpu, raw })
    }

    pub(super) fn lender(&self) -> Arc<dyn DeviceAllocator> {
        Arc::new(Lender {
            gpu: self.clone(),
            lent: Mutex::default(),
        })
    }
}

/// A stretch of the device's memory.
pub(super) struct Lent {
    buffer: Mutex<DeviceBuffer>,
    address: u64,
    bytes: u64,
}

// SAFETY: a buffer is where it is, and as long as it is, until it is dropped; it has one
// session, which neither writes nor reads it between a step's start and its finish.
unsafe impl DeviceMemory for Lent {
    fn address(&self) -> NonNull<c_void> {
        pointer(self.address).unwrap_or(NonNull::dangling())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The device's stream, which is also that of the copies to and from it.
struct Lane {
    gpu: Gpu,
    raw: usize,
}

// SAFETY: the device, which lives as long as this, keeps its stream; waiting for it is the
// driver's, and an error there is one after which nothing runs any more.
unsafe impl DeviceStream for Lane {
    fn raw(&self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.raw)
    }

    fn synchronize(&self) -> Result<(), String> {
        let ended = self.gpu.0.lock().synchronize();
        ended.map_err(|error| error.to_string())
    }
}

/// Memory that TensorRT asks for by itself: weights, and scratch.
struct Lender {
    gpu: Gpu,
    lent: Mutex<HashMap<u64, DeviceBuffer>>,
}

// SAFETY: each buffer is in the map, and so the caller's alone, until it is given back.
unsafe impl DeviceAllocator for Lender {
    fn allocate(&self, bytes: u64, alignment: u64, _: *mut c_void) -> Option<NonNull<c_void>> {
        if alignment > ALIGNMENT {
            tracing::error!(
                alignment,
                "TensorRT asks for memory at multiples of too much"
            );
            return None;
        }
        let given = self.give(bytes);
        given
            .inspect_err(|error| tracing::warn!(%error, "TensorRT is given no memory"))
            .ok()
            .flatten()
    }

    fn release(&self, memory: NonNull<c_void>, stream: *mut c_void) -> bool {
        let address = memory.as_ptr().expose_provenance() as u64;
        let Some(buffer) = self.lent.lock().remove(&address) else {
            return false;
        };
        let device = self.gpu.0.lock();
        if stream != device.raw_stream() {
            // It may still be used there, and is freed in the order of the device's own.
            // SAFETY: TensorRT's stream, or null, for the length of this call.
            if let Err(error) = unsafe { device.wait_for(stream) } {
                tracing::warn!(%error, "waiting for TensorRT's stream");
            }
        }
        drop(device);
        drop(buffer);
        true
    }
}

impl Lender {
    fn give(&self, bytes: u64) -> Result<Option<NonNull<c_void>>, CudaError> {
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut device = self.gpu.0.lock();
        let buffer = device.allocate(size)?;
        // TensorRT uses it on streams of its own too.
        device.synchronize()?;
        let address = buffer.address();
        self.lent.lock().insert(address, buffer);
        Ok(pointer(address))
    }
}

fn pointer(address: u64) -> Option<NonNull<c_void>> {
    let address = usize::try_from(address).ok()?;
    NonNull::new(std::ptr::with_exposed_provenance_mut(address))
}
