//! [`Device`] over the driver's stand-in: what a GPU does, and what goes wrong on one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::cuda::gather::{Gather, RowGather};
use crate::cuda::{Buffer as _, CudaError, Device, DeviceBuffer, Machine as _, Room};

mod faults;

const MIB: u64 = 1 << 20;

fn filled(device: &mut Device, bytes: &[u8]) -> Result<DeviceBuffer, CudaError> {
    let mut buffer = device.allocate(bytes.len())?;
    device.write(&mut buffer, bytes)?;
    Ok(buffer)
}

fn read(device: &mut Device, buffer: &DeviceBuffer) -> Result<Vec<u8>, CudaError> {
    let mut bytes = vec![0; buffer.size()];
    device.read(buffer, &mut bytes)?;
    Ok(bytes)
}

/// Starts a kernel whose result is `[3, 3, 1, 1]`.
fn gathered(device: &mut Device) -> Result<DeviceBuffer, CudaError> {
    let from = filled(device, &[1, 1, 2, 2, 3, 3])?;
    let mut to = device.allocate(4)?;
    let gather = Gather {
        from: &from,
        to: &mut to,
        indices: &[2, 0],
        row_bytes: 2,
    };
    RowGather::default().gather(device, gather)?;
    Ok(to)
}

/// Opens a device, uses all that it can do, and leaves it.
fn visit(ordinal: u32) -> Result<(), CudaError> {
    let mut device = Device::open(ordinal, None)?;
    let start = device.mark()?;
    let buffer = filled(&mut device, &[5; 100_000])?;
    let result = gathered(&mut device)?;
    start.until(&device.mark()?)?;
    assert_eq!(read(&mut device, &result)?, [3, 3, 1, 1]);
    assert_eq!(read(&mut device, &buffer)?, [5; 100_000]);
    device.memory()?;
    device.synchronize()
}

#[test]
fn what_is_written_is_read_back() {
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    assert_eq!(device.gpu().memory, 64 * MIB);
    let fresh = device.allocate(1000).unwrap();
    let bytes = read(&mut device, &fresh).unwrap();
    assert_eq!(bytes, [0; 1000], "memory starts as zeros");
    let buffer = filled(&mut device, &[7; 300]).unwrap();
    assert_eq!(read(&mut device, &buffer).unwrap(), [7; 300]);
    assert_eq!(standin.alive(0).allocations, 2);
}

/// Copies have not happened yet when the next upload is prepared.
#[test]
fn an_upload_is_not_overwritten_by_the_next() {
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let sizes = [100, 200_000, 50, 1_000_000];
    let buffers: Vec<_> = (0u8..)
        .zip(sizes)
        .map(|(i, size)| filled(&mut device, &vec![i; size]).unwrap())
        .collect();
    assert_eq!(standin.calls("copy"), 3, "the last one is still to come");
    for (i, buffer) in (0u8..).zip(&buffers) {
        let bytes = read(&mut device, buffer).unwrap();
        assert!(bytes.iter().all(|&byte| byte == i));
    }
}

#[test]
fn a_kernel_runs_when_it_is_waited_for() {
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let to = gathered(&mut device).unwrap();
    assert_eq!(standin.calls("kernel"), 0);
    assert_eq!(read(&mut device, &to).unwrap(), [3, 3, 1, 1]);
    assert_eq!(standin.calls("kernel"), 1);
}

#[test]
fn work_can_be_done_at_once() {
    let standin = Standin::install(&[64 * MIB]);
    standin.work_at_once();
    let mut device = Device::open(0, None).unwrap();
    let to = gathered(&mut device).unwrap();
    assert_eq!(standin.calls("kernel"), 1);
    assert_eq!(read(&mut device, &to).unwrap(), [3, 3, 1, 1]);
}

#[test]
fn time_passes_between_events_and_never_backwards() {
    let _standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let before = device.mark().unwrap();
    let to = gathered(&mut device).unwrap();
    let after = device.mark().unwrap();
    assert!(!before.until(&after).unwrap().is_zero());
    assert!(after.until(&before).unwrap().is_zero());
    drop(to);
}

#[test]
fn a_hundred_visits_leave_nothing() {
    let standin = Standin::install(&[64 * MIB]);
    for _ in 0..100 {
        visit(0).unwrap();
        assert_eq!(standin.alive(0), Alive::default());
    }
}

