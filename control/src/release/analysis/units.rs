//! Counts in which no single caller weighs much.
//!
//! A unit that meets the event is noted as hurt at once, whatever it sent before. Only then its requests are thinned: within
//! five seconds each unit has one voice, the share of its own requests that met the event, and what counts is the mean of
//! those. So an agent that makes five requests at a time and fails in one is a fifth, and a client in a retry loop is one
//! unit. Beyond its first such five seconds a unit is heard at most once for so many of others that were hurt, and
//! nothing is the candidate's fault before `min_units` different ones have met the event. Leaving out events can only make an
//! alarm later, never falser.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::keys::Keys;
use super::outcome::{Exposure, Unit};
use super::window::Count;
use crate::time::Timestamp;

/// How long one unit has one voice, in microseconds.
pub(super) const BUCKET_US: i64 = 5_000_000;
/// Sticky units counted in one bucket; beyond that a bucket is a sample.
const UNITS_OF_BUCKET: usize = 4_096;
/// Sticky units whose events are counted; the events of later ones are not.
const UNITS_HURT: usize = 16_384;
/// Different sticky units told apart; with more there are enough of them.
const UNITS_TOLD_APART: usize = 1_024;
/// Beyond its first, a unit has at most one event for so many of others. A noisy client moves a ratio by a fifth.
const OTHERS: u64 = 5;
/// Keys of hurt units told apart; with more, no one of them weighs much.
const KEYS_HURT: usize = 64;
/// Keys that are hurt less often than so many times less than the one that is most have not met the same.
const QUARTER: u64 = 4;

#[derive(Debug, Clone)]
pub(super) struct Units {
    min_units: u64,
    /// Units in five seconds, and those of them that were hurt, of what was heard.
    judged: Count,
    /// The same before any unit's part was cut.
    met: Count,
    bucket: i64,
    open: Open,
    /// Sticky units that have met the event, and how often that was counted.
    hurt: HashMap<u64, u64>,
    hurt_singles: u64,
    /// Hurt units that a lot had put there, by key.
    keys: HashMap<u64, u64>,
    hurt_by_lot: u64,
    /// Some were hurt that no lot had put there.
    undrawn: bool,
    /// Sticky units that were counted, and requests without one.
    distinct: HashSet<u64>,
    singles: u64,
}

/// The five seconds under way.
#[derive(Debug, Clone, Default)]
struct Open {
    /// In the order of the units, so that the same requests give the same numbers.
    units: BTreeMap<u64, Count>,
    singles: Count,
}

/// Five seconds that are over: the mean share of events over their units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Closed {
    pub(super) at: Timestamp,
    pub(super) share: f64,
    pub(super) units: Count,
}

impl Units {
    pub(super) fn new(min_units: u32) -> Self {
        Self {
            min_units: u64::from(min_units),
            judged: Count::default(),
            met: Count::default(),
            bucket: i64::MIN,
            open: Open::default(),
            hurt: HashMap::new(),
            hurt_singles: 0,
            keys: HashMap::new(),
            hurt_by_lot: 0,
            undrawn: false,
            distinct: HashSet::new(),
            singles: 0,
        }
    }

    /// Notes a request; where it begins a new five seconds, those before it are over.
    pub(super) fn observe(
        &mut self,
        at: Timestamp,
        unit: Unit,
        key: u64,
        exposure: Exposure,
        event: bool,
    ) -> Option<Closed> {
        if event {
            self.note_hurt(unit, key, exposure);
        }
        self.note_distinct(unit);
        let bucket = at.as_micros().div_euclid(BUCKET_US);
        // What ends late is counted as of now.
        let closed = if bucket > self.bucket {
            let end = (self.bucket.saturating_add(1)).saturating_mul(BUCKET_US);
            let open = std::mem::take(&mut self.open);
            self.bucket = bucket;
            self.close(&open, Timestamp::from_micros(end))
        } else {
            None
        };
        match unit {
            Unit::Single => self.open.singles.add(event),
            Unit::Sticky(hash) => {
                let has_room = self.open.units.len() < UNITS_OF_BUCKET;
                if has_room || self.open.units.contains_key(&hash) {
                    self.open.units.entry(hash).or_default().add(event);
                }
            }
        }
        closed
    }

