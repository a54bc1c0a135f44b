//! One GPU: its memory, one stream of work, events, and the kernels loaded on it.
//!
//! Everything is asked for on one stream, in the order of the calls, so memory can be
//! freed while kernels that use it still run: the driver frees it after them.
#![expect(unsafe_code, reason = "asks the driver")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DevicePtr as _, DriverError,
    PinnedHostSlice, result, sys,
};

use super::CudaError;
use super::driver::{self, Absent, Gpu, discover};
use super::image::{IMAGES, OLDEST, loadable};
use super::machine::{Buffer, Launch, Machine};
use super::primary;

/// A GPU in use by this process, which may use it through several of these: each has
/// its stream and its budget. It stays on its thread.
pub struct Device {
    gpu: Gpu,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: BTreeMap<&'static str, CudaFunction>,
    staging: Option<Staging>,
    tally: Arc<Tally>,
    budget: Option<u64>,
}

/// Page-locked memory through which uploads go; the device copies from it by itself.
struct Staging {
    memory: PinnedHostSlice<u8>,
    /// Passed when the last upload has left the memory.
    left: CudaEvent,
}

/// Bytes that this process holds on the device through [`Device`].
#[derive(Debug, Default)]
struct Tally {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Tally {
    fn take(&self, bytes: u64, budget: Option<u64>) -> Result<(), CudaError> {
        let most = budget.unwrap_or(u64::MAX);
        let within = |now: u64| now.checked_add(bytes).filter(|after| *after <= most);
        let relaxed = Ordering::Relaxed;
        let taken = self.now.fetch_update(relaxed, relaxed, within);
        taken.map(drop).map_err(|held| CudaError::OutOfMemory {
            wanted: bytes,
            free: most.saturating_sub(held),
        })
    }

    fn give_back(&self, bytes: u64) {
        self.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// On the device.
    pub total: u64,
    /// Free for anyone.
    pub free: u64,
    /// Held through this [`Device`].
    pub held: u64,
    /// The most that was held at once.
    pub peak: u64,
    /// The most that may be held.
    pub budget: Option<u64>,
}

/// A stretch of a device's memory; freed when dropped.
#[derive(Debug)]
pub struct DeviceBuffer {
    slice: CudaSlice<u8>,
    address: u64,
    size: usize,
    tally: Arc<Tally>,
}

impl Buffer for DeviceBuffer {
    fn address(&self) -> u64 {
        self.address
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // The slice, dropped next, is freed in the thread's context. An error comes up
        // at the next use of the device.
        _ = primary::make_current(self.slice.context());
        self.tally.give_back(self.slice.num_bytes() as u64);
    }
}

/// A point in a device's work.
#[derive(Debug)]
pub struct Event(CudaEvent);

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("gpu", &self.gpu)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Opens a GPU, by CUDA's number of it, and loads the kernels. At most `budget`
    /// bytes are held at once.
    ///
    /// # Errors
    /// [`CudaError::Absent`] where there is none; [`CudaError::Kernel`].
    pub fn open(ordinal: u32, budget: Option<u64>) -> Result<Self, CudaError> {
        Self::counted(ordinal, budget, Arc::default())
    }

    /// The same GPU with one more stream, for another thread. What both hold counts
    /// together, against one budget.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn again(&self) -> Result<Self, CudaError> {
        Self::counted(self.gpu.ordinal, self.budget, Arc::clone(&self.tally))
    }

    fn counted(ordinal: u32, budget: Option<u64>, tally: Arc<Tally>) -> Result<Self, CudaError> {
        let gpus = discover()?;
        let count = gpus.len() as u32;
        let gpu = gpus.into_iter().find(|gpu| gpu.ordinal == ordinal);
        let gpu = gpu.ok_or(Absent::NoSuchDevice {
            asked: ordinal,
            count,
        })?;
        if gpu.capability < OLDEST {
            return Err(CudaError::Absent(Absent::OldDevice {
                capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
                name: gpu.name,
            }));
        }
        let context = primary::hold(ordinal).map_err(|e| failed("context", &e))?;
        // SAFETY: all memory of this context is allocated, used and freed on the one
        // stream made below, so nothing has to be waited for between streams.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|e| failed("stream", &e))?;
        let mut device = Self {
            gpu,
            context,
            stream,
            kernels: BTreeMap::new(),
            staging: None,
            tally,
            budget,
        };
        device.load()?;
        Ok(device)
    }

