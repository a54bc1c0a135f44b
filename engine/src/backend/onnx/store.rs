//! Where a language model's K/V lie, and where its logits go: the host's memory, or
//! that of a GPU, from which only the ids of drawn tokens come back.
#![expect(unsafe_code, reason = "makes tensors over memory of the device")]

use std::ops::Range;

use ort::memory::MemoryInfo;
use ort::value::DynValue;

use super::arena::{Arena, ArenaShape, element};
use super::bound::borrow_tensor;
use crate::backend::Outputs;
use crate::cuda::{
    Buffer as _, CudaError, Device, DeviceBuffer, Float, LogitsView, Machine as _, SampleKernel,
    SlotMove, SlotMoves, SlotShape,
};
use crate::error::BackendError;
use crate::request::SampledToken;
use crate::sampler::{Draw, SampleError};

/// See the module's text.
pub(super) enum Store {
    Host(Arena),
    Device(Box<DeviceStore>),
}

impl Store {
    pub(super) fn shape(&self) -> &ArenaShape {
        match self {
            Self::Host(arena) => arena.shape(),
            Self::Device(store) => &store.shape,
        }
    }

    /// Tensors over slots `first..first + count`: keys and values of layer 0, then of
    /// layer 1, and so on. They are valid while the store is.
    ///
    /// # Errors
    /// ONNX Runtime could not make a tensor.
    pub(super) fn bind(&self, first: usize, count: usize) -> ort::Result<Vec<DynValue>> {
        match self {
            Self::Host(arena) => arena.bind(first, count),
            Self::Device(store) => store.slots(first, count),
        }
    }

    /// Copies the first `tokens` tokens of slot `from` to slot `to`.
    ///
    /// # Errors
    /// The device refused it.
    pub(super) fn copy_prefix(
        &mut self,
        from: u32,
        to: u32,
        tokens: u32,
    ) -> Result<(), BackendError> {
        match self {
            Self::Host(arena) => arena.copy_prefix(from as usize, to as usize, tokens as usize),
            Self::Device(store) => store.copy_prefix(from, to, tokens)?,
        }
        Ok(())
    }
}

#[cfg(test)]
impl Store {
    /// Overwrites a slot beyond its first `tokens` tokens; the device is a stand-in,
    /// whose memory is this process's.
    pub(super) fn spoil(&mut self, slot: usize, tokens: usize) {
        match self {
            Self::Host(arena) => arena.spoil(slot, tokens),
            Self::Device(store) => {
                store.device.synchronize().unwrap_or_default();
                // SAFETY: as above, and nothing is in flight.
                unsafe { store.shape.spoil(store.kv.address() as usize, slot, tokens) }
            }
        }
    }
}

/// A GPU's share of a language model, beside the weights that ONNX Runtime holds.
///
/// Memory: the K/V of all slots and two rows of logits a slot, allocated at load; more
/// rows while a step asks for them (log-probabilities of prompts).
pub(super) struct DeviceStore {
    kv: DeviceBuffer,
    shape: ArenaShape,
    logits: Logits,
    moves: SlotMoves<DeviceBuffer>,
    sampler: SampleKernel<DeviceBuffer>,
    info: MemoryInfo<'static>,
    /// The session works on the device's stream: its runs and our kernels follow one
    /// another without waiting. Otherwise each waits for what came before.
    pub(super) in_order: bool,
    /// A run has returned before the device was done, and nothing has waited since.
    pub(super) running: bool,
    pub(super) device: Device,
}

/// Logits of the step in hand: `[rows, vocab]`.
struct Logits {
    float: Float,
    vocab: usize,
    /// Two rows a slot, at the same address for ever: captured graphs write there.
    steady: DeviceBuffer,
    steady_rows: usize,
    /// For steps that want more rows; given back at the next one that does not.
    wide: Option<DeviceBuffer>,
    rows: usize,
}

impl Logits {
    fn row_bytes(&self) -> usize {
        self.vocab * self.float.size()
    }

    fn buffer(&self) -> &DeviceBuffer {
        self.wide.as_ref().unwrap_or(&self.steady)
    }

    fn view(&self) -> LogitsView<'_, DeviceBuffer> {
        LogitsView {
            buffer: self.buffer(),
            offset: 0,
            float: self.float,
            rows: self.rows,
            stride: self.vocab,
            vocab: self.vocab,
        }
    }
}

