//! Which requests of a single-shot model run together.
//!
//! A batch of mixed lengths is padded to its longest text, and on a CPU padding
//! costs more than batching gains (first-come batching falls below no batching
//! at all). So a batch is built around the item whose turn it is from those of
//! nearly its length, and nobody ever waits for a batch to fill: whatever is
//! there when a worker is free, runs.
//!
//! Whose turn it is depends on age, not on length, so that no length starves:
//! the oldest item of the highest class, except that one turn in
//! [`OVERDUE_TURNS`] belongs to the oldest item of all once it is older than
//! [`Budget::max_age`].
//!
//! The queue is a value: no clock, no lock, no thread. [`work`] puts it between
//! async callers and worker threads.

mod class;
mod work;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::request::Priority;
use class::Class;

pub(crate) use work::{Batch, Terms, Ticket, WorkQueue, spawn_worker};
pub use work::{WorkError, WorkStats, WorkTimings};

/// Of this many turns one goes to an overdue item, whatever its class: the
/// lowest class moves on under a flood of the highest, and the highest keeps
/// three quarters of the device.
pub const OVERDUE_TURNS: u32 = 4;

/// What one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Items × tokens of the longest, padding included. A longer item runs alone.
    pub tokens: usize,
    /// Items.
    pub items: usize,
    /// Padding tokens that an item may cause to join a batch: what a run of its
    /// own would cost beside its tokens.
    pub padding: usize,
    /// An item older than this is overdue.
    pub max_age: Duration,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    /// Tokens, which is what a batch is measured in.
    pub tokens: usize,
    /// Class.
    pub priority: Priority,
    /// Past this instant the answer is worthless.
    pub deadline: Option<Instant>,
    /// What to run.
    pub value: T,
}

/// Names an item in the queue; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    number: u64,
    priority: Priority,
}

/// The queue is full; the item comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full<T>(pub Item<T>);

/// A bounded queue that hands out batches of similar lengths.
#[derive(Debug)]
pub struct BatchQueue<T> {
    /// By [`Priority`], lowest first.
    classes: [Class<T>; 3],
    deadlines: BTreeSet<(Instant, ItemId)>,
    max_items: usize,
    next: u64,
    /// Turns since one was offered to an overdue item.
    turns: u32,
}

impl<T> BatchQueue<T> {
    /// An empty queue for at most `max_items`.
    #[must_use]
    pub fn new(max_items: usize) -> Self {
        Self {
            classes: [Class::default(), Class::default(), Class::default()],
            deadlines: BTreeSet::new(),
            max_items,
            next: 0,
            turns: 0,
        }
    }

    /// Items waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.iter().map(Class::len).sum()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.len() == 0)
    }

    /// Tokens waiting.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens_from(Priority::Low)
    }

    /// Tokens waiting in this class and the higher ones.
    #[must_use]
    pub fn tokens_from(&self, priority: Priority) -> usize {
        let classes = &self.classes[priority as usize..];
        classes.iter().map(Class::tokens).sum()
    }

    /// Adds an item that arrives at `now`.
    ///
    /// # Errors
    /// [`Full`] gives it back.
    pub fn push(&mut self, item: Item<T>, now: Instant) -> Result<ItemId, Full<T>> {
        if self.len() >= self.max_items {
            return Err(Full(item));
        }
        let id = ItemId {
            number: self.next,
            priority: item.priority,
        };
        self.next += 1;
        if let Some(deadline) = item.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.classes[id.priority as usize].insert(id.number, now, item);
        Ok(id)
    }

    /// Takes an item out, if it still waits.
    pub fn remove(&mut self, id: ItemId) -> Option<Item<T>> {
        let item = self.classes[id.priority as usize].remove(id.number)?;
        if let Some(deadline) = item.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(item)
    }

    /// Takes out the items whose deadline is not after `now`.
    pub fn expire(&mut self, now: Instant) -> Vec<Item<T>> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            match self.remove(id) {
                Some(item) => expired.push(item),
                None => drop(self.deadlines.pop_first()),
            }
        }
        expired
    }

    /// Takes out the next batch; empty when nothing waits. Longest item first.
    ///
    /// A batch holds items of one class, so that work nobody waits for does not
    /// slow down work somebody waits for.
    pub fn pop(&mut self, budget: &Budget, now: Instant) -> Vec<Item<T>> {
        let Some(turn) = self.turn(budget.max_age, now) else {
            return Vec::new();
        };
        let numbers = self.classes[turn.priority as usize].around(turn.number, budget);
        numbers
            .into_iter()
            .filter_map(|number| {
                self.remove(ItemId {
                    number,
                    priority: turn.priority,
                })
            })
            .collect()
    }

    /// Whose turn it is.
    fn turn(&mut self, max_age: Duration, now: Instant) -> Option<ItemId> {
        const CLASSES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];
        let mut oldest = CLASSES.into_iter().filter_map(|priority| {
            let (number, arrived) = self.classes[priority as usize].oldest()?;
            Some((ItemId { number, priority }, arrived))
        });
        let (overdue, _) = oldest
            .clone()
            .filter(|(_, arrived)| now.saturating_duration_since(*arrived) > max_age)
            .min_by_key(|(id, _)| id.number)
            .unzip();
        let highest = oldest.next_back().map(|(id, _)| id)?;
        self.turns = self.turns.saturating_add(1);
        match overdue {
            Some(overdue) if self.turns >= OVERDUE_TURNS => {
                self.turns = 0;
                Some(overdue)
            }
            _ => Some(highest),
        }
    }
}

#[cfg(test)]
mod tests;
