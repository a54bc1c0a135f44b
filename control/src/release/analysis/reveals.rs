//! What the analysis has already seen of each unit's place in the split.
//!
//! The randomised thing is the unit: its hash is a uniform draw `u`, and the candidate serves it while `u` is below
//! the candidate's share. A unit's first event is a fair coin with the share as its probability. Its second
//! is no coin at all, since the first has shown where the unit is; after the weight has risen from 1 to 10
//! percent, a unit seen on stable is on the candidate with probability `(10 − 1) / (100 − 1)`. So what is known of `u` is kept as an
//! interval, and each event is bet on with the conditional probability that follows from it. One noisy
//! client is thereby one coin, however many requests it sends, and the false-alarm rate holds without assuming anything about clients.

use std::collections::HashMap;

use super::outcome::{Share, Side, Unit};

/// Units remembered per objective. Only those with events are; later ones are not counted.
const CAPACITY: usize = 65_536;

#[derive(Debug, Clone, Default)]
pub(super) struct Reveals {
    /// From unit to the interval of parts in a million that its `u` is known to be in.
    known: HashMap<u64, (u32, u32)>,
    /// Events of units for which there was no room.
    pub(super) ignored: u64,
}

impl Reveals {
    /// The probability, given all that events have shown so far, that an event of `unit` would be on the candidate;
    /// `None` if that was known beforehand and the event shows nothing. `side` is where it was.
    pub(super) fn reveal(&mut self, unit: Unit, share: Share, side: Side) -> Option<f64> {
        let share = share.parts();
        let whole = (0, Share::ALL.parts());
        let Unit::Sticky(hash) = unit else {
            return probability(whole, share);
        };
        let before = match self.known.get(&hash) {
            Some(interval) => *interval,
            None if self.known.len() >= CAPACITY => {
                self.ignored += 1;
                return None;
            }
            None => whole,
        };
        let chance = probability(before, share)?;
        let after = match side {
            Side::Candidate => (before.0, share),
            Side::Stable => (share, before.1),
        };
        self.known.insert(hash, after);
        Some(chance)
    }
}

fn probability((low, high): (u32, u32), share: u32) -> Option<f64> {
    (low < share && share < high).then(|| f64::from(share - low) / f64::from(high - low))
}

#[cfg(test)]
mod tests;
