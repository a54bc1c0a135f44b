//! A backend without arithmetic, for tests, demonstrations and measuring overhead.
//!
//! Its "K/V arena" remembers which token was written at which position of which
//! slot. The next token is a hash over *all* cells below a row's length, so that
//! any mistake in the bookkeeping above it (a stale prefix, two sequences in one
//! slot, a copy that came too late) changes what is generated. Like the real
//! backends it lets idle slots inside the decode range ride as dummy rows, whose
//! junk lands just behind the slot's used length.

mod control;
mod next_token;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use control::{Failure, FakeControl};
pub use next_token::{FakeTokens, next_token};

use super::{Backend, BackendFactory, Batch, Capabilities, Outputs, Row, Wanted};
use crate::error::BackendError;

/// What a cell holds before anything, or a dummy row, was written there. Not a
/// token of any vocabulary.
const JUNK: u32 = u32::MAX;

/// Logit of the token to come, of the second and third choice, and of all others.
const LADDER: [f32; 3] = [12.0, 8.0, 6.0];

/// Shape, speed and output of a [`FakeBackend`].
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Sequences at once.
    pub slots: u32,
    /// Tokens a slot.
    pub capacity: u32,
    /// Size of the logits' last dimension; at least 4.
    pub vocab: u32,
    /// Reported in [`Capabilities::ragged`].
    pub ragged: bool,
    /// What comes next.
    pub tokens: FakeTokens,
    /// Simulated time of any step.
    pub step_time: Duration,
    /// Simulated time added per row.
    pub row_time: Duration,
    /// Simulated time added per new token.
    pub token_time: Duration,
    /// Simulated time per token of a prefix copy.
    pub copy_time: Duration,
}

