//! A sequence as the scheduler sees it.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::{PrefixKey, SlotLease};
use crate::request::{CacheSalt, FinishReason, Priority, Usage};

/// Names a sequence for its whole life; never used twice by one scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What is to be generated, and under which limits.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Prompt token ids, at least one and at most the slots' capacity.
    pub prompt: Arc<[u32]>,
    /// Tokens to generate at most; prompt and these fit into a slot together.
    pub max_tokens: usize,
    /// Tokens that end the sequence…
    pub stop: Arc<[u32]>,
    /// … from this many generated tokens on.
    pub min_tokens: usize,
    /// Logits after every prompt token are wanted (so nothing is reused).
    pub prompt_logits: bool,
    /// Class in the waiting queue.
    pub priority: Priority,
    /// Whose turn it takes.
    pub tenant: Arc<str>,
    /// With whom it shares K/V.
    pub salt: CacheSalt,
    /// When its answer becomes worthless.
    pub deadline: Option<Instant>,
}

/// What the device thread drew for one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// The next token.
    Token(u32),
    /// The next token, after which nothing may follow (a grammar is complete).
    Last(u32),
    /// Nothing could be drawn; the sequence is given up.
    Nothing,
}

/// The outcome of sampling one sequence in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// Which sequence.
    pub sequence: SequenceId,
    /// What was drawn.
    pub drawn: Drawn,
}

/// What happened to a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceEvent {
    /// It has left the waiting queue for the first time; `cached` of its prompt
    /// tokens need no computation.
    Started {
        /// Which sequence.
        sequence: SequenceId,
        /// Prompt tokens found in the cache.
        cached: usize,
    },
    /// It has a slot again after [`Self::Preempted`].
    Resumed {
        /// Which sequence.
        sequence: SequenceId,
    },
    /// It gave its slot to a sequence of higher priority and waits again; it will
    /// go on where it was, unseen by its client.
    Preempted {
        /// Which sequence.
        sequence: SequenceId,
    },
    /// It has one more token.
    Token {
        /// Which sequence.
        sequence: SequenceId,
        /// The token.
        token: u32,
    },
    /// It is over, and its slot free. A token that ended it (end-of-sequence or a
    /// stop token) is counted in `usage` and not reported as `Token`.
    Finished {
        /// Which sequence.
        sequence: SequenceId,
        /// Why.
        reason: FinishReason,
        /// What it used.
        usage: Usage,
    },
    /// It is over without an answer: see [`Drawn::Nothing`].
    Lost {
        /// Which sequence.
        sequence: SequenceId,
    },
}

/// A sequence that waits, for the first time or again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) sequence: Sequence,
    /// Prompt and what is generated so far.
    pub(super) tokens: Vec<u32>,
    /// Hashes of `tokens`; made when first needed.
    pub(super) key: Option<PrefixKey>,
    /// Since when it waits.
    pub(super) since: Instant,
    /// It goes on after a preemption; `cached` of its first start.
    pub(super) resumed: Option<usize>,
    /// Ageing brought it forward.
    pub(super) aged: bool,
    /// Tokens charged to its tenant.
    pub(super) charged: usize,
}

impl Waiting {
    pub(super) fn new(sequence: Sequence, now: Instant) -> Self {
        Self {
            tokens: sequence.prompt.to_vec(),
            sequence,
            key: None,
            since: now,
            resumed: None,
            aged: false,
            charged: 0,
        }
    }

    /// The event of its end without ever having got a slot (again).
    pub(super) fn finished(&self, reason: FinishReason) -> SequenceEvent {
        let prompt = self.sequence.prompt.len();
        SequenceEvent::Finished {
            sequence: self.sequence.id,
            reason,
            usage: Usage {
                prompt,
                cached: self.resumed.unwrap_or(0),
                completion: self.tokens.len() - prompt,
            },
        }
    }
}

/// A sequence that holds a slot.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) sequence: Sequence,
    pub(super) tokens: Vec<u32>,
    pub(super) key: PrefixKey,
    pub(super) lease: SlotLease,
    /// Tokens whose K/V the slot holds.
    pub(super) computed: usize,
    /// Prompt tokens that were found in the cache.
    pub(super) cached: usize,
    /// Counts admissions: the order of prefill.
    pub(super) admitted: u64,
    pub(super) preemptible: bool,
    pub(super) charged: usize,
}

impl Running {
    /// Tokens to compute before the next one can be drawn.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.sequence.prompt.len()
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt: self.sequence.prompt.len(),
            cached: self.cached,
            completion: self.generated(),
        }
    }

    /// Takes a drawn token; tells why the sequence ends with it, if it does.
    pub(super) fn push(&mut self, token: u32, last: bool) -> Option<FinishReason> {
        self.tokens.push(token);
        let generated = self.generated();
        let stops = generated > self.sequence.min_tokens && self.sequence.stop.contains(&token);
        if stops || last {
            Some(FinishReason::Stop)
        } else if generated >= self.sequence.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }
}