/// As models that come and go on a GPU that others use.
#[test]
fn a_hundred_visits_beside_another_leave_what_was_there() {
    let standin = Standin::install(&[64 * MIB]);
    let mut other = Device::open(0, None).unwrap();
    let theirs = filled(&mut other, &[9; 1000]).unwrap();
    other.synchronize().unwrap();
    let before = standin.alive(0);
    for _ in 0..100 {
        visit(0).unwrap();
        assert_eq!(standin.alive(0), before);
    }
    assert_eq!(read(&mut other, &theirs).unwrap(), [9; 1000]);
}

#[test]
fn devices_are_used_in_turn() {
    let standin = Standin::install(&[64 * MIB, 32 * MIB]);
    let mut one = Device::open(0, None).unwrap();
    let mut two = Device::open(1, None).unwrap();
    let on_one = filled(&mut one, &[1; 100]).unwrap();
    let on_two = filled(&mut two, &[2; 200]).unwrap();
    assert_eq!(read(&mut one, &on_one).unwrap(), [1; 100]);
    assert_eq!(read(&mut two, &on_two).unwrap(), [2; 200]);
    // Freed while the other's context is the thread's.
    drop(on_one);
    let result = gathered(&mut one).unwrap();
    drop(on_two);
    assert_eq!(read(&mut one, &result).unwrap(), [3, 3, 1, 1]);
    two.synchronize().unwrap();
    assert_eq!(standin.alive(1).allocations, 0);
    assert_eq!(two.memory().unwrap().free, 32 * MIB);
    drop((one, two, result));
    assert_eq!(standin.alive(0), Alive::default());
    assert_eq!(standin.alive(1), Alive::default());
}

#[test]
fn each_user_of_a_gpu_keeps_to_its_own_budget() {
    let standin = Standin::install(&[64 * MIB]);
    let mut small = Device::open(0, Some(MIB)).unwrap();
    let mut large = Device::open(0, Some(8 * MIB)).unwrap();
    let theirs = large.allocate(6 << 20).unwrap();
    let ours = small.allocate(1 << 20).unwrap();
    assert_eq!(
        small.allocate(1).unwrap_err(),
        CudaError::OutOfMemory { wanted: 1, free: 0 }
    );
    assert_eq!(small.memory().unwrap().held, MIB);
    assert_eq!(large.memory().unwrap().held, 6 * MIB);
    assert_eq!(large.memory().unwrap().free, 57 * MIB);
    drop((small, theirs));
    large.synchronize().unwrap();
    assert_eq!(standin.alive(0).bytes, MIB, "a buffer outlives its device");
    drop(ours);
    assert_eq!(standin.alive(0).references, 1);
    visit(0).unwrap();
    assert_eq!(large.memory().unwrap().held, 0);
}

#[test]
fn a_driver_without_devices_and_one_that_refuses_are_answers() {
    let standin = Standin::install(&[]);
    let absent = |result: Result<Device, CudaError>| match result {
        Err(CudaError::Absent(absent)) => absent,
        other => panic!("{other:?}"),
    };
    assert_eq!(absent(Device::open(0, None)), Absent::NoDevice);
    assert_eq!(
        Device::reset(0),
        Err(CudaError::Absent(Absent::NoDevice)),
        "nothing to reset"
    );
    drop(standin);
    let standin = Standin::install(&[MIB]);
    let refusal = CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
    standin.fail_next("cuInit", refusal);
    let refused = Absent::Refused(format!("{refusal:?}"));
    assert_eq!(absent(Device::open(0, None)), refused);
    let none = Absent::NoSuchDevice { asked: 1, count: 1 };
    assert_eq!(absent(Device::open(1, None)), none);
}

#[test]
fn room_is_looked_up_without_opening_a_device() {
    let standin = Standin::install(&[64 * MIB, 32 * MIB]);
    let room = |total, free| Room { total, free };
    assert_eq!(Device::memory_of(1).unwrap(), room(32 * MIB, 32 * MIB));
    assert_eq!(standin.alive(1), Alive::default());
    let mut device = Device::open(0, None).unwrap();
    let buffer = device.allocate(1 << 20).unwrap();
    assert_eq!(Device::memory_of(0).unwrap(), room(64 * MIB, 63 * MIB));
    drop(buffer);
    let error = Device::memory_of(2).unwrap_err().to_string();
    assert_eq!(error, "there is no GPU 2: 2 are there, counted from 0");
}
