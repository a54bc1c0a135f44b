//! Which sequence holds which slot, and what K/V are left there for reuse.
//!
//! The device's arena has `slots` slots of `capacity` tokens. A running sequence
//! leases one slot; when it ends, its K/V stay behind as a prefix cache until the
//! slot is needed (least recently used first). A new sequence takes over what an
//! earlier one, *or one still running*, has computed for the same prefix: in place
//! where the slot is free and little else would be lost, by a copy otherwise. It takes
//! over only what was computed under its own [`CacheSalt`].
//!
//! A decode step runs over the slots `0..=highest leased`, so leases are kept
//! low: what is cached in a low slot is moved out of the way rather than letting
//! dummy rows ride in every step.
//!
//! Pure: it decides, and lists the copies to make ([`CopyPrefix`]); the device
//! thread makes them, in order, before the step's run. Memory is bounded by the
//! arena's shape: 4 bytes per token cell, and at most one index entry per
//! [`BLOCK`] cells.

mod index;
mod placement;
#[cfg(test)]
mod tests;

pub use index::{BLOCK, PrefixKey};
use index::{KeyMaker, PrefixIndex};
use placement::Placement;

use crate::request::CacheSalt;

/// A copy of the K/V of the first `tokens` tokens between two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyPrefix {
    /// Slot that holds them.
    pub from: u32,
    /// Slot whose content is overwritten.
    pub to: u32,
    /// How many.
    pub tokens: u32,
}

/// The right to write to a slot. Returned by [`SlotCache::lease`] and given back
/// to [`SlotCache::release`] or [`SlotCache::discard`]; it cannot be cloned, so a
/// slot never has two owners.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is dropped keeps its slot for ever"]
pub struct SlotLease {
    slot: u32,
}

impl SlotLease {
    /// The slot's number.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

/// The longest prefix of a prompt that some slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixMatch {
    /// Where it is.
    pub slot: u32,
    /// Its length in tokens.
    pub tokens: usize,
}