impl Default for FakeOptions {
    /// 8 slots of 512 tokens, 256 token ids, no simulated time.
    fn default() -> Self {
        Self {
            slots: 8,
            capacity: 512,
            vocab: 256,
            ragged: true,
            tokens: FakeTokens::Hash { low: 0, high: 256 },
            step_time: Duration::ZERO,
            row_time: Duration::ZERO,
            token_time: Duration::ZERO,
            copy_time: Duration::ZERO,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct FakeBackend {
    options: FakeOptions,
    capabilities: Capabilities,
    control: FakeControl,
    /// `[slots, capacity]` tokens as written.
    cells: Vec<u32>,
    /// Length last written, per slot.
    lengths: Vec<u32>,
    /// Simulated time not yet slept (sleeping is too coarse for microseconds).
    owed: Duration,
}

impl FakeBackend {
    /// A backend steered by `control`.
    #[must_use]
    pub fn new(options: FakeOptions, control: FakeControl) -> Self {
        let cells = vec![JUNK; options.slots as usize * options.capacity as usize];
        let capabilities = Capabilities {
            slots: options.slots,
            capacity: options.capacity,
            vocab: options.vocab.max(4),
            ragged: options.ragged,
            kv_bytes: size_of_val(cells.as_slice()) as u64,
            weight_bytes: 0,
            provider: "fake".to_owned(),
        };
        let lengths = vec![0; options.slots as usize];
        Self {
            options,
            capabilities,
            control,
            cells,
            lengths,
            owed: Duration::ZERO,
        }
    }

    /// The same as a factory for [`crate::generator::GeneratorHandle::start`].
    #[must_use]
    pub fn factory(options: FakeOptions, control: FakeControl) -> BackendFactory {
        Box::new(move || Ok(Box::new(Self::new(options, control))))
    }

    fn slot_cells(&self, slot: u32) -> &[u32] {
        let capacity = self.options.capacity as usize;
        &self.cells[slot as usize * capacity..][..capacity]
    }

    fn slot_cells_mut(&mut self, slot: u32) -> &mut [u32] {
        let capacity = self.options.capacity as usize;
        &mut self.cells[slot as usize * capacity..][..capacity]
    }

    fn check(&self, batch: &Batch<'_>) -> Result<(), BackendError> {
        let mut seen = vec![false; self.options.slots as usize];
        for row in &batch.rows {
            let refuse = |what: &str| {
                Err(BackendError::Step(format!(
                    "slot {}: {what} (past {}, {} new)",
                    row.slot,
                    row.past,
                    row.tokens.len()
                )))
            };
            match seen.get_mut(row.slot as usize) {
                None => return refuse("does not exist"),
                Some(true) => return refuse("appears twice"),
                Some(seen) => *seen = true,
            }
            if row.tokens.is_empty() {
                return refuse("row without tokens");
            }
            if row.past as usize + row.tokens.len() > self.options.capacity as usize {
                return refuse("beyond the capacity");
            }
            if row.tokens.iter().any(|&t| t >= self.capabilities.vocab) {
                return refuse("token outside the vocabulary");
            }
        }
        Ok(())
    }

    /// Idle slots below the last decoding one get junk behind their length.
    fn write_dummy_rows(&mut self, batch: &Batch<'_>) {
        let range = batch
            .rows
            .iter()
            .filter(|row| row.tokens.len() == 1)
            .map(|row| row.slot + 1)
            .max()
            .unwrap_or(0);
        for slot in 0..range {
            if batch.rows.iter().any(|row| row.slot == slot) {
                continue;
            }
            let at = self.lengths[slot as usize].min(self.options.capacity - 1) as usize;
            self.slot_cells_mut(slot)[at] = JUNK;
        }
    }

    fn run_row(&mut self, row: &Row<'_>, outputs: &mut Outputs) {
        let (past, new) = (row.past as usize, row.tokens.len());
        self.slot_cells_mut(row.slot)[past..past + new].copy_from_slice(row.tokens);
        self.lengths[row.slot as usize] = (past + new) as u32;
        let first = outputs.logits.len() / outputs.vocab;
        let wanted = match row.wanted {
            Wanted::Nothing => past + new..past + new,
            Wanted::Last => past + new - 1..past + new,
            Wanted::All => past..past + new,
        };
        for position in wanted.clone() {
            let history = &self.slot_cells(row.slot)[..=position];
            let choice = next_token(&self.options.tokens, self.capabilities.vocab, history);
            push_logits(outputs, choice);
        }
        outputs.ranges.push(first..first + wanted.len());
    }

    fn spend(&mut self, cost: Duration) {
        self.owed += cost;
        // Short sleeps overshoot by tens of microseconds; the overshoot is
        // credited to the next step, so that the average is right.
        if self.owed >= Duration::from_micros(200) {
            let begin = Instant::now();
            std::thread::sleep(self.owed);
            self.owed = self.owed.saturating_sub(begin.elapsed());
        }
    }
}

fn push_logits(outputs: &mut Outputs, choice: u32) {
    let start = outputs.logits.len();
    outputs.logits.resize(start + outputs.vocab, 0.0);
    let row = &mut outputs.logits[start..];
    for (rank, logit) in LADDER.into_iter().enumerate() {
        let at = (choice as usize + rank) % row.len();
        row[at] = logit;
    }
}

impl Backend for FakeBackend {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn warmup(&mut self) -> Result<(), BackendError> {
        self.control.begin_warmup()
    }

    fn execute(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let new_tokens: usize = batch.rows.iter().map(|row| row.tokens.len()).sum();
        if let Err(error) = self.control.begin_step(batch.rows.len(), new_tokens) {
            // A step that fails half-way leaves its slots in an unknown state.
            for row in &batch.rows {
                self.slot_cells_mut(row.slot).fill(JUNK);
            }
            return Err(error);
        }
        self.check(batch)?;
        outputs.logits.clear();
        outputs.ranges.clear();
        outputs.vocab = self.capabilities.vocab as usize;
        self.write_dummy_rows(batch);
        for row in &batch.rows {
            self.run_row(row, outputs);
        }
        let cost = self.options.step_time
            + self.options.row_time * batch.rows.len() as u32
            + self.options.token_time * new_tokens as u32;
        self.spend(cost);
        Ok(())
    }

    fn copy_prefix(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), BackendError> {
        self.control.begin_copy(tokens)?;
        let limit = self.options.slots;
        if from >= limit || to >= limit || from == to || tokens > self.lengths[from as usize] {
            return Err(BackendError::Step(format!(
                "cannot copy {tokens} tokens of slot {from} to slot {to}"
            )));
        }
        let capacity = self.options.capacity as usize;
        let source = from as usize * capacity;
        self.cells
            .copy_within(source..source + tokens as usize, to as usize * capacity);
        self.lengths[to as usize] = tokens;
        self.spend(self.options.copy_time * tokens);
        Ok(())
    }
}
