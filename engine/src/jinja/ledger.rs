//! What a rendering has taken: steps, and bytes that are alive.
//!
//! A template may double a text in each step, so counting steps bounds nothing. Every text, list and mapping that a
//! template makes is entered here before it is made and leaves with its last owner; what does not fit is refused.

use std::cell::Cell;
use std::rc::Rc;

use super::fault::{Fault, Out};

/// What one rendering may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the template that are evaluated; work on long texts counts by its length.
    pub steps: u64,
    /// Bytes of texts, lists and mappings alive at a time, beyond the variables given.
    pub memory: usize,
    /// Bytes of one text, the rendered one too.
    pub text: usize,
}

/// Levels to which values may be nested: what walks them does so by recursion.
pub(super) const MAX_DEPTH: u16 = 200;
/// Bytes of a text that are looked through in a step.
const BYTES_A_STEP: usize = 512;

#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    steps: Cell<u64>,
    live: Cell<usize>,
}

/// Bytes entered; they leave the ledger with it.
#[derive(Debug)]
pub(super) struct Charge {
    ledger: Rc<Ledger>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.live.set(self.ledger.live.get() - self.bytes);
    }
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            steps: Cell::new(limits.steps),
            live: Cell::new(0),
            limits,
        })
    }

    /// Enters bytes that are about to be allocated.
    pub(super) fn enter(self: &Rc<Self>, bytes: usize) -> Out<Charge> {
        let live = self.live.get().saturating_add(bytes);
        if live > self.limits.memory {
            return Err(Fault::too_much(format!(
                "it builds values of more than {} bytes",
                self.limits.memory
            )));
        }
        self.live.set(live);
        Ok(Charge {
            ledger: Rc::clone(self),
            bytes,
        })
    }

    /// Whether a text may have so many bytes.
    pub(super) fn check_text(&self, bytes: usize) -> Out<()> {
        match bytes > self.limits.text {
            true => Err(Fault::too_much(format!(
                "it builds a text of more than {} bytes",
                self.limits.text
            ))),
            false => Ok(()),
        }
    }

    /// Takes a step.
    pub(super) fn step(&self) -> Out<()> {
        self.steps(1)
    }

    /// Takes the steps of work on a text of so many bytes.
    pub(super) fn work(&self, bytes: usize) -> Out<()> {
        self.steps((bytes / BYTES_A_STEP) as u64)
    }

    fn steps(&self, count: u64) -> Out<()> {
        match self.steps.get().checked_sub(count) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => Err(Fault::too_much("it takes too many steps")),
        }
    }

    /// A text that is being written, of bounded length.
    pub(super) fn draft(self: &Rc<Self>) -> Draft {
        Draft {
            text: String::new(),
            ledger: Rc::clone(self),
        }
    }
}

/// A text that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) ledger: Rc<Ledger>,
}

impl Draft {
    pub(super) fn push(&mut self, piece: &str) -> Out<()> {
        self.ledger.check_text(self.text.len() + piece.len())?;
        self.text.push_str(piece);
        Ok(())
    }

    pub(super) fn push_char(&mut self, c: char) -> Out<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn fill(&mut self, c: char, count: usize) -> Out<()> {
        let bytes = count.saturating_mul(c.len_utf8());
        self.ledger
            .check_text(self.text.len().saturating_add(bytes))?;
        self.text.extend(std::iter::repeat_n(c, count));
        Ok(())
    }
}
