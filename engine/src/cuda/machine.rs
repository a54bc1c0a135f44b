//! The seam between what a kernel is asked to do and what carries it out.
#![expect(
    unsafe_code,
    reason = "kernels take structures as bytes and addresses as numbers"
)]

use super::CudaError;

/// A stretch of a machine's memory.
pub trait Buffer {
    /// Where it starts, in the machine's address space.
    fn address(&self) -> u64;
    /// Its size in bytes.
    fn size(&self) -> usize;
}

/// One launch of a kernel. Grid and threads as in CUDA.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Source file of the kernel, without its extension.
    pub image: &'static str,
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block: 32 to 1024, a multiple of 32.
    pub threads: u32,
    /// The one structure that the kernel takes.
    pub arguments: &'a [u8],
}

/// Memory and kernels: a GPU, or its emulation in tests. Work is done in the order
/// in which it was asked for.
pub trait Machine {
    /// Memory of this machine.
    type Buffer: Buffer;

    /// New memory, all zeros.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, CudaError>;

    /// Copies `bytes` to the start of `to`; returns before they are there.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when they do not fit.
    fn write(&mut self, to: &mut Self::Buffer, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies the start of `from`, once everything asked for before is done.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when it is shorter; what went wrong in a kernel before.
    fn read(&mut self, from: &Self::Buffer, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.read_at(from, 0, bytes)
    }

    /// The same from `offset` on.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_at(
        &mut self,
        from: &Self::Buffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), CudaError>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments are the kernel's structure; each address in them lies in a
    /// buffer of this machine that outlives the launch, at least as long as the
    /// kernel reads or writes there.
    ///
    /// # Errors
    /// [`CudaError::Kernel`], [`CudaError::Driver`].
    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError>;
}

/// Type of the numbers that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl Float {
    /// Bytes of a number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// That of three names which is of this type.
    pub(super) fn of<T>(self, f32: T, f16: T, bf16: T) -> T {
        match self {
            Self::F32 => f32,
            Self::F16 => f16,
            Self::Bf16 => bf16,
        }
    }
}

/// A type that is its bytes.
///
/// # Safety
/// No padding, no pointers or references, and every bit pattern is a value.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}

/// The bytes of plain values.
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, so each byte is initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The values in `bytes`, which need not be aligned.
pub(super) fn values_of<T: Plain>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).map(|chunk| {
        // SAFETY: the chunk is as long as a `T`, and any bits are one.
        unsafe { chunk.as_ptr().cast::<T>().read_unaligned() }
    })
}