    fn load(&mut self) -> Result<(), CudaError> {
        for image in IMAGES {
            let refused = |error: DriverError| CudaError::Kernel {
                kernel: image.name,
                reason: driver::name_of(error.0),
            };
            let code = loadable(image, self.gpu.capability)?;
            let module = self.context.load_module(code).map_err(refused)?;
            for &kernel in kernels_of(image.name) {
                let function = module.load_function(kernel).map_err(refused)?;
                self.kernels.insert(kernel, function);
            }
        }
        Ok(())
    }

    /// The device as the driver describes it.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The stream as CUDA knows it, for libraries that are to work on the same one.
    #[must_use]
    pub fn raw_stream(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    /// What is free and what is held.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn memory(&self) -> Result<Memory, CudaError> {
        let sizes = self.context.mem_get_info();
        let (free, total) = sizes.map_err(|e| failed("memory", &e))?;
        Ok(Memory {
            total: total as u64,
            free: free as u64,
            held: self.tally.now.load(Ordering::Relaxed),
            peak: self.tally.peak.load(Ordering::Relaxed),
            budget: self.budget,
        })
    }

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(|e| failed("work", &e))
    }

    /// Waits until everything asked for on another stream is done.
    ///
    /// # Safety
    /// `stream` is a live stream of this device's context, or null for the default one.
    ///
    /// # Errors
    /// What went wrong in it.
    pub unsafe fn wait_for(&self, stream: *mut c_void) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the caller's promise.
        let ended = unsafe { result::stream::synchronize(stream.cast()) };
        ended.map_err(|e| failed("work", &e))
    }

    /// Marks this point of the work.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn mark(&self) -> Result<Event, CudaError> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.stream.record_event(timed);
        Ok(Event(event.map_err(|e| failed("event", &e))?))
    }

    /// Makes the GPU the one that libraries use on this thread: they ask for no number.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn make_current(&self) -> Result<(), CudaError> {
        primary::make_current(&self.context).map_err(|e| failed("context", &e))
    }

    /// Makes the context this thread's, which may have used another GPU before.
    fn bind(&self) -> Result<(), CudaError> {
        let bound = self.context.bind_to_thread();
        bound.map_err(|e| failed("context", &e))
    }

    /// Upload memory of `bytes` or more, once the last upload has left it.
    fn staging(&mut self, bytes: usize) -> Result<&mut Staging, CudaError> {
        let fits = self.staging.take().filter(|s| s.memory.len() >= bytes);
        let staging = match fits {
            Some(staging) => staging,
            None => {
                let size = bytes.next_power_of_two().max(1 << 16);
                // SAFETY: the memory is written before it is read.
                let memory = unsafe { self.context.alloc_pinned::<u8>(size) };
                Staging {
                    memory: memory.map_err(|e| failed("page-locked memory", &e))?,
                    left: self
                        .context
                        .new_event(None)
                        .map_err(|e| failed("event", &e))?,
                }
            }
        };
        let staging = self.staging.insert(staging);
        staging
            .left
            .synchronize()
            .map_err(|e| failed("upload", &e))?;
        Ok(staging)
    }
}

impl Event {
    /// Time on the device from this point to a later one; waits for it.
    ///
    /// # Errors
    /// What went wrong between them.
    pub fn until(&self, later: &Self) -> Result<Duration, CudaError> {
        let elapsed = self.0.elapsed_ms(&later.0);
        let milliseconds = elapsed.map_err(|e| failed("event", &e))?;
        Ok(Duration::from_secs_f64(
            f64::from(milliseconds).max(0.0) / 1e3,
        ))
    }
}

