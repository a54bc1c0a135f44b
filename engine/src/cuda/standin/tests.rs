//! [`Device`] over the driver's stand-in: what a GPU does, and what goes wrong on one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::cuda::gather::{Gather, RowGather};
use crate::cuda::{Buffer as _, CudaError, Device, Machine as _};

const MIB: u64 = 1 << 20;

fn filled(device: &mut Device, bytes: &[u8]) -> crate::cuda::DeviceBuffer {
    let mut buffer = device.allocate(bytes.len()).unwrap();
    device.write(&mut buffer, bytes).unwrap();
    buffer
}

fn read(device: &mut Device, buffer: &crate::cuda::DeviceBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.size()];
    device.read(buffer, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_is_read_back() {
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    assert_eq!(device.gpu().memory, 64 * MIB);
    let fresh = device.allocate(1000).unwrap();
    assert_eq!(
        read(&mut device, &fresh),
        [0; 1000],
        "memory starts as zeros"
    );
    let buffer = filled(&mut device, &[7; 300]);
    assert_eq!(read(&mut device, &buffer), [7; 300]);
    assert_eq!(standin.alive(0).allocations, 2);
}

/// Copies have not happened yet when the next upload is prepared.
#[test]
fn an_upload_is_not_overwritten_by_the_next() {
    let _standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let sizes = [100, 200_000, 50, 1_000_000];
    let buffers: Vec<_> = (0u8..)
        .zip(sizes)
        .map(|(i, size)| filled(&mut device, &vec![i; size]))
        .collect();
    for (i, buffer) in (0u8..).zip(&buffers) {
        assert!(read(&mut device, buffer).iter().all(|&byte| byte == i));
    }
}

#[test]
fn kernels_run_on_it() {
    let standin = Standin::install(&[64 * MIB]);
    let mut device = Device::open(0, None).unwrap();
    let from = filled(&mut device, &[1, 1, 2, 2, 3, 3]);
    let mut to = device.allocate(4).unwrap();
    let gather = Gather {
        from: &from,
        to: &mut to,
        indices: &[2, 0],
        row_bytes: 2,
    };
    RowGather::default().gather(&mut device, gather).unwrap();
    assert_eq!(standin.calls("kernel"), 0, "not before it is waited for");
    assert_eq!(read(&mut device, &to), [3, 3, 1, 1]);
    assert_eq!(standin.calls("kernel"), 1);
}
