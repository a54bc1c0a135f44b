//! Which failures are one event, because the same pause of a server may have made them.
//!
//! A server that stops for a moment fails all units that reach it meanwhile, whoever they are: as coins of independent
//! units a second of that refutes anything. So failures of one side that began within [`Pauses::longest`] of each other, with no
//! request between their beginnings that went well, are one event: the first of them counts, the others wait. What began in
//! between may still be under way; when it turns out to have gone well, those that waited count after all. With
//! `strict`, a success in between proves nothing, and one event counts in each [`Pauses::longest`].

use crate::release::strategy::Pauses;

/// Beginnings of good requests kept to tell two failures apart.
const GOODS: usize = 32;
/// Failures that wait; of more in one burst the newest is kept.
const WAITING: usize = 32;

/// The failures of one side. `T` is what becomes of one that counts.
#[derive(Debug, Clone)]
pub(super) struct Bursts<T> {
    longest: i64,
    strict: bool,
    /// When the failure that was counted last began.
    first: Option<i64>,
    /// Beginnings of good requests after that, in order.
    goods: Vec<i64>,
    /// The latest beginning of a good request at all.
    latest: i64,
    waiting: Vec<(i64, T)>,
}

impl<T: Copy> Bursts<T> {
    pub(super) fn new(pauses: &Pauses) -> Self {
        Self {
            longest: i64::try_from(pauses.longest.as_micros()).unwrap_or(i64::MAX),
            strict: pauses.strict,
            first: None,
            goods: Vec::new(),
            latest: i64::MIN,
            waiting: Vec::new(),
        }
    }

    /// A request that began at `start` went well.
    pub(super) fn good(&mut self, start: i64) {
        self.latest = self.latest.max(start);
        if self.strict || self.first.is_none_or(|first| start <= first) {
            return;
        }
        if self.goods.len() < GOODS {
            let place = self.goods.partition_point(|it| *it < start);
            self.goods.insert(place, start);
        } else if let Some(last) = self.goods.last_mut() {
            *last = (*last).max(start);
        }
    }

    /// One that began then failed. [`Self::next`] says whether it counts.
    pub(super) fn failed(&mut self, start: i64, what: T) {
        if self.first.is_some_and(|first| start <= first) {
            return;
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop();
        }
        let place = self.waiting.partition_point(|it| it.0 <= start);
        self.waiting.insert(place, (start, what));
    }

    /// A failure that is known to be an event of its own, once.
    pub(super) fn next(&mut self) -> Option<T> {
        let place = self.waiting.iter().position(|it| self.is_apart(it.0))?;
        let (start, what) = self.waiting[place];
        self.waiting.drain(..=place);
        self.first = Some(start);
        self.goods.retain(|it| *it > start);
        if self.goods.is_empty() && self.latest > start && !self.strict {
            self.goods.push(self.latest);
        }
        Some(what)
    }

    fn is_apart(&self, start: i64) -> bool {
        let Some(first) = self.first else {
            return true;
        };
        start.saturating_sub(first) > self.longest
            || self.goods.first().is_some_and(|good| *good < start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counted(bursts: &mut Bursts<u32>) -> Vec<u32> {
        std::iter::from_fn(|| bursts.next()).collect()
    }

    fn pauses(strict: bool) -> Pauses {
        Pauses {
            longest: Duration::from_micros(100),
            strict,
            ..Pauses::default()
        }
    }

    #[test]
    fn a_pause_is_one_event_however_many_it_hits() {
        let mut bursts = Bursts::new(&pauses(false));
        bursts.good(5);
        for start in 10..60_u32 {
            bursts.failed(start.into(), start);
        }
        // What began before it and ends later says nothing of it.
        bursts.good(9);
        assert_eq!(counted(&mut bursts), [10]);
        bursts.good(70);
        assert_eq!(counted(&mut bursts), [] as [u32; 0]);
        bursts.failed(80, 80);
        assert_eq!(counted(&mut bursts), [80]);
    }

    #[test]
    fn failures_with_a_success_between_are_two_even_if_that_is_known_later() {
        let mut bursts = Bursts::new(&pauses(false));
        bursts.failed(10, 1);
        bursts.failed(30, 2);
        assert_eq!(counted(&mut bursts), [1]);
        bursts.good(40);
        assert_eq!(counted(&mut bursts), [] as [u32; 0]);
        bursts.good(20);
        assert_eq!(counted(&mut bursts), [2]);
    }

    #[test]
    fn what_lasts_longer_than_a_pause_is_more_than_one() {
        for strict in [false, true] {
            let mut bursts = Bursts::new(&pauses(strict));
            let mut all = Vec::new();
            for start in 0..350_u32 {
                bursts.failed(start.into(), start);
                all.extend(counted(&mut bursts));
            }
            assert_eq!(all, [0, 101, 202, 303]);
        }
    }

    #[test]
    fn strictly_a_success_between_proves_nothing() {
        let mut bursts = Bursts::new(&pauses(true));
        let mut all = Vec::new();
        for start in (0..300_u32).step_by(10) {
            bursts.failed(start.into(), start);
            bursts.good(i64::from(start) + 5);
            all.extend(counted(&mut bursts));
        }
        assert_eq!(all, [0, 110, 220]);
    }
}
