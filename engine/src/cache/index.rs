//! Chained block hashes and the slots that hold them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::request::CacheSalt;

/// Tokens hashed together. A prefix shorter than this is not worth a copy.
pub const BLOCK: usize = 16;

/// Chained hashes of the complete blocks of a token sequence: hash *i* covers
/// the salt and all tokens up to the end of block *i*, so equal hashes mean (almost
/// surely) equal prefixes under one salt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixKey {
    salt: CacheSalt,
    hashes: Vec<u64>,
}

impl PrefixKey {
    /// One hash a complete block.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Under which salt its tokens are shared.
    #[must_use]
    pub fn salt(&self) -> CacheSalt {
        self.salt
    }

    /// No tokens under another salt.
    pub(super) fn begin(&mut self, salt: CacheSalt) {
        debug_assert!(self.hashes.is_empty() || self.salt == salt);
        self.salt = salt;
    }

    /// Complete blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.hashes.len()
    }

    /// The key of the first `tokens` tokens.
    pub(super) fn truncated(&self, tokens: usize) -> Self {
        Self {
            salt: self.salt,
            hashes: self.hashes[..self.hashes.len().min(tokens / BLOCK)].to_vec(),
        }
    }

    /// Cuts the key to the first `tokens` tokens; returns what was cut off.
    pub(super) fn truncate(&mut self, tokens: usize) -> Vec<u64> {
        self.hashes.split_off(self.hashes.len().min(tokens / BLOCK))
    }

    /// Tokens in complete blocks that both have in common.
    #[must_use]
    pub fn common_tokens(&self, other: &Self) -> usize {
        // Chained hashes agree up to some block and differ from there on.
        if self.salt != other.salt {
            return 0;
        }
        let blocks = self.hashes.len().min(other.hashes.len());
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.hashes[middle] == other.hashes[middle] {
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
    pub(super) fn of(&self, salt: CacheSalt, tokens: &[u32]) -> PrefixKey {
        let mut key = PrefixKey {
            salt,
            hashes: Vec::with_capacity(tokens.len() / BLOCK),
        };
        self.extend(&mut key, tokens);
        key
    }

    /// Adds the hashes of the blocks of `tokens` that `key` does not have yet.
    pub(super) fn extend(&self, key: &mut PrefixKey, tokens: &[u32]) {
        let done = key.hashes.len() * BLOCK;
        for block in tokens[done..].chunks_exact(BLOCK) {
            let mut hasher = self.0.build_hasher();
            match key.hashes.last() {
                Some(&before) => hasher.write_u64(before),
                None => hasher.write_u128(key.salt.value()),
            }
            for &token in block {
                hasher.write_u32(token);
            }
            key.hashes.push(hasher.finish());
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