impl Machine for Device {
    type Buffer = DeviceBuffer;

    fn allocate(&mut self, bytes: usize) -> Result<DeviceBuffer, CudaError> {
        let size = bytes.max(1);
        self.tally.take(size as u64, self.budget)?;
        let slice = self.stream.alloc_zeros::<u8>(size).map_err(|error| {
            self.tally.give_back(size as u64);
            if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return failed("memory", &error);
            }
            CudaError::OutOfMemory {
                wanted: size as u64,
                free: self.memory().map_or(0, |memory| memory.free),
            }
        })?;
        let now = self.tally.now.load(Ordering::Relaxed);
        self.tally.peak.fetch_max(now, Ordering::Relaxed);
        let address = slice.device_ptr(&self.stream).0;
        Ok(DeviceBuffer {
            slice,
            address,
            size: bytes,
            tally: Arc::clone(&self.tally),
        })
    }

    fn write(&mut self, to: &mut DeviceBuffer, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.len() > to.size {
            return Err(CudaError::Shape(format!(
                "{} bytes do not fit into {}",
                bytes.len(),
                to.size
            )));
        }
        let stream = Arc::clone(&self.stream);
        let Staging { memory, left } = self.staging(bytes.len())?;
        let memory = memory.as_mut_slice().map_err(|e| failed("upload", &e))?;
        let memory = &mut memory[..bytes.len()];
        memory.copy_from_slice(bytes);
        // SAFETY: `to` is long enough. The page-locked memory is not written, nor
        // freed, before `left` is passed: `staging` and its drop wait for the stream.
        unsafe { result::memcpy_htod_async(to.address, memory, stream.cu_stream()) }
            .map_err(|e| failed("upload", &e))?;
        left.record(&stream).map_err(|e| failed("event", &e))
    }

    fn read_at(
        &mut self,
        from: &DeviceBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), CudaError> {
        if offset.saturating_add(bytes.len()) > from.size {
            return Err(CudaError::Shape(format!(
                "{} bytes from {offset} on are not in {}",
                bytes.len(),
                from.size
            )));
        }
        let start = from.address + offset as u64;
        self.bind()?;
        // SAFETY: `from` is long enough, and `bytes` is borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(bytes, start, self.stream.cu_stream()) }
            .map_err(|e| failed("download", &e))?;
        self.synchronize()
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let kernel = self.kernels.get(launch.kernel);
        let kernel = kernel.ok_or_else(|| CudaError::Kernel {
            kernel: launch.image,
            reason: format!("it has no {}", launch.kernel),
        })?;
        self.bind()?;
        let arguments = launch.arguments.as_ptr().cast_mut().cast::<c_void>();
        let [x, y, z] = launch.grid;
        // SAFETY: the caller's promise; the driver copies the arguments before it
        // returns and does not write them.
        unsafe {
            result::launch_kernel(
                kernel.cu_function(),
                (x, y, z),
                (launch.threads, 1, 1),
                0,
                self.stream.cu_stream(),
                &mut [arguments],
            )
        }
        .map_err(|e| failed("launch", &e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // An error here is one of the stream, and comes up at its next use.
        _ = self.left.synchronize();
    }
}

/// The kernels of a source file.
fn kernels_of(image: &str) -> &'static [&'static str] {
    match image {
        "gather" => &["gather_rows"],
        "pooling" => &["pool_f32", "pool_f16", "pool_bf16"],
        "sampling" => &["sample_f32", "sample_f16", "sample_bf16"],
        "slots" => &["move_slots"],
        _ => &[],
    }
}

pub(super) fn failed(call: &'static str, error: &DriverError) -> CudaError {
    CudaError::Driver {
        call,
        reason: driver::name_of(error.0),
        sticky: is_sticky(error.0),
    }
}

/// Errors after which the driver refuses everything else in the same context.
fn is_sticky(code: sys::CUresult) -> bool {
    use sys::CUresult as Code;
    matches!(
        code,
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_UNKNOWN
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
    )
}
