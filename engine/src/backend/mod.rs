//! The seam between scheduling and arithmetic.
//!
//! A [`Backend`] runs one step of a causal language model over *slots*. It has no
//! queue, no clock and no async in it. Tokens are drawn where the logits are: by
//! the CPU's sampler unless the backend keeps them on its device. It is built on its device
//! thread (see [`BackendFactory`]) and never leaves it.

pub mod builds;
pub mod fake;
pub mod onnx;
pub mod tensorrt;

mod failures;
pub(crate) mod pooled;

use std::ops::Range;

use crate::error::{BackendError, LoadError};
use crate::request::SampledToken;
use crate::sampler::{Draw, SampleError, Sampler};
pub use failures::FAILED_RUNS;
pub(crate) use failures::FailedRuns;

/// What a loaded model can do and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Sequences that can hold K/V at once.
    pub slots: u32,
    /// Tokens that one slot holds.
    pub capacity: u32,
    /// Size of the logits' last dimension.
    pub vocab: u32,
    /// One run may mix rows of different numbers of new tokens.
    pub ragged: bool,
    /// Bytes of the K/V arena, all slots.
    pub kv_bytes: u64,
    /// Bytes of the weights as loaded.
    pub weight_bytes: u64,
    /// Execution provider in use, for example `cpu`.
    pub provider: String,
}

/// Which logits a row wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None: a chunk of prefill that is not the last.
    Nothing,
    /// Those after the row's last token.
    Last,
    /// Those after each of the row's tokens (prompt log-probabilities).
    All,
}

/// New tokens of one sequence in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Slot that holds the sequence.
    pub slot: u32,
    /// Tokens of the sequence whose K/V the slot already holds.
    pub past: u32,
    /// New tokens, at least one; `past + tokens.len() <= capacity`.
    pub tokens: &'a [u32],
    /// Logits to return.
    pub wanted: Wanted,
}

/// One step. A slot appears at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Rows in any order.
    pub rows: Vec<Row<'a>>,
}

/// Logits of one step; reused from step to step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// `[wanted rows, vocab]`, row-major. Undefined where the backend keeps logits on
    /// its device, until they are fetched ([`Backend::fetch`]).
    pub logits: Vec<f32>,
    /// Size of the last dimension.
    pub vocab: usize,
    /// For each batch row, its range of logits rows (empty for [`Wanted::Nothing`]).
    pub ranges: Vec<Range<usize>>,
}

impl Outputs {
    /// Logits row `index` (an index out of `ranges`).
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.logits[index * self.vocab..(index + 1) * self.vocab]
    }

    /// The same, to be modified in place by the sampler.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.logits[index * self.vocab..(index + 1) * self.vocab]
    }
}

/// A causal language model on a device.
pub trait Backend {
    /// Fixed for the life of the backend.
    fn capabilities(&self) -> &Capabilities;

    /// Runs representative shapes once, so that the first request is not slow.
    ///
    /// # Errors
    /// The device cannot run this model.
    fn warmup(&mut self) -> Result<(), BackendError>;

    /// Runs one step and fills `outputs`. A device may still compute afterwards: `fetch`
    /// and `draw` wait for it.
    ///
    /// Slots that are not in the batch keep their K/V unchanged up to the
    /// lengths last written; what lies beyond a slot's length is undefined.
    ///
    /// # Errors
    /// [`BackendError::Step`] loses this step's sequences only.
    fn execute(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError>;

    /// Copies rows of the last step's logits into `outputs`, if they are not there.
    ///
    /// # Errors
    /// The device refused the copy.
    fn fetch(&mut self, rows: Range<usize>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let _ = (rows, outputs);
        Ok(())
    }

    /// Draws tokens from the last step's logits, in the order of `draws`; rows of
    /// `outputs` may be overwritten. The result is the same wherever it is computed.
    ///
    /// # Errors
    /// [`BackendError::Step`] loses this step's sequences only. That a row has no
    /// token to give is in `tokens`.
    fn draw(
        &mut self,
        sampler: &mut Sampler,
        outputs: &mut Outputs,
        draws: &[Draw<'_>],
        tokens: &mut Vec<Result<SampledToken, SampleError>>,
    ) -> Result<(), BackendError> {
        sampler.draw_all(outputs, draws, tokens);
        Ok(())
    }

    /// Copies the K/V of the first `tokens` tokens of slot `from` to slot `to`.
    ///
    /// # Errors
    /// The device refused the copy.
    fn copy_prefix(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), BackendError>;
}

/// Builds a backend on the thread that will own it.
pub type BackendFactory = Box<dyn FnOnce() -> Result<Box<dyn Backend>, LoadError> + Send>;
