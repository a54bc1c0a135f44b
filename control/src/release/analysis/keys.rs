//! Whose units they are. A client chooses its session ids, but not its key: where several keys use a deployment, what
//! only one of them has met may be its own doing.

use std::collections::{HashMap, HashSet};

use super::outcome::Unit;

/// Units told apart; later ones are not counted.
const UNITS: usize = 65_536;
/// Keys told apart; the units of later ones are not counted.
const KEYS: usize = 4_096;
/// A second key counts as one from a twentieth of the units on.
const PART: u64 = 20;

/// Units by key, of both revisions.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    seen: HashSet<u64>,
    counts: HashMap<u64, u64>,
    all: u64,
    /// The key with the most units, and how many.
    most: (u64, u64),
    /// How many units the next has.
    second: u64,
}

impl Keys {
    pub(super) fn note(&mut self, unit: Unit, key: u64) {
        if let Unit::Sticky(hash) = unit
            && (self.seen.len() >= UNITS || !self.seen.insert(hash))
        {
            return;
        }
        if self.counts.len() >= KEYS && !self.counts.contains_key(&key) {
            return;
        }
        self.all += 1;
        let count = self.counts.entry(key).or_insert(0);
        *count += 1;
        let count = *count;
        if key == self.most.0 {
            self.most.1 = count;
        } else if count > self.most.1 {
            self.second = self.most.1;
            self.most = (key, count);
        } else {
            self.second = self.second.max(count);
        }
    }

    /// How many units all keys but this one have, and how many there are.
    pub(super) fn others_of(&self, key: u64) -> (u64, u64) {
        let own = self.counts.get(&key).copied().unwrap_or(0);
        (self.all - own, self.all)
    }

    /// Whether a second key has sent at least a twentieth of the units.
    pub(super) const fn are_several(&self) -> bool {
        self.second > 0 && self.second * PART >= self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_counts_from_a_twentieth_of_the_units_on() {
        let mut keys = Keys::default();
        for unit in 0..95 {
            keys.note(Unit::Sticky(unit), 7);
        }
        assert!(!keys.are_several());
        for unit in 100..104 {
            keys.note(Unit::Sticky(unit), 8);
            // However often it comes.
            keys.note(Unit::Sticky(unit), 8);
        }
        assert!(!keys.are_several(), "4 of 99");
        keys.note(Unit::Sticky(104), 8);
        assert!(keys.are_several(), "5 of 100");
        // Which of them is the larger may change.
        for unit in 200..400 {
            keys.note(Unit::Sticky(unit), 8);
        }
        assert!(keys.are_several());
        for unit in 1_000..3_000 {
            keys.note(Unit::Single, 8);
            keys.note(Unit::Sticky(unit), 8);
        }
        assert!(!keys.are_several());
    }
}
