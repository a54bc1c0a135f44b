//! Builds the stand-in, and lends it what a device would be asked for: memory and streams.
#![expect(
    unsafe_code,
    reason = "implements the device's traits over host memory, and calls the stand-in's own function"
)]

mod compile;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_tensorrt::Library;
use sluice_tensorrt::device::{DeviceAllocator, DeviceMemory, DeviceStream};

/// Builds the stand-in with these defines, once for all tests that want the same one.
pub(crate) fn build(name: &str, defines: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    compile::compile(env!("SLUICE_TENSORRT_HEADERS"), folder, name, defines)
}

/// The stand-in as it is meant to be.
pub(crate) fn library() -> Arc<Library> {
    let path = build("libnvinfer.so", &[]);
    Arc::new(Library::open(Some(&path)).unwrap())
}

/// A device with so much memory.
pub(crate) struct Device {
    left: AtomicU64,
    pub(crate) lent: AtomicU64,
}

impl Device {
    pub(crate) fn with(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(bytes),
            lent: AtomicU64::new(0),
        })
    }
}

/// In front of what is lent, its length.
const HEAD: usize = 256;

// SAFETY: memory comes from the host's allocator, for one owner, until it is released.
unsafe impl DeviceAllocator for Device {
    fn allocate(&self, bytes: u64, alignment: u64, _: *mut c_void) -> Option<NonNull<c_void>> {
        assert!(alignment <= HEAD as u64);
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken.ok()?;
        self.lent.fetch_add(bytes, Ordering::SeqCst);
        let size = HEAD + usize::try_from(bytes).unwrap();
        let layout = Layout::from_size_align(size, HEAD).unwrap();
        // SAFETY: the layout is not empty; its head is written before anyone sees the rest.
        unsafe {
            let start = NonNull::new(alloc(layout))?;
            start.cast::<usize>().write(size);
            Some(start.add(HEAD).cast())
        }
    }

    fn release(&self, memory: NonNull<c_void>, _: *mut c_void) -> bool {
        // SAFETY: it came from `allocate`, which wrote the head in front of it.
        unsafe {
            let start = memory.cast::<u8>().sub(HEAD);
            let size = start.cast::<usize>().read();
            dealloc(start.as_ptr(), Layout::from_size_align(size, HEAD).unwrap());
            let bytes = (size - HEAD) as u64;
            self.left.fetch_add(bytes, Ordering::SeqCst);
            self.lent.fetch_sub(bytes, Ordering::SeqCst);
        }
        true
    }
}

/// Numbers in what these tests call device memory.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    length: usize,
}

impl Buffer {
    pub(crate) fn of(values: &[f32]) -> Arc<Self> {
        let mut values = values.to_vec().into_boxed_slice();
        let length = values.len();
        let start = NonNull::new(values.as_mut_ptr()).unwrap();
        std::mem::forget(values);
        Arc::new(Self { start, length })
    }

    /// Only when no step is in flight.
    pub(crate) fn read(&self) -> Vec<f32> {
        // SAFETY: the box that was forgotten in `of`; no step writes to it now.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }.to_vec()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: the box that was forgotten in `of`.
        drop(unsafe { Box::from_raw(slice) });
    }
}

// SAFETY: plain memory that this value owns.
unsafe impl Send for Buffer {}
// SAFETY: read and written only as the trait below says.
unsafe impl Sync for Buffer {}
// SAFETY: memory of that length, until the value ends.
unsafe impl DeviceMemory for Buffer {
    fn address(&self) -> NonNull<c_void> {
        self.start.cast()
    }

    fn bytes(&self) -> u64 {
        (self.length * size_of::<f32>()) as u64
    }
}

/// The stand-in's one stream.
pub(crate) struct Stream {
    wait: unsafe extern "C" fn(),
    /// Whether synchronising is to answer with an error.
    broken: bool,
    /// How often it was waited for.
    pub(crate) waited: AtomicU64,
}

impl Stream {
    pub(crate) fn of(library: &Library) -> Arc<dyn DeviceStream> {
        Self::made(library, false)
    }

    pub(crate) fn made(library: &Library, broken: bool) -> Arc<Self> {
        // SAFETY: a library of ours, open already, and a function of ours in it.
        let wait = unsafe {
            let library = libloading::Library::new(library.path()).unwrap();
            *library.get(b"standin_wait").unwrap()
        };
        Arc::new(Self {
            wait,
            broken,
            waited: AtomicU64::new(0),
        })
    }
}

// SAFETY: the stand-in knows this one address as its stream; its function waits for all that was started.
unsafe impl DeviceStream for Stream {
    fn raw(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(0x57)
    }

    fn synchronize(&self) -> Result<(), String> {
        // SAFETY: takes nothing and may be called at any time.
        unsafe { (self.wait)() };
        self.waited.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err("CUDA error 719: unspecified launch failure".to_owned());
        }
        Ok(())
    }
}
