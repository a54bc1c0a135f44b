//! Token vectors of a batch, pooled on the device where they are: one vector a text comes
//! back instead of one a token.

use crate::cuda::{
    Buffer as _, CudaError, Device, DeviceBuffer, Float, Hidden, Machine as _, PoolKernel,
};
use crate::folder::Pooling;

/// What is pooled: the output `name`, `[texts, tokens, width]`.
#[derive(Debug, Clone)]
pub(crate) struct Pooled {
    pub(crate) output: String,
    pub(crate) float: Float,
    pub(crate) width: usize,
    pub(crate) pooling: Pooling,
}

/// The kernel, and room for the vectors of the largest batch so far.
#[derive(Debug, Default)]
pub(super) struct Pooler {
    vectors: Option<DeviceBuffer>,
    kernel: PoolKernel<DeviceBuffer>,
}

impl Pooler {
    /// One vector for each of the texts with these `tokens`, whose token vectors lie in
    /// `hidden`, padded to `length`. Waits until they are there.
    ///
    /// # Errors
    /// [`CudaError`].
    pub(super) fn pool(
        &mut self,
        device: &mut Device,
        hidden: &DeviceBuffer,
        pooled: &Pooled,
        (tokens, length): (&[u32], usize),
    ) -> Result<Vec<Vec<f32>>, CudaError> {
        let width = pooled.width;
        let bytes = tokens.len() * width * size_of::<f32>();
        let vectors = room(&mut self.vectors, device, bytes)?;
        let hidden = Hidden {
            buffer: hidden,
            float: pooled.float,
            tokens,
            length,
            width,
        };
        self.kernel
            .pool(device, &hidden, pooled.pooling, false, vectors)?;
        let mut read = vec![0; bytes];
        device.read(vectors, &mut read)?;
        let numbers = read.as_chunks().0.iter();
        let numbers: Vec<f32> = numbers.map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        Ok(numbers.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }
}

/// A buffer of at least `bytes`, which grows.
pub(super) fn room<'b>(
    buffer: &'b mut Option<DeviceBuffer>,
    device: &mut Device,
    bytes: usize,
) -> Result<&'b mut DeviceBuffer, CudaError> {
    let fits = buffer.take().filter(|buffer| buffer.size() >= bytes);
    let fitting = match fits {
        Some(buffer) => buffer,
        None => device.allocate(bytes.next_power_of_two())?,
    };
    Ok(buffer.insert(fitting))
}
