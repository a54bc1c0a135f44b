//! Chained block hashes and the slots that hold them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Tokens hashed together. A prefix shorter than this is not worth a copy.
pub const BLOCK: usize = 16;

/// Chained hashes of the complete blocks of a token sequence: hash *i* covers
/// all tokens up to the end of block *i*, so equal hashes mean (almost surely)
/// equal prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixKey(Vec<u64>);

impl PrefixKey {
    /// One hash a complete block.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.0
    }

    /// Complete blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.0.len()
    }

    /// The key of the first `tokens` tokens.
    pub(super) fn truncated(&self, tokens: usize) -> Self {
        Self(self.0[..self.0.len().min(tokens / BLOCK)].to_vec())
    }

    /// Cuts the key to the first `tokens` tokens; returns what was cut off.
    pub(super) fn truncate(&mut self, tokens: usize) -> Vec<u64> {
        self.0.split_off(self.0.len().min(tokens / BLOCK))
    }

    /// Tokens in complete blocks that both have in common.
    #[must_use]
    pub fn common_tokens(&self, other: &Self) -> usize {
        // Chained hashes agree up to some block and differ from there on.
        let blocks = self.0.len().min(other.0.len());
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.0[middle] == other.0[middle] {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low * BLOCK
    }
}

/// Hashes blocks with a key drawn per process, so that nobody can prepare prompts
/// that collide.
#[derive(Debug, Default)]
pub(super) struct KeyMaker(RandomState);

impl KeyMaker {
    pub(super) fn of(&self, tokens: &[u32]) -> PrefixKey {
        let mut key = PrefixKey(Vec::with_capacity(tokens.len() / BLOCK));
        self.extend(&mut key, tokens);
        key
    }

    /// Adds the hashes of the blocks of `tokens` that `key` does not have yet.
    pub(super) fn extend(&self, key: &mut PrefixKey, tokens: &[u32]) {
        let done = key.0.len() * BLOCK;
        for block in tokens[done..].chunks_exact(BLOCK) {
            let mut hasher = self.0.build_hasher();
            hasher.write_u64(key.0.last().copied().unwrap_or(0));
            for &token in block {
                hasher.write_u32(token);
            }
            key.0.push(hasher.finish());
        }
    }
}

/// From a block's chained hash to the slots that hold this prefix.
#[derive(Debug, Default)]
pub(super) struct PrefixIndex {
    slots: HashMap<u64, Vec<u32>>,
}

impl PrefixIndex {
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let slots = self.slots.entry(hash).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        if let Some(slots) = self.slots.get_mut(&hash) {
            slots.retain(|&held| held != slot);
            if slots.is_empty() {
                self.slots.remove(&hash);
            }
        }
    }

    /// The slots that hold the longest indexed prefix of `key`.
    pub(super) fn deepest(&self, key: &PrefixKey) -> &[u32] {
        // Whoever holds block i holds all before it, so presence is monotone.
        let depth = key
            .hashes()
            .partition_point(|hash| self.slots.contains_key(hash));
        depth
            .checked_sub(1)
            .and_then(|last| self.slots.get(&key.hashes()[last]))
            .map_or(&[], Vec::as_slice)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.slots.values().map(Vec::len).sum()
    }
}
