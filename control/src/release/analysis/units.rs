//! Counts in which no single caller weighs much.
//!
//! Within five seconds one unit counts once, so that a client in a retry loop is not taken for a failing release; of the
//! events that count, no unit has more than one and a sixth; and nothing is the candidate's fault before `min_units`
//! different ones have met the event. Leaving out events can only make an alarm later, never falser.

use std::collections::{HashMap, HashSet};

use super::outcome::Unit;
use super::window::Count;
use crate::time::Timestamp;

/// How long one unit counts once, in microseconds.
pub(super) const BUCKET_US: i64 = 5_000_000;
/// Sticky units counted in one bucket; beyond that a bucket is a sample.
const UNITS_OF_BUCKET: usize = 4_096;
/// Sticky units whose events are counted; the events of later ones are not.
const UNITS_HURT: usize = 16_384;
/// Different sticky units told apart; with more there are enough of them.
const UNITS_TOLD_APART: usize = 1_024;
/// Beyond its first, a unit has at most one event for so many of others. A noisy client moves a ratio by a fifth.
const OTHERS: u64 = 5;

#[derive(Debug, Clone)]
pub(super) struct Units {
    min_units: u64,
    /// What was counted.
    pub(super) judged: Count,
    /// The same before any unit's part was cut.
    pub(super) met: Count,
    bucket: i64,
    seen: HashSet<u64>,
    /// Sticky units that have met the event, and how often that was counted.
    hurt: HashMap<u64, u64>,
    hurt_singles: u64,
    /// Sticky units that were counted, and requests without one.
    distinct: HashSet<u64>,
    singles: u64,
}

impl Units {
    pub(super) fn new(min_units: u32) -> Self {
        Self {
            min_units: u64::from(min_units),
            judged: Count::default(),
            met: Count::default(),
            bucket: i64::MIN,
            seen: HashSet::new(),
            hurt: HashMap::new(),
            hurt_singles: 0,
            distinct: HashSet::new(),
            singles: 0,
        }
    }

    /// Whether this request counts.
    pub(super) fn observe(&mut self, at: Timestamp, unit: Unit, event: bool) -> bool {
        match unit {
            Unit::Sticky(hash) if !self.first_in_bucket(at, hash) => return false,
            Unit::Sticky(hash) if self.distinct.len() < UNITS_TOLD_APART => {
                self.distinct.insert(hash);
            }
            Unit::Sticky(_) => {}
            Unit::Single => self.singles += 1,
        }
        self.met.add(event);
        let counts = !event || self.is_within_its_part(unit);
        if counts {
            self.judged.add(event);
        }
        counts
    }

    fn first_in_bucket(&mut self, at: Timestamp, hash: u64) -> bool {
        let bucket = at.as_micros().div_euclid(BUCKET_US);
        if bucket != self.bucket {
            self.bucket = bucket;
            self.seen.clear();
        }
        self.seen.len() < UNITS_OF_BUCKET && self.seen.insert(hash)
    }

    /// Notes an event, unless its unit already has more than its part of them.
    fn is_within_its_part(&mut self, unit: Unit) -> bool {
        let Unit::Sticky(hash) = unit else {
            self.hurt_singles += 1;
            return true;
        };
        if self.hurt.len() >= UNITS_HURT && !self.hurt.contains_key(&hash) {
            return false;
        }
        let own = self.hurt.entry(hash).or_insert(0);
        let others = self.judged.events - *own;
        let within = *own * OTHERS <= others || self.min_units == 1;
        *own += u64::from(within);
        within
    }

    /// Units that have met the event, counted up to `min_units`.
    pub(super) fn hurt(&self) -> u64 {
        (self.hurt.len() as u64 + self.hurt_singles).min(self.min_units)
    }

    /// The share of units that have met the event; `None` if there are so many that no few of them weigh much.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² requests")]
    pub(super) fn hurt_share(&self) -> Option<f64> {
        let hurt = self.hurt.len() as u64 + self.hurt_singles;
        let all = self.distinct.len() as u64 + self.singles;
        (self.distinct.len() < UNITS_TOLD_APART).then(|| hurt as f64 / all.max(1) as f64)
    }

    pub(super) fn enough(&self) -> bool {
        self.hurt() >= self.min_units
    }
}

#[cfg(test)]
mod tests;
