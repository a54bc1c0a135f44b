//! The hidden rows that logits are wanted of, copied out of a batch's.
#![expect(unsafe_code, reason = "launches a kernel on raw addresses")]

use super::CudaError;
use super::buffers::Kept;
use super::machine::{Buffer, Launch, Machine, Plain, bytes_of};

const THREADS: u32 = 256;

/// What to gather.
#[derive(Debug)]
pub struct Gather<'a, B> {
    /// `[rows, row_bytes]`.
    pub from: &'a B,
    /// `[indices.len(), row_bytes]`.
    pub to: &'a mut B,
    /// Rows of `from`, in the order in which they are wanted.
    pub indices: &'a [u32],
    /// Bytes of a row.
    pub row_bytes: usize,
}

/// Kernel `gather_rows`.
#[derive(Debug)]
pub struct RowGather<B> {
    indices: Kept<B>,
}

impl<B> Default for RowGather<B> {
    fn default() -> Self {
        Self {
            indices: Kept::default(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    to: u64,
    from: u64,
    indices: u64,
    row_bytes: u64,
}

// SAFETY: four numbers of the same size.
unsafe impl Plain for Arguments {}

impl<B: Buffer> RowGather<B> {
    /// Starts gathering.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when an index or a buffer is out of range.
    pub fn gather<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        gather: Gather<'_, B>,
    ) -> Result<(), CudaError> {
        let Gather {
            from,
            to,
            indices,
            row_bytes,
        } = gather;
        let rows = from.size().checked_div(row_bytes).unwrap_or(0);
        if let Some(index) = indices.iter().find(|&&index| index as usize >= rows) {
            return Err(CudaError::Shape(format!(
                "row {index} of {rows} is asked for"
            )));
        }
        if indices.len() * row_bytes > to.size() {
            return Err(CudaError::Shape(format!(
                "{} rows of {row_bytes} bytes do not fit into {}",
                indices.len(),
                to.size()
            )));
        }
        if indices.is_empty() {
            return Ok(());
        }
        let kept = self.indices.holding(machine, bytes_of(indices))?;
        let arguments = Arguments {
            to: to.address(),
            from: from.address(),
            indices: kept.address(),
            row_bytes: row_bytes as u64,
        };
        let launch = Launch {
            image: "gather",
            kernel: "gather_rows",
            grid: [indices.len() as u32, 1, 1],
            threads: THREADS,
            arguments: bytes_of(std::slice::from_ref(&arguments)),
        };
        // SAFETY: every row lies in its buffer, as checked; `to` is borrowed mutably,
        // so it is another buffer than `from`; both and `kept` belong to the machine,
        // which frees memory after what was launched before.
        unsafe { machine.launch(&launch) }
    }
}
