//! An encoder's token vectors, pooled where they are: of a batch on a GPU one vector a
//! text comes back instead of one a token.
#![expect(unsafe_code, reason = "makes tensors over memory of the device")]

use ort::memory::MemoryInfo;

use super::arena::element;
use super::bound;
use super::runtime::{Provider, device_memory};
use super::session::{OnnxSession, TensorView};
use super::store::lost;
use crate::backend::pooled::{Pooled, Pooler, room};
use crate::cuda::{Buffer as _, CudaError, Device, DeviceBuffer};
use crate::error::BackendError;

/// A worker's share of a GPU: room for the token vectors of its largest batch so far,
/// and for the pooled ones.
pub(crate) struct DevicePooling {
    hidden: Option<DeviceBuffer>,
    pooler: Pooler,
    info: MemoryInfo<'static>,
    pooled: Pooled,
    device: Device,
}

impl std::fmt::Debug for DevicePooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevicePooling")
            .field("pooled", &self.pooled)
            .finish_non_exhaustive()
    }
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
            pooler: Pooler::default(),
            info: info.map_err(|error| CudaError::Shape(error.message().to_owned()))?,
            pooled,
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
        let Pooled { float, width, .. } = self.pooled;
        let bytes = tokens.len() * length * width * float.size();
        let hidden = room(&mut self.hidden, &mut self.device, bytes);
        let hidden = hidden.map_err(|error| lost(&error))?;
        let shape = [tokens.len(), length, width].map(|size| size as i64);
        let start = hidden.address() as usize;
        let element = element(float);
        // SAFETY: the buffer is that long and lies where `info` says; kernels that read it
        // are done, because their results have been read.
        let target = unsafe { bound::borrow_tensor(start, bytes, &shape, element, &self.info) };
        let target = target.map_err(|error| BackendError::Step(error.message().to_owned()))?;
        // Memory that was just taken is cleared on our stream, not on the session's.
        self.device.synchronize().map_err(|error| lost(&error))?;
        session
            .run_into(inputs, &self.pooled.output, &target)
            .map_err(|error| match self.device.synchronize() {
                Err(device) if device.is_sticky() => BackendError::Fatal(device.to_string()),
                _ => error,
            })?;
        let texts = (tokens, length);
        self.pooler
            .pool(&mut self.device, hidden, &self.pooled, texts)
            .map_err(|error| lost(&error))
    }
}
