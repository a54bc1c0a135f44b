//! What is lost when something fails, and what is not.

use super::*;

/// An error of the driver's names, and whether it takes the context with it.
fn sticky(error: &CudaError, name: CUresult) -> bool {
    error.is_sticky() && error.to_string().contains(&format!("{name:?}"))
}

#[test]
fn a_full_device_says_so_and_loses_nothing() {
    let standin = Standin::install(&[8 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let buffer = filled(&mut device, &[4; 5 << 20]).unwrap();
    let full = CudaError::OutOfMemory {
        wanted: 5 * MIB,
        free: 3 * MIB,
    };
    assert_eq!(device.allocate(5 << 20).unwrap_err(), full);
    assert!(!full.is_sticky());
    assert_eq!(device.memory().unwrap().held, 5 * MIB);
    assert_eq!(standin.alive(0).allocations, 1);
    assert!(read(&mut device, &buffer).unwrap() == [4; 5 << 20]);
    drop(buffer);
    let whole = device.allocate(8 << 20).unwrap();
    assert_eq!(device.memory().unwrap().peak, 8 * MIB);
    drop(whole);
}

#[test]
fn memory_that_cannot_be_cleared_is_given_back() {
    let standin = Standin::install(&[8 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    standin.fail_next("cuMemsetD8Async", CUresult::CUDA_ERROR_INVALID_VALUE);
    let error = device.allocate(1000).unwrap_err();
    assert!(!error.is_sticky(), "{error}");
    device.synchronize().unwrap();
    assert_eq!(device.memory().unwrap().held, 0);
    assert_eq!(standin.alive(0).bytes, 0);
    visit(0).unwrap();
}

/// Calls by which something is made or asked; those that only ever release are left out.
const CALLS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceTotalMem",
    "cuDevicePrimaryCtxRetain",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventElapsedTime",
    "cuMemHostAlloc",
    "cuMemAllocAsync",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuMemGetInfo",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuLaunchKernel",
];

/// Each call in its turn, the first time that it is made, the second time, and so on.
#[test]
fn whatever_fails_nothing_is_left_behind() {
    let standin = Standin::install(&[8 * MIB]);
    for call in CALLS {
        let mut failures = 0;
        loop {
            standin.fail_after(failures, call, CUresult::CUDA_ERROR_NOT_SUPPORTED);
            let Err(error) = visit(0) else { break };
            assert!(!error.is_sticky(), "{call}: {error}");
            assert_eq!(standin.alive(0), Alive::default(), "{call} {failures}");
            failures += 1;
        }
        assert!(failures > 0, "{call} is never made");
    }
}

#[test]
fn after_a_sticky_error_every_call_fails_until_the_reset() {
    for name in [
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
        CUresult::CUDA_ERROR_LAUNCH_FAILED,
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    ] {
        let standin = Standin::install(&[64 * MIB, 64 * MIB]);
        let mut device = Device::open(0, None).unwrap();
        let mut buffer = filled(&mut device, &[1; 64]).unwrap();
        let event = device.mark().unwrap();
        standin.fail_next("kernel", name);
        // It comes up where the kernel's result is waited for.
        let result = gathered(&mut device).unwrap();
        let errors = [
            read(&mut device, &result).unwrap_err(),
            read(&mut device, &buffer).unwrap_err(),
            device.write(&mut buffer, &[2; 64]).unwrap_err(),
            device.allocate(1).unwrap_err(),
            device.synchronize().unwrap_err(),
            device.mark().unwrap_err(),
            device.memory().unwrap_err(),
            event.until(&event).unwrap_err(),
            gathered(&mut device).unwrap_err(),
            Device::open(0, None).unwrap_err(),
            Device::memory_of(0).unwrap_err(),
        ];
        for (i, error) in errors.iter().enumerate() {
            assert!(sticky(error, name), "call {i}: {error}");
        }
        visit(1).unwrap();
        // Whatever is alive of it holds the context: the device, an event, a buffer.
        assert_eq!(Device::reset(0), Err(CudaError::InUse(0)));
        drop((device, result));
        assert_eq!(Device::reset(0), Err(CudaError::InUse(0)));
        drop(event);
        assert_eq!(Device::reset(0), Err(CudaError::InUse(0)));
        drop(buffer);
        assert!(sticky(&Device::open(0, None).unwrap_err(), name));
        Device::reset(0).unwrap();
        visit(0).unwrap();
        let alive = standin.alive(0);
        assert_eq!((alive.bytes, alive.references), (0, 0));
    }
}

#[test]
fn a_device_that_does_not_recover_is_told() {
    let standin = Standin::install(&[64 * MIB]);
    let name = CUresult::CUDA_ERROR_LAUNCH_FAILED;
    standin.break_context(0, name);
    standin.fail_next("cuDevicePrimaryCtxReset", name);
    assert!(sticky(&Device::reset(0).unwrap_err(), name));
    Device::reset(0).unwrap();
    standin.fail_next("cuCtxSynchronize", name);
    assert!(sticky(&Device::reset(0).unwrap_err(), name));
}

/// Everything is dropped on a lost device, in either order, with work still queued:
/// nothing panics, nothing waits for ever.
#[test]
fn a_lost_device_is_left_in_peace() {
    for device_first in [true, false] {
        let standin = Standin::install(&[64 * MIB]);
        let mut device = Device::open(0, None).unwrap();
        let buffer = filled(&mut device, &[1; 100_000]).unwrap();
        let event = device.mark().unwrap();
        standin.break_context(0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        if device_first {
            drop(device);
            drop((event, buffer));
        } else {
            drop((event, buffer));
            drop(device);
        }
        assert_eq!(standin.alive(0).references, 0);
        Device::reset(0).unwrap();
        visit(0).unwrap();
    }
}

/// The stand-in's own eyes: a kernel that writes behind its memory does not go unseen.
#[test]
#[should_panic(expected = "written behind an allocation of device 0")]
fn a_write_behind_an_allocation_is_seen() {
    let standin = Standin::install(&[8 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let buffer = device.allocate(100).unwrap();
    device.synchronize().unwrap();
    // SAFETY: the stand-in's memory is this process's, and 256 bytes follow each.
    unsafe {
        std::ptr::with_exposed_provenance_mut::<u8>(buffer.address() as usize + 100).write(0)
    };
    drop(buffer);
    let error = device.synchronize().unwrap_err();
    assert!(sticky(&error, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    drop((device, standin));
}