impl DeviceStore {
    /// Takes the memory. `info` is ONNX Runtime's name of where it lies.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub(super) fn new(
        mut device: Device,
        shape: ArenaShape,
        (logits, vocab): (Float, usize),
        info: MemoryInfo<'static>,
        in_order: bool,
    ) -> Result<Self, CudaError> {
        let kv = device.allocate(shape.bytes().unwrap_or(usize::MAX))?;
        // Twice, so that steps with prefills beside have room.
        let steady_rows = 2 * shape.slots;
        let steady = device.allocate(steady_rows * vocab * logits.size())?;
        Ok(Self {
            kv,
            logits: Logits {
                float: logits,
                vocab,
                steady,
                steady_rows,
                wide: None,
                rows: 0,
            },
            shape,
            moves: SlotMoves::default(),
            sampler: SampleKernel::default(),
            info,
            in_order,
            running: false,
            device,
        })
    }

    /// Tensors over slots, as [`Store::bind`].
    ///
    /// # Errors
    /// ONNX Runtime could not make a tensor.
    pub(super) fn slots(&self, first: usize, count: usize) -> ort::Result<Vec<DynValue>> {
        let base = self.kv.address() as usize;
        // SAFETY: the buffer has the shape's bytes and lies where `info` says; it
        // outlives the backend's bindings. Kernels use it between runs only, in the
        // stream's order or after waiting (`settle`).
        unsafe { self.shape.tensors(base, &self.info, first, count) }
    }

    fn copy_prefix(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let shape = SlotShape {
            planes: self.shape.layers * 2,
            slots: self.shape.slots,
            heads: self.shape.kv_heads,
            capacity: self.shape.capacity,
            token_bytes: self.shape.head_size * self.shape.float.size(),
        };
        let moves = [SlotMove { from, to, tokens }];
        self.moves
            .run(&mut self.device, &mut self.kv, &shape, &moves)
            .map_err(|error| lost(&error))
    }

    /// Before a run: what it reads has been written.
    ///
    /// # Errors
    /// What went wrong in the work before.
    pub(super) fn settle(&self) -> Result<(), BackendError> {
        match self.in_order {
            true => Ok(()),
            false => self.device.synchronize().map_err(|error| lost(&error)),
        }
    }

    /// Waits for a run that has returned before the device was done.
    ///
    /// # Errors
    /// What went wrong in it.
    pub(super) fn finish(&mut self) -> Result<(), BackendError> {
        match std::mem::take(&mut self.running) {
            true => self.device.synchronize().map_err(|error| lost(&error)),
            false => Ok(()),
        }
    }

    /// Makes room for the logits of a step; inputs on the host may be written again.
    ///
    /// # Errors
    /// The device's memory does not suffice, or the step before went wrong there.
    pub(super) fn begin(&mut self, rows: usize) -> Result<(), BackendError> {
        self.finish()?;
        let logits = &mut self.logits;
        logits.rows = rows;
        if rows <= logits.steady_rows {
            logits.wide = None;
            return Ok(());
        }
        let bytes = rows * logits.row_bytes();
        if logits.wide.as_ref().is_none_or(|wide| wide.size() < bytes) {
            // First, so that both are never there at once.
            logits.wide = None;
            logits.wide = Some(self.device.allocate(bytes).map_err(|error| lost(&error))?);
        }
        Ok(())
    }

    /// Whether the step's logits go to where captured graphs write.
    pub(super) fn is_steady(&self) -> bool {
        self.logits.wide.is_none()
    }

    /// A tensor over rows of the logits, for a run to write.
    ///
    /// # Errors
    /// ONNX Runtime could not make a tensor.
    pub(super) fn logits(&self, rows: Range<usize>) -> ort::Result<DynValue> {
        let logits = &self.logits;
        let bytes = logits.row_bytes();
        assert!(rows.end * bytes <= logits.buffer().size());
        let start = logits.buffer().address() as usize + rows.start * bytes;
        let shape = [rows.len(), logits.vocab].map(|size| size as i64);
        // SAFETY: the rows lie in the buffer, as asserted, which is where `info` says.
        // It is replaced in `begin` only, when no run is in flight.
        unsafe {
            let size = rows.len() * bytes;
            borrow_tensor(start, size, &shape, element(logits.float), &self.info)
        }
    }

    /// Copies rows of the logits to the host, as single precision.
    ///
    /// # Errors
    /// What went wrong on the device before.
    pub(super) fn fetch(
        &mut self,
        rows: Range<usize>,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        let Logits { float, vocab, .. } = self.logits;
        let row_bytes = self.logits.row_bytes();
        let mut bytes = vec![0; rows.len() * row_bytes];
        let buffer = self.logits.buffer();
        self.device
            .read_at(buffer, rows.start * row_bytes, &mut bytes)
            .map_err(|error| lost(&error))?;
        self.running = false;
        if outputs.logits.len() < rows.end * vocab {
            outputs.logits.resize(rows.end * vocab, 0.0);
        }
        widen(
            float,
            &bytes,
            &mut outputs.logits[rows.start * vocab..rows.end * vocab],
        );
        Ok(())
    }

    /// Draws tokens where the logits are.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub(super) fn draw(
        &mut self,
        draws: &[Draw<'_>],
        tokens: &mut Vec<Result<SampledToken, SampleError>>,
    ) -> Result<(), BackendError> {
        let Self {
            device,
            sampler,
            logits,
            running,
            ..
        } = self;
        sampler
            .start(device, &logits.view(), draws)
            .map_err(|error| lost(&error))?;
        *tokens = sampler.finish(device).map_err(|error| lost(&error))?;
        // Nothing is waited for where nothing is drawn.
        *running &= draws.is_empty();
        Ok(())
    }

    /// What an error of ONNX Runtime means: the device may be lost with it.
    pub(super) fn judge(&self, error: &ort::Error) -> BackendError {
        match self.device.synchronize() {
            Err(device) if device.is_sticky() => {
                BackendError::Fatal(format!("{device}; {}", error.message()))
            }
            _ => BackendError::Step(error.message().to_owned()),
        }
    }
}

/// Numbers of any type as single precision.
fn widen(float: Float, bytes: &[u8], numbers: &mut [f32]) {
    match float {
        Float::F32 => {
            for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                *number = f32::from_ne_bytes(*bytes);
            }
        }
        half => {
            for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                *number = from_half(half, u16::from_ne_bytes(*bytes));
            }
        }
    }
}

/// A number of one of the two types of 16 bits.
pub(super) fn from_half(float: Float, bits: u16) -> f32 {
    match float {
        Float::Bf16 => half::bf16::from_bits(bits).to_f32(),
        _ => half::f16::from_bits(bits).to_f32(),
    }
}

/// An error of the device: of this step, or the end of the device for this process.
pub(super) fn lost(error: &CudaError) -> BackendError {
    match error.is_sticky() {
        true => BackendError::Fatal(error.to_string()),
        false => BackendError::Step(error.to_string()),
    }
}
