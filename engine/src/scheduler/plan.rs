//! One step, decided and not yet run.

use super::sequence::{SequenceEvent, SequenceId};
use crate::backend::Wanted;
use crate::cache::CopyPrefix;

/// What the next step does: first `copies` in order, then one run of `rows`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use = "a plan that is not run must be failed, or its sequences stall"]
pub struct StepPlan {
    /// K/V to copy before the run.
    pub copies: Vec<CopyPrefix>,
    /// Tokens per sequence.
    pub rows: Vec<PlannedRow>,
    /// What scheduling itself brought about: starts, preemptions, deadlines.
    pub events: Vec<SequenceEvent>,
}

/// New tokens of one sequence. There is no phase: a decoding sequence is one with
/// a single token to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    /// Which sequence.
    pub sequence: SequenceId,
    /// Its slot.
    pub slot: u32,
    /// Tokens whose K/V the slot holds.
    pub past: usize,
    /// New tokens, at least one.
    pub tokens: usize,
    /// Logits the device is to return.
    pub wanted: Wanted,
    /// A token is to be drawn from the row's last logits.
    pub draws: bool,
    /// Part of a prompt (as far as latency is concerned).
    pub(super) prefill: bool,
    /// Where the scheduler keeps the sequence.
    pub(super) place: usize,
}

impl StepPlan {
    /// New tokens in all.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens).sum()
    }

    /// Nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
