//! A GPU's primary context, which everything in this process shares: each [`Device`],
//! its buffers and events, and ONNX Runtime. It ends with the last who holds it. A
//! sticky error is the context's, so it outlives who met it, until the context is
//! made anew.
#![expect(unsafe_code, reason = "asks the driver")]

use std::sync::{Arc, Weak};

use cudarc::driver::{CudaContext, DriverError, result, sys};
use parking_lot::Mutex;

use super::CudaError;
use super::device::{Device, failed};
use super::driver::{self, Absent};

/// Contexts that this crate holds. Locked while one is opened or reset, so that none
/// is reset under somebody's hands.
static HELD: Mutex<Vec<Weak<CudaContext>>> = Mutex::new(Vec::new());

/// Memory of a GPU for anyone, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// On the device.
    pub total: u64,
    /// Free for anyone.
    pub free: u64,
}

/// Holds the context, and makes it this thread's.
pub(super) fn hold(ordinal: u32) -> Result<Arc<CudaContext>, DriverError> {
    let mut held = HELD.lock();
    let context = open(ordinal)?;
    held.retain(|context| context.strong_count() > 0);
    held.push(Arc::downgrade(&context));
    Ok(context)
}

fn open(ordinal: u32) -> Result<Arc<CudaContext>, DriverError> {
    let context = CudaContext::new(ordinal as usize)?;
    make_current(&context)?;
    Ok(context)
}

/// Makes a context this thread's, whatever the thread's was: the handle may be that of
/// an earlier context that has ended, which the binding does not tell apart.
pub(super) fn make_current(context: &CudaContext) -> Result<(), DriverError> {
    // SAFETY: the context is held as long as it is borrowed.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}

impl Device {
    /// What a GPU has room for, without opening it for use. Where nobody in this
    /// process uses the GPU, its context is made and ended again: that takes a moment,
    /// and the context's own memory (some hundred MiB) is not counted as free.
    ///
    /// # Errors
    /// [`CudaError::Absent`]; [`CudaError::Driver`], sticky where the GPU is lost to
    /// this process.
    pub fn memory_of(ordinal: u32) -> Result<Room, CudaError> {
        exists(ordinal)?;
        let context = hold(ordinal).map_err(|e| failed("context", &e))?;
        let sizes = context.mem_get_info();
        let (free, total) = sizes.map_err(|e| failed("memory", &e))?;
        Ok(Room {
            total: total as u64,
            free: free as u64,
        })
    }

    /// Makes a GPU's context anew, after a sticky error: all that is on the GPU in this
    /// process is lost, whoever put it there. ONNX Runtime's sessions on it have to be
    /// dropped before, which is not checked. The driver need not recover from every
    /// error; when this fails, only a new process does.
    ///
    /// # Errors
    /// [`CudaError::InUse`] as long as a [`Device`], a buffer or an event of it is
    /// alive; [`CudaError::Driver`] when the GPU does not work afterwards.
    pub fn reset(ordinal: u32) -> Result<(), CudaError> {
        exists(ordinal)?;
        let held = HELD.lock();
        let ours = |context: &Weak<CudaContext>| {
            let context = context.upgrade();
            context.is_some_and(|context| context.ordinal() == ordinal as usize)
        };
        if held.iter().any(ours) {
            return Err(CudaError::InUse(ordinal));
        }
        let device = result::device::get(ordinal as i32).map_err(|e| failed("device", &e))?;
        // SAFETY: nothing of this crate's is left in the context; that others have left
        // it is the caller's to see to, as documented.
        let code = unsafe { sys::cuDevicePrimaryCtxReset_v2(device) };
        code.result().map_err(|e| failed("reset", &e))?;
        let works = open(ordinal).and_then(|context| context.synchronize());
        works.map_err(|e| failed("use after the reset", &e))
    }
}

fn exists(ordinal: u32) -> Result<(), CudaError> {
    driver::start()?;
    let count = result::device::get_count().map_err(|e| failed("devices", &e))? as u32;
    if ordinal < count {
        return Ok(());
    }
    Err(CudaError::Absent(Absent::NoSuchDevice {
        asked: ordinal,
        count,
    }))
}
