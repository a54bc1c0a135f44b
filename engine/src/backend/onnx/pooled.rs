//! An encoder's token vectors, pooled where they are: of a batch on a GPU one vector a
//! text comes back instead of one a token.
#![expect(unsafe_code, reason = "makes tensors over memory of the device")]

use ort::memory::MemoryInfo;

use super::arena::element;
use super::bound;
use super::runtime::{Provider, device_memory};
use super::session::{OnnxSession, TensorView};
use super::store::lost;
use crate::cuda::{
    Buffer as _, CudaError, Device, DeviceBuffer, Float, Hidden, Machine as _, PoolKernel,
};
use crate::error::BackendError;
use crate::folder::Pooling;

/// A worker's share of a GPU: room for the token vectors of its largest batch so far,
/// and for the pooled ones.
pub(crate) struct DevicePooling {
    hidden: Option<DeviceBuffer>,
    vectors: Option<DeviceBuffer>,
    kernel: PoolKernel<DeviceBuffer>,
    info: MemoryInfo<'static>,
    output: String,
    float: Float,
    width: usize,
    pooling: Pooling,
    device: Device,
}

impl std::fmt::Debug for DevicePooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevicePooling")
            .field("output", &self.output)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

/// What is pooled: the output `name`, `[texts, tokens, width]`.
#[derive(Debug, Clone)]
pub(crate) struct Pooled {
    pub(crate) output: String,
    pub(crate) float: Float,
    pub(crate) width: usize,
    pub(crate) pooling: Pooling,
}

impl DevicePooling {
    /// Opens the device that `provider` computes on, numbered `ordinal`.
    ///
    /// # Errors
    /// [`CudaError`].
    pub(crate) fn open(
        provider: Provider,
        ordinal: u32,
        pooled: Pooled,
    ) -> Result<Self, CudaError> {
        let info = device_memory(provider);
        Ok(Self {
            hidden: None,
            vectors: None,
            kernel: PoolKernel::default(),
            info: info.map_err(|error| CudaError::Shape(error.message().to_owned()))?,
            output: pooled.output,
            float: pooled.float,
            width: pooled.width,
            pooling: pooled.pooling,
            device: Device::open(ordinal, None)?,
        })
    }

    /// Runs a batch whose texts have `tokens` tokens, padded to `length`; one vector a
    /// text.
    ///
    /// # Errors
    /// The run or the device failed.
    pub(crate) fn run(
        &mut self,
        session: &mut OnnxSession,
        inputs: &[(&str, TensorView<'_>)],
        tokens: &[u32],
        length: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let bytes = tokens.len() * length * self.width * self.float.size();
        let hidden = room(&mut self.hidden, &mut self.device, bytes)?;
        let shape = [tokens.len(), length, self.width].map(|size| size as i64);
        let start = hidden.address() as usize;
        let element = element(self.float);
        // SAFETY: the buffer is that long and lies where `info` says; kernels that read it
        // are done, because their results have been read.
        let target = unsafe { bound::borrow_tensor(start, bytes, &shape, element, &self.info) };
        let target = target.map_err(|error| BackendError::Step(error.message().to_owned()))?;
        // Memory that was just taken is cleared on our stream, not on the session's.
        self.device.synchronize().map_err(|error| lost(&error))?;
        session
            .run_into(inputs, &self.output, &target)
            .map_err(|error| match self.device.synchronize() {
                Err(device) if device.is_sticky() => BackendError::Fatal(device.to_string()),
                _ => error,
            })?;
        let vectors = tokens.len() * self.width * size_of::<f32>();
        let vectors = room(&mut self.vectors, &mut self.device, vectors)?;
        let hidden = Hidden {
            buffer: &*hidden,
            float: self.float,
            tokens,
            length,
            width: self.width,
        };
        self.kernel
            .pool(&mut self.device, &hidden, self.pooling, false, vectors)
            .map_err(|error| lost(&error))?;
        let mut read = vec![0; tokens.len() * self.width * size_of::<f32>()];
        self.device
            .read(vectors, &mut read)
            .map_err(|error| lost(&error))?;
        let numbers = read
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_ne_bytes(*bytes));
        let numbers: Vec<f32> = numbers.collect();
        Ok(numbers
            .chunks_exact(self.width)
            .map(<[f32]>::to_vec)
            .collect())
    }
}

/// A buffer of at least `bytes`, which grows.
fn room<'b>(
    buffer: &'b mut Option<DeviceBuffer>,
    device: &mut Device,
    bytes: usize,
) -> Result<&'b mut DeviceBuffer, BackendError> {
    let fits = buffer.take().filter(|buffer| buffer.size() >= bytes);
    let fitting = match fits {
        Some(buffer) => buffer,
        None => device
            .allocate(bytes.next_power_of_two())
            .map_err(|error| lost(&error))?,
    };
    Ok(buffer.insert(fitting))
}
