//! The one client that fails or crawls by its own doing, if there is one.
//!
//! A unit's first event on the candidate is one coin like any other, and over all places where a noisy client may land the
//! false-alarm rate is what it should be. But where it has landed on the candidate, at a weight of one percent, that coin alone
//! multiplies the evidence by ten. So what the coin of the unit with the most events has won is not counted, as soon
//! as it has more than one. Counting less can only make an alarm later.

use std::collections::HashMap;

/// Units with events on the candidate that are told apart; of later ones everything counts.
const CAPACITY: usize = 4_096;

#[derive(Debug, Clone, Default)]
pub(super) struct Noisiest {
    /// Events on the candidate, and the logarithm of what its coin has won.
    units: HashMap<u64, (u64, f64)>,
    worst: Option<u64>,
}

impl Noisiest {
    /// An event of a sticky unit on the candidate.
    pub(super) fn note(&mut self, unit: u64) {
        if self.units.len() >= CAPACITY && !self.units.contains_key(&unit) {
            return;
        }
        let own = self.units.entry(unit).or_default();
        own.0 += 1;
        let events = own.0;
        let most = self
            .worst
            .and_then(|worst| self.units.get(&worst))
            .map_or(1, |it| it.0);
        if events > most {
            self.worst = Some(unit);
        }
    }

    /// Its coin has won that much.
    pub(super) fn won(&mut self, unit: u64, ln: f64) {
        if let Some(own) = self.units.get_mut(&unit) {
            own.1 += ln;
        }
    }

    /// The logarithm of what is not counted.
    pub(super) fn discount(&self) -> f64 {
        self.worst
            .and_then(|worst| self.units.get(&worst))
            .map_or(0.0, |it| it.1.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_with_the_most_events_is_left_out() {
        let mut noisiest = Noisiest::default();
        for (unit, ln) in [(1, 2.0), (2, 3.0)] {
            noisiest.note(unit);
            noisiest.won(unit, ln);
        }
        assert_eq!(noisiest.discount(), 0.0, "one event each is no pattern");
        noisiest.note(1);
        assert_eq!(noisiest.discount(), 2.0);
        noisiest.note(2);
        assert_eq!(noisiest.discount(), 2.0);
        noisiest.note(2);
        assert_eq!(noisiest.discount(), 3.0);
    }
}
