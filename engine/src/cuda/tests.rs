//! Every kernel against its reference on the CPU: run by the emulator on every
//! machine, and through the driver by the GPU, or by the driver's stand-in where the
//! machine has none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "says what was not run")]

use super::emulator::{Emulator, is_at_hand};
use super::machine::{Float, Machine};
use super::standin::Standin;
use super::{CudaError, Device, compile_all, compiled_ahead};

/// Runs a check on every machine at hand. Blocks of few threads and of many, which
/// run in either order where that can be chosen.
macro_rules! on_every_machine {
    ($check:path) => {
        if is_at_hand() {
            for (threads, backward) in [(32, false), (96, true), (256, false), (1024, true)] {
                $check(&mut Emulator::new(backward), threads);
            }
        }
        if let Some(mut at_hand) = AtHand::find(None) {
            for &threads in at_hand.threads() {
                $check(&mut at_hand.device, threads);
            }
        }
    };
}

/// A device that tests may use.
struct AtHand {
    device: Device,
    // Dropped after the device.
    standin: Option<Standin>,
}

impl AtHand {
    fn find(budget: Option<u64>) -> Option<Self> {
        let standin = Standin::where_there_is_no_driver(&[1 << 30]);
        if standin.is_some() {
            println!("not run on a GPU: there is no driver");
        }
        match Device::open(0, budget) {
            Ok(device) => Some(Self { device, standin }),
            Err(CudaError::Absent(absent)) => {
                println!("not run on a GPU: {absent}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Threads of a block to try. The stand-in runs kernels as the emulator does.
    fn threads(&self) -> &'static [u32] {
        match self.standin {
            Some(_) => &[96],
            None => &[32, 256, 1024],
        }
    }
}

mod copies;
mod pooling;
mod sampling;
mod sampling_edges;

/// Numbers as they are stored, and what they are then in single precision.
fn stored(values: &[f32], float: Float) -> (Vec<u8>, Vec<f32>) {
    use half::{bf16, f16};
    let mut bytes = Vec::new();
    let mut rounded = Vec::new();
    for &value in values {
        match float {
            Float::F32 => {
                bytes.extend(value.to_ne_bytes());
                rounded.push(value);
            }
            Float::F16 => {
                bytes.extend(f16::from_f32(value).to_ne_bytes());
                rounded.push(f16::from_f32(value).to_f32());
            }
            Float::Bf16 => {
                bytes.extend(bf16::from_f32(value).to_ne_bytes());
                rounded.push(bf16::from_f32(value).to_f32());
            }
        }
    }
    (bytes, rounded)
}

fn upload<M: Machine>(machine: &mut M, bytes: &[u8]) -> M::Buffer {
    let mut buffer = machine.allocate(bytes.len()).unwrap();
    machine.write(&mut buffer, bytes).unwrap();
    buffer
}

const FLOATS: [Float; 3] = [Float::F32, Float::F16, Float::Bf16];

/// What the server does when it starts, where it was built without nvcc.
#[test]
fn every_kernel_compiles_at_the_start() {
    if std::env::var_os("SLUICE_TEST_REQUIRE_NVRTC").is_none() && !super::has_runtime_compiler() {
        println!("not compiled: NVRTC is not installed");
        return;
    }
    for capability in [(8, 0), (9, 0)] {
        compile_all(capability).unwrap();
    }
}

#[test]
fn without_any_compiler_the_remedy_is_named() {
    if super::has_runtime_compiler() {
        return;
    }
    let text = compile_all((9, 0)).unwrap_err().to_string();
    assert!(text.contains("NVRTC") && !text.contains('\n'), "{text}");
    assert!(!compiled_ahead() || text.contains("built without nvcc"));
}

/// Allocations are counted, given back, and kept within the budget.
#[test]
fn memory_is_accounted_for() {
    const BUDGET: u64 = 1 << 20;
    let Some(mut at_hand) = AtHand::find(Some(BUDGET)) else {
        return;
    };
    let device = &mut at_hand.device;
    let before = device.memory().unwrap().held;
    let buffer = device.allocate(1 << 19).unwrap();
    assert_eq!(device.memory().unwrap().held, before + (1 << 19));
    assert!(matches!(
        device.allocate(1 << 20),
        Err(CudaError::OutOfMemory { .. })
    ));
    drop(buffer);
    let after = device.memory().unwrap();
    assert_eq!((after.held, after.peak), (before, before + (1 << 19)));
}
