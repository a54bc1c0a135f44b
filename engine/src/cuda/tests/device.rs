//! The device itself, over the driver's stand-in: its memory, its faults, its end.

use crate::cuda::standin::{Alive, ILLEGAL_ADDRESS, Standin};
use crate::cuda::{
    Absent, Buffer as _, CudaError, Device, Machine as _, SlotMove, SlotMoves, SlotShape, discover,
    memory_of, reset,
};

const MIB: usize = 1 << 20;

fn absent(error: CudaError) -> Absent {
    match error {
        CudaError::Absent(absent) => absent,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_there_is_said() {
    {
        let standin = Standin::install(&[]);
        assert_eq!(discover(), Err(Absent::NoDevice));
        drop(standin);
    }
    let standin = Standin::install(&[64 * MIB, 32 * MIB]);
    assert_eq!(discover().unwrap().len(), 2);
    assert_eq!(memory_of(1), Ok((32 * MIB as u64, 32 * MIB as u64)));
    let beyond = Absent::NoSuchDevice { asked: 2, count: 2 };
    assert_eq!(memory_of(2), Err(beyond.clone()));
    assert_eq!(absent(Device::open(2, None).unwrap_err()), beyond);
    standin.version(12_040);
    assert!(matches!(discover(), Err(Absent::OldDriver { .. })));
}

#[test]
fn too_much_is_refused_with_the_numbers_and_nothing_is_lost() {
    let standin = Standin::install(&[8 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let held = device.allocate(6 * MIB).unwrap();
    let wanted = 4 * MIB as u64;
    let error = device.allocate(4 * MIB).unwrap_err();
    assert!(
        matches!(error, CudaError::OutOfMemory { wanted: w, free } if w == wanted && free <= 2 * MIB as u64),
        "{error}"
    );
    assert!(!error.is_sticky());
    drop(held);
    device.allocate(4 * MIB).unwrap();
    drop(device);
    assert_eq!(standin.alive(0), Alive::default());
}

#[test]
fn a_budget_is_kept_on_a_device_that_has_more() {
    let _standin = Standin::install(&[64 * MIB]);
    let mut small = Device::open(0, Some(MIB as u64)).unwrap();
    let mut large = Device::open(0, None).unwrap();
    let error = small.allocate(2 * MIB).unwrap_err();
    assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
    let buffer = large.allocate(2 * MIB).unwrap();
    assert_eq!(large.memory().unwrap().held, 2 * MIB as u64);
    assert_eq!(small.memory().unwrap().held, 0);
    drop(buffer);
    assert_eq!(large.memory().unwrap().peak, 2 * MIB as u64);
}

/// Page-locked memory is not written again before the device has read it.
#[test]
fn uploads_that_follow_one_another_do_not_mix() {
    let _standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let mut buffers: Vec<_> = (0..20).map(|_| device.allocate(100_000).unwrap()).collect();
    for (number, buffer) in (0u8..).zip(&mut buffers) {
        device.write(buffer, &vec![number; 100_000]).unwrap();
    }
    for (number, buffer) in (0u8..).zip(&buffers) {
        let mut bytes = vec![0xff; 50_000];
        device.read_at(buffer, 50_000, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == number), "{number}");
    }
    let beyond = device.read_at(&buffers[0], 60_000, &mut vec![0; 50_000]);
    assert!(matches!(beyond, Err(CudaError::Shape(_))));
}

#[test]
fn a_hundred_cycles_leave_nothing_behind() {
    let standin = Standin::install(&[64 * MIB]);
    let shape = SlotShape {
        planes: 2,
        slots: 3,
        heads: 2,
        capacity: 16,
        token_bytes: 32,
    };
    for _ in 0..100 {
        let mut device = Device::open(0, None).unwrap();
        let mut arena = device.allocate(shape.bytes()).unwrap();
        let mut moves = SlotMoves::default();
        let one = [SlotMove {
            from: 0,
            to: 2,
            tokens: 5,
        }];
        moves.run(&mut device, &mut arena, &shape, &one).unwrap();
        let start = device.mark().unwrap();
        device.write(&mut arena, &[1; 64]).unwrap();
        let end = device.mark().unwrap();
        start.until(&end).unwrap();
        assert_eq!(arena.size(), shape.bytes());
        drop((arena, moves, start, end, device));
        assert_eq!(standin.alive(0), Alive::default());
    }
}

/// An illegal access: everything on the device fails from then on, nothing panics or
/// hangs, and after a reset it works again. The other device never notices.
#[test]
fn a_lost_device_comes_back_by_a_reset() {
    let standin = Standin::install(&[64 * MIB, 64 * MIB]);
    let mut other = Device::open(1, None).unwrap();
    let mut device = Device::open(0, None).unwrap();
    let mut buffer = device.allocate(MIB).unwrap();
    standin.lose(0, ILLEGAL_ADDRESS);
    let error = device.write(&mut buffer, &[1; 8]).unwrap_err();
    assert!(error.is_sticky(), "{error}");
    assert!(device.synchronize().unwrap_err().is_sticky());
    assert!(device.allocate(8).unwrap_err().is_sticky());
    assert!(device.memory().is_err());
    drop((buffer, device));
    assert!(Device::open(0, None).is_err(), "still lost");
    reset(0).unwrap();
    let mut device = Device::open(0, None).unwrap();
    let mut buffer = device.allocate(MIB).unwrap();
    device.write(&mut buffer, &[7; 8]).unwrap();
    let mut bytes = [0; 8];
    device.read(&buffer, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 8]);
    other.allocate(8).unwrap();
    drop((buffer, device, other));
    assert_eq!(standin.alive(0), Alive::default());
}

#[test]
fn a_call_that_fails_once_is_an_error_of_that_call() {
    const LAUNCH_OUT_OF_RESOURCES: i32 = 701;
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let mut buffer = device.allocate(64).unwrap();
    standin.fail("cuMemcpyHtoDAsync_v2", 1, LAUNCH_OUT_OF_RESOURCES);
    device.write(&mut buffer, &[1; 8]).unwrap();
    let error = device.write(&mut buffer, &[2; 8]).unwrap_err();
    assert!(
        !error.is_sticky() && error.to_string().contains("upload"),
        "{error}"
    );
    device.write(&mut buffer, &[3; 8]).unwrap();
    standin.fail("cuModuleLoadData", 0, 209);
    let error = Device::open(0, None).unwrap_err();
    assert!(matches!(error, CudaError::Kernel { .. }), "{error}");
}