#[derive(Debug, Default)]
struct Slot {
    leased: bool,
    /// The tokens whose K/V the slot holds.
    tokens: Vec<u32>,
    /// Their blocks' chained hashes.
    key: PrefixKey,
    /// Logical time of the last lease or release.
    used_at: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct SlotCache {
    capacity: usize,
    reuse: bool,
    slots: Vec<Slot>,
    index: PrefixIndex,
    keys: KeyMaker,
    clock: u64,
}

impl SlotCache {
    /// An arena of `slots` empty slots of `capacity` tokens. Without `reuse`,
    /// [`Self::match_prefix`] finds nothing.
    #[must_use]
    pub fn new(slots: u32, capacity: usize, reuse: bool) -> Self {
        Self {
            capacity,
            reuse,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            index: PrefixIndex::default(),
            keys: KeyMaker::default(),
            clock: 0,
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Tokens a slot holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether prefixes are reused at all.
    #[must_use]
    pub fn reuses(&self) -> bool {
        self.reuse
    }

    /// Slots without a lease.
    #[must_use]
    pub fn free(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.leased).count()
    }

    /// One past the highest leased slot: the rows of a decode step.
    #[must_use]
    pub fn range(&self) -> usize {
        self.slots
            .iter()
            .rposition(|slot| slot.leased)
            .map_or(0, |last| last + 1)
    }

    /// Tokens of K/V held under a lease, and kept for reuse only.
    #[must_use]
    pub fn tokens_held(&self) -> (usize, usize) {
        self.slots.iter().fold((0, 0), |(used, cached), slot| {
            let n = slot.tokens.len();
            if slot.leased {
                (used + n, cached)
            } else {
                (used, cached + n)
            }
        })
    }

    /// The chained block hashes of a prompt under a salt, to be computed once per sequence.
    #[must_use]
    pub fn key(&self, salt: CacheSalt, tokens: &[u32]) -> PrefixKey {
        self.keys.of(salt, tokens)
    }

    /// The slot that holds the longest prefix of `tokens`, of at least one
    /// [`BLOCK`] and at most `limit` tokens, computed under the key's salt. Hashes find
    /// candidates; salt and tokens are compared, so a hash collision costs a miss and
    /// never a wrong prefix or another's.
    #[must_use]
    pub fn match_prefix(
        &self,
        key: &PrefixKey,
        tokens: &[u32],
        limit: usize,
    ) -> Option<PrefixMatch> {
        if !self.reuse {
            return None;
        }
        self.index
            .deepest(key)
            .iter()
            .map(|&slot| (slot, &self.slots[slot as usize]))
            .filter(|(_, held)| held.key.salt() == key.salt())
            .map(|(slot, held)| (common_prefix(tokens, &held.tokens).min(limit), slot, held))
            .filter(|(common, ..)| *common >= BLOCK)
            // Of equal ones, that which is free and loses the least when taken over.
            .max_by_key(|&(common, slot, held)| {
                let tail = held.tokens.len() - common;
                (common, !held.leased, std::cmp::Reverse((tail, slot)))
            })
            .map(|(common, slot, _)| PrefixMatch {
                slot,
                tokens: common,
            })
    }

    /// Leases a slot that holds the matched prefix, and nothing else, once
    /// `copies` are made; what is computed there is shared under `salt`, that of the
    /// key by which the match was found. `None` when every slot is leased.
    pub fn lease(
        &mut self,
        salt: CacheSalt,
        found: Option<PrefixMatch>,
        copies: &mut Vec<CopyPrefix>,
    ) -> Option<SlotLease> {
        let placement = placement::place(&self.slots, self.range(), found)?;
        self.clock += 1;
        if let Some(found) = found {
            self.slots[found.slot as usize].used_at = self.clock;
        }
        let Placement {
            slot,
            displaced_to,
            content,
            consumed,
        } = placement;
        if let Some(to) = displaced_to {
            self.copy(slot, to, self.slots[slot as usize].tokens.len(), copies);
        }
        match content {
            Some(found) if found.slot == slot => self.truncate(slot, found.tokens),
            Some(found) => self.copy(found.slot, slot, found.tokens, copies),
            None => self.truncate(slot, 0),
        }
        if let Some(source) = consumed {
            self.truncate(source, 0);
        }
        let leased = &mut self.slots[slot as usize];
        leased.leased = true;
        leased.used_at = self.clock;
        leased.key.begin(salt);
        Some(SlotLease { slot })
    }

    /// Tokens whose K/V the leased slot holds.
    #[must_use]
    pub fn held(&self, lease: &SlotLease) -> usize {
        self.slots[lease.slot as usize].tokens.len()
    }

    /// Records that a step has computed the K/V of `tokens`, behind those held.
    pub fn grow(&mut self, lease: &SlotLease, tokens: &[u32]) {
        let slot = &mut self.slots[lease.slot as usize];
        debug_assert!(slot.leased && slot.tokens.len() + tokens.len() <= self.capacity);
        slot.tokens.extend_from_slice(tokens);
        if !self.reuse {
            return;
        }
        let before = slot.key.blocks();
        self.keys.extend(&mut slot.key, &slot.tokens);
        for &hash in &slot.key.hashes()[before..] {
            self.index.insert(hash, lease.slot);
        }
    }

    /// Gives a slot back; its K/V stay for reuse.
    #[expect(clippy::needless_pass_by_value, reason = "the lease ends here")]
    pub fn release(&mut self, lease: SlotLease) {
        let slot = lease.slot;
        self.clock += 1;
        let held = &mut self.slots[slot as usize];
        held.leased = false;
        held.used_at = self.clock;
        // A dummy row's junk lands behind the last token held, which must not be
        // the slot's last cell.
        let keep = if self.reuse {
            held.tokens.len().min(self.capacity - 1)
        } else {
            0
        };
        self.truncate(slot, keep);
    }

    /// Gives a slot back whose content is unknown (a step failed on it).
    pub fn discard(&mut self, lease: SlotLease) {
        self.truncate(lease.slot, 0);
        self.release(lease);
    }

    /// Forgets what a slot without lease holds (a copy to it failed).
    pub fn forget(&mut self, slot: u32) {
        if !self.slots[slot as usize].leased {
            self.truncate(slot, 0);
        }
    }

    /// Where the highest lease should move so that decode steps run over fewer
    /// slots: a free slot below it, if the dummy rows saved over `steps` more
    /// steps are worth more than the copy (see [`placement::ROW_STEP_TOKENS`]).
    #[must_use]
    pub fn compaction(&self, highest: &SlotLease, steps: usize) -> Option<u32> {
        placement::compact(&self.slots, highest.slot, steps)
    }

    /// Moves a lease with all that its slot holds to the free slot `to`.
    pub fn relocate(&mut self, lease: &mut SlotLease, to: u32, copies: &mut Vec<CopyPrefix>) {
        debug_assert!(!self.slots[to as usize].leased);
        let from = lease.slot;
        self.copy(from, to, self.held(lease), copies);
        self.truncate(from, 0);
        self.clock += 1;
        self.slots[from as usize].leased = false;
        self.slots[to as usize].leased = true;
        self.slots[to as usize].used_at = self.clock;
        lease.slot = to;
    }

    fn copy(&mut self, from: u32, to: u32, tokens: usize, copies: &mut Vec<CopyPrefix>) {
        debug_assert_ne!(from, to);
        self.truncate(to, 0);
        if tokens == 0 {
            return;
        }
        let source = &self.slots[from as usize];
        let copied = source.tokens[..tokens].to_vec();
        let key = source.key.truncated(tokens);
        let used_at = source.used_at;
        for &hash in key.hashes() {
            self.index.insert(hash, to);
        }
        let target = &mut self.slots[to as usize];
        target.tokens = copied;
        target.key = key;
        target.used_at = used_at;
        copies.push(CopyPrefix {
            from,
            to,
            tokens: tokens as u32,
        });
    }

    fn truncate(&mut self, slot: u32, tokens: usize) {
        let held = &mut self.slots[slot as usize];
        held.tokens.truncate(tokens);
        for hash in held.key.truncate(tokens) {
            self.index.remove(hash, slot);
        }
    }
}

/// Length of the longest common prefix.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
