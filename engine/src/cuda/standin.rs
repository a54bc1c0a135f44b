//! The CUDA driver without a GPU: `kernels/standin/driver.cpp`, which this process then
//! finds under the driver's name. Everything above it is what runs on a GPU: cudarc,
//! [`Device`](super::Device), the server's own code.
//!
//! Devices, their faults and what is alive on them are the process's: whoever holds a
//! [`Standin`] has them to itself. cudarc keeps the first driver that it opened, so on
//! a machine that has one, each test needs its own process, as `cargo nextest` gives it.
#![expect(unsafe_code, reason = "calls the stand-in's own functions")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ffi::{CString, c_char, c_int, c_uint};
use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::driver::sys::CUresult;
use libloading::{Library, Symbol};
use parking_lot::{Mutex, MutexGuard};

use super::driver::{Absent, driver_version};
use super::emulator::{build, compiled, kernels};
use super::image::IMAGES;

static ALONE: Mutex<()> = Mutex::new(());
/// The driver's stand-in and the compiler's.
static LIBRARIES: OnceLock<[Library; 2]> = OnceLock::new();

/// Devices that are there as long as this is held.
pub(crate) struct Standin {
    devices: u32,
    _alone: MutexGuard<'static, ()>,
}

/// What is alive on a device.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Alive {
    /// Of device memory; what was freed counts until its stream gets there.
    pub(crate) bytes: u64,
    pub(crate) allocations: u64,
    /// Stretches of page-locked memory.
    pub(crate) page_locked: u64,
    pub(crate) streams: u64,
    pub(crate) events: u64,
    pub(crate) modules: u64,
    /// How often the context is held.
    pub(crate) references: u64,
    /// Objects that were alive when a context ended or was reset.
    pub(crate) left_behind: u64,
    /// Allocations that something was written behind.
    pub(crate) damaged: u64,
}

impl Alive {
    /// Whether nobody holds anything.
    pub(crate) fn is_nothing(&self) -> bool {
        [
            self.bytes,
            self.allocations,
            self.page_locked,
            self.streams,
            self.events,
            self.modules,
            self.references,
        ] == [0; 7]
    }
}

impl Standin {
    /// Puts devices with so many bytes in place of the machine's.
    pub(crate) fn install(devices: &[u64]) -> Self {
        Self::installed(ALONE.lock(), devices)
    }

    /// As [`Self::install`] where the machine has no driver.
    pub(crate) fn where_there_is_no_driver(devices: &[u64]) -> Option<Self> {
        let alone = ALONE.lock();
        let loaded = LIBRARIES.get().is_some();
        (loaded || driver_version() == Err(Absent::NoDriver))
            .then(|| Self::installed(alone, devices))
    }

    fn installed(alone: MutexGuard<'static, ()>, devices: &[u64]) -> Self {
        let start = function::<unsafe extern "C" fn(*const u64, usize)>("standin_start");
        // SAFETY: so many numbers are there.
        unsafe { start(devices.as_ptr(), devices.len()) };
        let standin = Self {
            devices: devices.len() as u32,
            _alone: alone,
        };
        _ = driver_version();
        assert_eq!(
            standin.calls("cuDriverGetVersion"),
            1,
            "this process has opened the machine's own driver; run this by cargo nextest"
        );
        standin
    }

    /// The call of this name (as in the headers, without `_v2`) fails, the next one.
    /// `kernel`, `copy` and `memset` are work on a stream, whose failure is sticky.
    pub(crate) fn fail_next(&self, call: &str, code: CUresult) {
        self.fail_after(0, call, code);
    }

    /// As [`Self::fail_next`], after so many calls of it that succeed.
    pub(crate) fn fail_after(&self, calls: u32, call: &str, code: CUresult) {
        let call = CString::new(call).unwrap();
        let fail = function::<unsafe extern "C" fn(*const c_char, c_uint, c_int)>("standin_fail");
        // SAFETY: the text ends with zero, and is copied.
        unsafe { fail(call.as_ptr(), calls, code as c_int) };
    }

