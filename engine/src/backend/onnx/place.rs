//! Where a language model's memory is taken: on the host, or on a GPU.

use super::arena::{Arena, ArenaShape};
use super::gpu::{ComputeStream, GpuOptions};
use super::lm::{Captured, RunEnds};
use super::memory::{Bytes, default_budget};
use super::runtime::device_memory;
use super::store::{DeviceStore, Store};
use super::{Load, OnnxOptions, Provider};
use crate::cuda::{CudaError, Device};
use crate::error::LoadError;

/// Percent of a GPU's free memory that a model's weights and K/V may take where nothing
/// is configured; the rest is for activations.
const SHARE_OF_FREE: u64 = 85;

impl OnnxOptions {
    /// CUDA's number of the device that K/V and logits lie on.
    fn ordinal(&self) -> Option<u32> {
        #[cfg(test)]
        if self.stand_in {
            return Some(0);
        }
        self.provider.device()
    }

    /// Whether decoding steps are captured as CUDA graphs.
    fn captures(&self) -> bool {
        self.gpu.cuda_graphs
    }

    /// Whether the session's work and ours is on one stream.
    fn in_order(&self) -> bool {
        self.provider != Provider::Cpu
    }

    /// Whether a run may return before the device is done: on our stream, and by the
    /// CUDA provider, all of whose memory is taken and given back in that stream's order.
    fn returns_early(&self) -> bool {
        self.in_order() && matches!(self.provider, Provider::Cuda { .. })
    }

    /// Bytes that a model may take where nothing is configured.
    pub(super) fn free_memory(&self) -> u64 {
        let Some(device) = self.ordinal() else {
            return default_budget();
        };
        // That it cannot be asked is said when it is opened.
        Device::memory_of(device).map_or(u64::MAX, |room| room.free / 100 * SHARE_OF_FREE)
    }
}

impl Load {
    /// The GPU that K/V and logits lie on; none for the host.
    pub(super) fn open_device(&self) -> Result<Option<Device>, LoadError> {
        let Some(ordinal) = self.options.ordinal() else {
            return Ok(None);
        };
        let device = Device::open(ordinal, None);
        device.map(Some).map_err(|error| self.refused(&error))
    }

    /// The session works on the device's stream, so that its runs and our kernels follow
    /// one another.
    pub(super) fn gpu_options(&self, device: Option<&Device>) -> GpuOptions {
        let shares = self.options.in_order();
        GpuOptions {
            stream: device.filter(|_| shares).map(ComputeStream::of),
            ..self.options.gpu.clone()
        }
    }

    /// How runs end.
    pub(super) fn run_ends(&self) -> Result<RunEnds, LoadError> {
        let ends = RunEnds::new(self.options.returns_early(), self.options.captures());
        ends.map_err(|error| LoadError::Runtime(format!("run options: {}", error.message())))
    }

    pub(super) fn on_host(&self, shape: ArenaShape) -> Result<Store, LoadError> {
        let arena = Arena::new(shape).ok_or_else(|| LoadError::DoesNotFit {
            model: self.name.clone(),
            sum: format!(
                "{} for K/V could not be allocated",
                Bytes(shape.bytes().unwrap_or(usize::MAX) as u64)
            ),
        })?;
        Ok(Store::Host(arena))
    }

    pub(super) fn on_device(
        &self,
        mut device: Device,
        shape: ArenaShape,
    ) -> Result<(Store, Option<Captured>), LoadError> {
        let info = || {
            device_memory(self.options.provider).map_err(|error| {
                LoadError::Runtime(format!("memory of the device: {}", error.message()))
            })
        };
        let size = (self.size.slots, self.size.capacity);
        let captured = match self.options.captures() {
            true => Some(Captured::new(&mut device, size, info()?)),
            false => None,
        };
        let captured = captured.transpose().map_err(|error| self.refused(&error))?;
        let logits = (self.layout.logits_float, self.layout.vocab);
        let store = DeviceStore::new(device, shape, logits, info()?, self.options.in_order());
        let store = store.map_err(|error| self.refused(&error))?;
        Ok((Store::Device(Box::new(store)), captured))
    }

    fn refused(&self, error: &CudaError) -> LoadError {
        match error {
            CudaError::OutOfMemory { .. } => LoadError::DoesNotFit {
                model: self.name.clone(),
                sum: error.to_string(),
            },
            _ => LoadError::Runtime(error.to_string()),
        }
    }
}
