//! The GPUs as NVIDIA's driver knows them.

use sluice_engine::cuda;

use super::Gpus;

/// Asks the driver of this machine. Where there is none, no GPU is known.
#[derive(Debug, Default)]
pub struct Driver;

impl Gpus for Driver {
    fn memory(&self, device: u32) -> Result<u64, String> {
        let gpus = cuda::discover().map_err(|absent| absent.to_string())?;
        let count = gpus.len();
        let gpu = gpus.into_iter().find(|gpu| gpu.ordinal == device);
        gpu.map(|gpu| gpu.memory)
            .ok_or_else(|| format!("there is no GPU {device}: {count} are there, counted from 0"))
    }

    fn is_lost(&self, device: u32) -> bool {
        cuda::Device::memory_of(device).is_err_and(|error| error.is_sticky())
    }

    fn reset(&self, device: u32) -> Result<(), String> {
        cuda::Device::reset(device).map_err(|error| error.to_string())
    }
}
