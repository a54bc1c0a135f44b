//! Memory that a kernel keeps from launch to launch.

use super::CudaError;
use super::machine::{Buffer, Machine};

/// A buffer that grows to the largest size asked of it.
#[derive(Debug)]
pub(super) struct Kept<B> {
    buffer: Option<B>,
}

impl<B> Default for Kept<B> {
    fn default() -> Self {
        Self { buffer: None }
    }
}

impl<B: Buffer> Kept<B> {
    /// The buffer, at least `bytes` long; what it held is lost when it grows.
    pub(super) fn sized<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        bytes: usize,
    ) -> Result<&mut B, CudaError> {
        let fits = self.buffer.take().filter(|buffer| buffer.size() >= bytes);
        let buffer = match fits {
            Some(buffer) => buffer,
            // Twice what is needed, so that slow growth costs few allocations.
            None => machine.allocate((bytes * 2).max(256))?,
        };
        Ok(self.buffer.insert(buffer))
    }

    /// The buffer with these bytes at its start.
    pub(super) fn holding<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        bytes: &[u8],
    ) -> Result<&mut B, CudaError> {
        let buffer = self.sized(machine, bytes.len())?;
        machine.write(buffer, bytes)?;
        Ok(buffer)
    }
}
