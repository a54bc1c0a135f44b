//! Which devices there are; that there are none, or no driver, is an answer.
#![expect(unsafe_code, reason = "asks the driver")]

use cudarc::driver::{DriverError, result, sys};
use libloading::Library;

/// The driver's CUDA version that is needed, as `1000 · major + 10 · minor`: that of
/// ONNX Runtime's GPU builds of this time.
pub const WANTED_DRIVER: i32 = 13_000;

/// Names under which the driver is looked for, best first.
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// What is called before the version is known to suffice. The binding panics at a
/// symbol that is missing, so these are looked up first.
const FIRST_CALLS: [&str; 3] = ["cuDriverGetVersion", "cuInit", "cuDeviceGetCount"];

/// Why there is no device to run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// `libcuda.so` is not installed.
    #[error("no NVIDIA driver: libcuda.so is not installed")]
    NoDriver,
    /// The driver is older than CUDA 13.0.
    #[error(
        "the NVIDIA driver is for CUDA {found}, {wanted} is needed: install driver 580 or newer"
    )]
    OldDriver {
        /// CUDA version of the driver, for example `12.4`.
        found: String,
        /// CUDA version wanted.
        wanted: String,
    },
    /// There is a driver, but no device that this process may use.
    #[error("the NVIDIA driver sees no GPU; CUDA_VISIBLE_DEVICES may hide it")]
    NoDevice,
    /// There is no device of this number.
    #[error("there is no GPU {asked}: {count} are there, counted from 0")]
    NoSuchDevice {
        /// The number asked for.
        asked: u32,
        /// How many there are.
        count: u32,
    },
    /// The kernels are not made for this device.
    #[error(
        "{name} has compute capability {capability}, 8.0 (Ampere) is the oldest that is supported"
    )]
    OldDevice {
        /// The device's name.
        name: String,
        /// For example `7.5`.
        capability: String,
    },
    /// The driver answers with an error.
    #[error("the NVIDIA driver cannot be used: {0}")]
    Refused(String),
}

/// A device as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// CUDA's number of it.
    pub ordinal: u32,
    /// For example `NVIDIA H200`.
    pub name: String,
    /// Compute capability, for example (9, 0).
    pub capability: (i32, i32),
    /// Bytes of its memory.
    pub memory: u64,
}

/// The devices that this process may use, at least one.
///
/// # Errors
/// Why there is none. Never panics.
pub fn discover() -> Result<Vec<Gpu>, Absent> {
    start()?;
    let count = result::device::get_count().map_err(|e| refused(&e))?;
    if count == 0 {
        return Err(Absent::NoDevice);
    }
    (0..count)
        .map(|ordinal| describe(ordinal).map_err(|e| refused(&e)))
        .collect()
}

/// CUDA version of the driver, as [`WANTED_DRIVER`].
///
/// # Errors
/// There is none, or it does not say.
pub fn driver_version() -> Result<i32, Absent> {
    look_up(&NAMES)?;
    let mut version = 0;
    // SAFETY: `look_up` found the function, which writes one number.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(version),
        code => Err(Absent::Refused(name_of(code))),
    }
}

/// Opens and initialises the driver.
pub(super) fn start() -> Result<(), Absent> {
    suffices(driver_version()?)?;
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Absent::NoDevice,
        _ => refused(&error),
    })
}

fn suffices(version: i32) -> Result<(), Absent> {
    let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    if version < WANTED_DRIVER {
        return Err(Absent::OldDriver {
            found: text(version),
            wanted: text(WANTED_DRIVER),
        });
    }
    Ok(())
}

/// Whether one of these libraries is there and has what is called first.
fn look_up(names: &[&str]) -> Result<(), Absent> {
    // SAFETY: the driver's initialisers are run by every CUDA program.
    let open = |name: &&str| unsafe { Library::new(*name) }.ok();
    let library = names.iter().find_map(open).ok_or(Absent::NoDriver)?;
    for call in FIRST_CALLS {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(call.as_bytes()) };
        if found.is_err() {
            return Err(Absent::Refused(format!("libcuda.so has no {call}")));
        }
    }
    Ok(())
}

fn describe(ordinal: i32) -> Result<Gpu, DriverError> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is one that the driver has just named.
    let (memory, major, minor) = unsafe {
        (
            result::device::total_mem(device)?,
            result::device::get_attribute(
                device,
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            )?,
            result::device::get_attribute(
                device,
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )?,
        )
    };
    Ok(Gpu {
        ordinal: ordinal as u32,
        name: result::device::get_name(device)?,
        capability: (major, minor),
        memory: memory as u64,
    })
}

fn refused(error: &DriverError) -> Absent {
    Absent::Refused(name_of(error.0))
}

/// The driver's name of an error, as the headers spell it.
pub(super) fn name_of(code: sys::CUresult) -> String {
    format!("{code:?}")
}

#[cfg(test)]
mod tests;