    /// Notes one comparison of answers, which no pause of a server can gather in one moment. Whether it counts.
    pub(super) fn observe_pair(&mut self, unit: Unit, event: bool) -> bool {
        if event {
            self.note_hurt(unit, 0, Exposure::Shadow);
        }
        self.note_distinct(unit);
        self.met.add(event);
        let counts = !event || self.is_within_its_part(unit);
        if counts {
            self.judged.add(event);
        }
        counts
    }

    fn note_hurt(&mut self, unit: Unit, key: u64, exposure: Exposure) {
        let is_new = match unit {
            Unit::Single => {
                self.hurt_singles += 1;
                true
            }
            Unit::Sticky(hash) if self.hurt.len() < UNITS_HURT => match self.hurt.entry(hash) {
                Entry::Vacant(entry) => {
                    entry.insert(0);
                    true
                }
                Entry::Occupied(_) => false,
            },
            Unit::Sticky(_) => false,
        };
        match exposure {
            Exposure::Randomised(_) if is_new => {
                self.hurt_by_lot += 1;
                if self.keys.len() < KEYS_HURT || self.keys.contains_key(&key) {
                    *self.keys.entry(key).or_insert(0) += 1;
                }
            }
            Exposure::Randomised(_) => {}
            Exposure::Cohort | Exposure::Shadow => self.undrawn = true,
        }
    }

    fn note_distinct(&mut self, unit: Unit) {
        match unit {
            Unit::Sticky(hash) if self.distinct.len() < UNITS_TOLD_APART => {
                self.distinct.insert(hash);
            }
            Unit::Sticky(_) => {}
            Unit::Single => self.singles += 1,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "requests of five seconds")]
    fn close(&mut self, open: &Open, at: Timestamp) -> Option<Closed> {
        let mut sum = open.singles.events as f64;
        let mut units = open.singles;
        let mut met = open.singles;
        for (hash, count) in &open.units {
            let event = count.events > 0;
            met.add(event);
            if event && !self.is_within_its_part(Unit::Sticky(*hash)) {
                continue;
            }
            units.add(event);
            sum += count.ratio();
        }
        self.met.add_all(met);
        self.judged.add_all(units);
        (units.of > 0).then(|| Closed {
            at,
            share: sum / units.of as f64,
            units,
        })
    }

    /// Counts an event, unless its unit already has more than its part of them.
    fn is_within_its_part(&mut self, unit: Unit) -> bool {
        let Unit::Sticky(hash) = unit else {
            return true;
        };
        let others = self.judged.events;
        let Some(own) = self.hurt.get_mut(&hash) else {
            return false;
        };
        let within = *own * OTHERS <= others.saturating_sub(*own) || self.min_units == 1;
        *own += u64::from(within);
        within
    }

    /// What was counted, the seconds under way included: before any unit's part was cut, after, and the mean share of
    /// the seconds under way.
    pub(super) fn so_far(&self) -> (Count, Count, Option<Closed>) {
        let mut then = Self {
            hurt: self.hurt.clone(),
            ..Self::new(1)
        };
        then.min_units = self.min_units;
        then.judged = self.judged;
        then.met = self.met;
        let closed = then.close(&self.open, Timestamp::from_micros(i64::MAX));
        (then.met, then.judged, closed)
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

    /// Whether what was met may be the doing of the key with the most hurt units: the others have none, or, for
    /// how many units they have, less than a quarter of what would be their part.
    pub(super) fn may_be_one_keys_doing(&self, keys: &Keys) -> bool {
        if self.undrawn || !keys.are_several() {
            return false;
        }
        let most = self.keys.iter().max_by_key(|(key, hurt)| (**hurt, **key));
        let Some((key, hurt)) = most else {
            return false;
        };
        let others = self.hurt_by_lot - hurt;
        let (units, all) = keys.others_of(*key);
        others == 0 || others * QUARTER * all < units * self.hurt_by_lot
    }
}

#[cfg(test)]
mod tests;