    /// Every call on this device fails from now on, until it is reset.
    pub(crate) fn break_context(&self, device: u32, code: CUresult) {
        let break_it = function::<unsafe extern "C" fn(c_int, c_int)>("standin_break");
        // SAFETY: a device that is not there is none to it.
        unsafe { break_it(device as c_int, code as c_int) };
    }

    /// Work is done when it is asked for, rather than when something waits for it: for
    /// libraries that read device memory by themselves, as ONNX Runtime's CPU provider.
    pub(crate) fn work_at_once(&self) {
        let order = function::<unsafe extern "C" fn(c_int, c_int)>("standin_order");
        // SAFETY: takes any numbers.
        unsafe { order(1, 0) };
    }

    /// How often this was called, or work of this name done, since the installation.
    pub(crate) fn calls(&self, call: &str) -> u64 {
        let call = CString::new(call).unwrap();
        let calls = function::<unsafe extern "C" fn(*const c_char) -> u64>("standin_calls");
        // SAFETY: the text ends with zero, and is copied.
        unsafe { calls(call.as_ptr()) }
    }

    /// What is on a device.
    pub(crate) fn alive(&self, device: u32) -> Alive {
        let mut alive = Alive::default();
        let look = function::<unsafe extern "C" fn(c_int, *mut Alive)>("standin_alive");
        // SAFETY: the structure is the one that it writes.
        unsafe { look(device as c_int, &raw mut alive) };
        alive
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        let damaged = (0..self.devices).find(|&device| self.alive(device).damaged > 0);
        let start = function::<unsafe extern "C" fn(*const u64, usize)>("standin_start");
        // SAFETY: no numbers are read.
        unsafe { start(std::ptr::null(), 0) };
        assert!(
            damaged.is_none() || std::thread::panicking(),
            "written behind an allocation of device {}",
            damaged.unwrap_or_default()
        );
    }
}

fn function<F: Copy>(name: &str) -> F {
    // SAFETY: each caller names the type that the source has.
    let symbol: Symbol<'_, F> = unsafe { driver().get(name.as_bytes()) }.unwrap();
    *symbol
}

/// The driver's stand-in, with that of NVRTC, so that a kernel needs no compiler. Both
/// are opened by their path, and found by the names of what they stand for from then on.
fn driver() -> &'static Library {
    let [driver, _] = LIBRARIES.get_or_init(|| {
        let libraries = SOURCES.map(|(source, name)| {
            // SAFETY: what it does when it is loaded is in its source.
            unsafe { Library::new(library(source, name)) }.unwrap()
        });
        for image in IMAGES {
            let path = CString::new(compiled(image.name).to_str().unwrap()).unwrap();
            let add: Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_int> =
                // SAFETY: the type is the source's.
                unsafe { libraries[0].get(b"standin_kernels") }.unwrap();
            // SAFETY: the text ends with zero; the kernels have no initialisers.
            assert_eq!(unsafe { add(path.as_ptr()) }, 0, "{path:?}");
        }
        libraries
    });
    driver
}

/// Source and name of each.
const SOURCES: [(&str, &str); 2] = [("driver", "cuda"), ("compiler", "nvrtc")];

fn library(source: &str, name: &str) -> PathBuf {
    let folder = kernels().join("standin");
    let soname = format!("-Wl,-soname,lib{name}.so");
    let flags = [FLAGS, &[soname.as_str()]].concat();
    let header = folder.join("calls.h");
    let source = folder.join(format!("{source}.cpp"));
    build(name, &flags, &[source], &[header])
}

/// What another process needs of them, under the names that it looks for, and the kernels.
#[cfg(tensorrt_shim)]
pub(crate) fn files() -> Vec<(String, PathBuf)> {
    let libraries = SOURCES.map(|(source, name)| (format!("lib{name}.so"), library(source, name)));
    let kernels = IMAGES
        .iter()
        .map(|image| (format!("kernels-{}.so", image.name), compiled(image.name)));
    libraries.into_iter().chain(kernels).collect()
}

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
];

#[cfg(test)]
mod tests;
