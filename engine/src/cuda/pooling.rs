//! One vector a text out of its token vectors, where those are.
#![expect(unsafe_code, reason = "launches a kernel on raw addresses")]

use super::CudaError;
use super::buffers::Kept;
use super::machine::{Buffer, Float, Launch, Machine, Plain, bytes_of};
use crate::folder::Pooling;

const THREADS: u32 = 256;

/// Token vectors: `[tokens.len(), length, width]`, padded on the right.
#[derive(Debug)]
pub struct Hidden<'a, B> {
    /// Where they are.
    pub buffer: &'a B,
    /// Their type.
    pub float: Float,
    /// Tokens of each text that count, in 1..=`length`.
    pub tokens: &'a [u32],
    /// Tokens a text, with the padding.
    pub length: usize,
    /// Numbers a token.
    pub width: usize,
}

/// Kernel `pool_*`.
#[derive(Debug)]
pub struct PoolKernel<B> {
    tokens: Kept<B>,
    threads: u32,
}

impl<B> Default for PoolKernel<B> {
    fn default() -> Self {
        Self {
            tokens: Kept::default(),
            threads: THREADS,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    hidden: u64,
    tokens: u64,
    out: u64,
    length: u32,
    width: u32,
    mode: u32,
    normalize: u32,
}

// SAFETY: three numbers of eight bytes and four of four: no padding.
unsafe impl Plain for Arguments {}

impl<B: Buffer> PoolKernel<B> {
    /// With blocks of another size; results differ by rounding of the length only.
    #[must_use]
    pub fn with_threads(threads: u32) -> Self {
        Self {
            threads,
            ..Self::default()
        }
    }

    /// Starts pooling into `out`, `[texts, width]` in single precision; `normalize`
    /// scales each vector to length 1.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when a count or a buffer is out of range.
    pub fn pool<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        hidden: &Hidden<'_, B>,
        pooling: Pooling,
        normalize: bool,
        out: &mut B,
    ) -> Result<(), CudaError> {
        check(hidden, out.size())?;
        if hidden.tokens.is_empty() || hidden.width == 0 {
            return Ok(());
        }
        let tokens = self.tokens.holding(machine, bytes_of(hidden.tokens))?;
        let arguments = Arguments {
            hidden: hidden.buffer.address(),
            tokens: tokens.address(),
            out: out.address(),
            length: hidden.length as u32,
            width: hidden.width as u32,
            mode: match pooling {
                Pooling::Cls => 0,
                Pooling::LastToken => 1,
                Pooling::Max => 2,
                Pooling::Mean => 3,
                Pooling::MeanSqrtLength => 4,
            },
            normalize: u32::from(normalize),
        };
        let launch = Launch {
            image: "pooling",
            kernel: hidden.float.of("pool_f32", "pool_f16", "pool_bf16"),
            grid: [hidden.tokens.len() as u32, 1, 1],
            threads: self.threads,
            arguments: bytes_of(std::slice::from_ref(&arguments)),
        };
        // SAFETY: `check` found both buffers long enough and each count in its text;
        // all three belong to the machine, which frees memory after what was launched
        // before.
        unsafe { machine.launch(&launch) }
    }
}

fn check<B: Buffer>(hidden: &Hidden<'_, B>, out: usize) -> Result<(), CudaError> {
    let wrong = |text: String| Err(CudaError::Shape(text));
    let (texts, length, width) = (hidden.tokens.len(), hidden.length, hidden.width);
    if u32::try_from(length).is_err() || u32::try_from(width).is_err() {
        return wrong(format!("{length} tokens of {width} numbers"));
    }
    if texts * length * width * hidden.float.size() > hidden.buffer.size() {
        return wrong(format!(
            "{texts} texts of {length} × {width} in {} bytes",
            hidden.buffer.size()
        ));
    }
    if texts * width * size_of::<f32>() > out {
        return wrong(format!("{texts} vectors of {width} in {out} bytes"));
    }
    let outside = |&&tokens: &&u32| tokens == 0 || tokens as usize > length;
    match hidden.tokens.iter().find(outside) {
        Some(tokens) => wrong(format!(
            "a text of {tokens} tokens: 1 to {length} are right"
        )),
        None => Ok(()),
    }
}
