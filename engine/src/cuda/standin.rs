//! The driver's stand-in (`kernels/driver_standin.cpp`), installed for the process of a
//! test, so that [`super::Device`] and all above it run without a GPU.
#![expect(unsafe_code, reason = "a test library with a C interface")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use parking_lot::{Mutex, MutexGuard};

use super::emulator;
use super::image::IMAGES;

/// One test at a time, where a runner gives several to one process.
static TURN: Mutex<()> = Mutex::new(());

/// A driver with the devices that a test wants.
pub(crate) struct Standin {
    _turn: MutexGuard<'static, ()>,
}

/// What is held on a device.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) bytes: usize,
    pub(crate) allocations: usize,
    pub(crate) contexts: c_int,
    pub(crate) streams: c_int,
    pub(crate) events: c_int,
    pub(crate) modules: c_int,
    /// Allocations behind which something was written, on any device.
    pub(crate) damaged: c_int,
}

/// CUDA's code for an illegal address: the device is lost.
pub(crate) const ILLEGAL_ADDRESS: c_int = 700;

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = compiled();
        // SAFETY: its initialisers do nothing. Its name is the driver's, so whoever opens
        // that from now on gets this one.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for image in IMAGES {
            let kernels = emulator::compiled(image.name);
            let kernels = CString::new(kernels.to_str().unwrap()).unwrap();
            // SAFETY: takes a NUL-terminated path.
            unsafe {
                let add =
                    library.get::<unsafe extern "C" fn(*const c_char)>(b"standin_add_kernels");
                add.unwrap()(kernels.as_ptr());
            }
        }
        library
    })
}

fn compiled() -> PathBuf {
    emulator::compile(
        "driver_standin",
        &[emulator::kernels().join("driver_standin.cpp")],
        &[
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-pthread",
            "-Wl,-soname,libcuda.so",
            "-ldl",
        ],
    )
}

/// Whether kernels are those of the stand-in, which takes them by their names alone.
pub(super) fn is_installed() -> bool {
    TURN.is_locked()
}

impl Standin {
    /// A driver that sees devices of so many bytes each, until this is dropped.
    pub(crate) fn install(devices: &[usize]) -> Self {
        let turn = TURN.lock();
        let standin = Self { _turn: turn };
        standin.clear();
        for &bytes in devices {
            // SAFETY: takes a number.
            unsafe { standin.call::<unsafe extern "C" fn(usize)>(c"standin_add_device")(bytes) }
        }
        standin
    }

    /// What is held on a device once all its work is done.
    pub(crate) fn alive(&self, device: c_int) -> Alive {
        let mut alive = Alive::default();
        // SAFETY: writes one structure, whose layout is the same there.
        unsafe {
            let call = self.call::<unsafe extern "C" fn(c_int, *mut Alive)>(c"standin_alive");
            call(device, &raw mut alive);
        }
        alive
    }

    /// The call of that name after `after` others fails once with `code`.
    pub(crate) fn fail(&self, call: &str, after: c_int, code: c_int) {
        let name = CString::new(call).unwrap();
        // SAFETY: takes a NUL-terminated name, which it copies, and numbers.
        unsafe {
            let fail =
                self.call::<unsafe extern "C" fn(*const c_char, c_int, c_int)>(c"standin_fail");
            fail(name.as_ptr(), after, code);
        }
    }

    /// Every call on the device fails with `code` until it is reset.
    pub(crate) fn lose(&self, device: c_int, code: c_int) {
        // SAFETY: takes numbers.
        unsafe {
            self.call::<unsafe extern "C" fn(c_int, c_int)>(c"standin_lose")(device, code);
        }
    }

    /// The CUDA version that the driver says it is for, as `1000 · major + 10 · minor`.
    pub(crate) fn version(&self, version: c_int) {
        // SAFETY: takes a number.
        unsafe { self.call::<unsafe extern "C" fn(c_int)>(c"standin_version")(version) }
    }

    fn clear(&self) {
        // SAFETY: waits for all work and forgets all devices.
        unsafe { self.call::<unsafe extern "C" fn()>(c"standin_clear")() }
    }

    /// # Safety
    /// `T` is the function's type.
    unsafe fn call<T: Copy>(&self, name: &CStr) -> T {
        // SAFETY: the caller's promise.
        unsafe { *library().get::<T>(name.to_bytes_with_nul()).unwrap() }
    }
}
