//! When everything is broken. A pause ends; what lasts longer than the longest that is allowed for, and what has never
//! worked, needs no statistics.
//!
//! Failures are soon over and good answers may take a minute, so that what has ended says little of what has not. The control
//! is stable: so many of its requests that began after the first failure must have gone well by now that the
//! candidate, were it alike, would have had [`EXPECTED`] of its own.

use std::collections::HashSet;

use super::outcome::{Share, Unit};
use crate::release::strategy::Pauses;

/// Everything failing for longer than this is no pause, in microseconds.
const ENDLESS: i64 = 3_000_000;
/// Units that meet a candidate that has not answered a single one. A pause that falls on a release's first moment looks like
/// that, too: about one release in fifty at one pause a minute. So `strict` leaves it out.
const FIRST: u64 = 5;
/// Good answers that are missing. The chance that five are expected and none is there is less than one in a hundred.
const EXPECTED: f64 = 5.0;

/// Where no lot was drawn, as many of either are taken for a control.
const HALF: Share = Share::parts_of_a_million(500_000);

/// One event on the candidate, as long as nothing else happens there.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    strict: bool,
    longest: i64,
    min_units: u64,
    /// When the latest request that went well began.
    worked: Option<i64>,
    since: Option<i64>,
    until: i64,
    units: HashSet<u64>,
    singles: u64,
    /// Stable's requests that began since and went well, and those of them that began when any pause was over.
    control: [u64; 2],
    stable_seen: bool,
}

/// Why it is one, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// For longer than any pause.
    Endless,
    /// From the first request on.
    FromTheStart,
}

impl Outage {
    pub(super) fn new(pauses: &Pauses, min_units: u32) -> Self {
        Self {
            strict: pauses.strict,
            longest: i64::try_from(pauses.longest.as_micros()).unwrap_or(i64::MAX),
            min_units: u64::from(min_units),
            worked: None,
            since: None,
            until: i64::MIN,
            units: HashSet::new(),
            singles: 0,
            control: [0; 2],
            stable_seen: false,
        }
    }

    /// The candidate failed a request that began at `start`, and surely was still broken at `until`.
    pub(super) fn failed(&mut self, start: i64, until: i64, unit: Unit) {
        if self.worked.is_some_and(|worked| worked >= start) {
            return;
        }
        if self.since.is_none() {
            self.since = Some(start);
            self.until = until;
            self.units.clear();
            self.singles = 0;
            self.control = [0; 2];
        }
        self.until = self.until.max(until);
        match unit {
            // More of them need not be told apart.
            Unit::Sticky(hash) if self.hurt() < self.min_units.max(FIRST) => {
                self.units.insert(hash);
            }
            Unit::Sticky(_) => {}
            Unit::Single => self.singles += 1,
        }
    }

    pub(super) fn worked(&mut self, start: i64) {
        self.worked = self.worked.max(Some(start));
        if self.since.is_some_and(|since| start >= since) {
            self.since = None;
        }
    }

    pub(super) fn stable_worked(&mut self, start: i64) {
        self.stable_seen = true;
        if let Some(since) = self.since.filter(|since| start >= *since) {
            self.control[0] += 1;
            self.control[1] += u64::from(start > since.saturating_add(self.longest));
        }
    }

    /// Whether stable has answered anything.
    pub(super) const fn has_control(&self) -> bool {
        self.stable_seen
    }

    /// Whether all that is known of the candidate of late is failure.
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some() && self.hurt() >= self.min_units
    }

    /// `share` is the candidate's, `None` where its requests were not drawn by lot. `typical` is how long, in microseconds,
    /// a good answer takes.
    pub(super) fn broken(&self, share: Option<Share>, typical: i64) -> Option<Broken> {
        let lasted = self.until.saturating_sub(self.since?);
        let broken = if lasted > ENDLESS && self.hurt() >= self.min_units {
            Broken::Endless
        } else if self.worked.is_none() && !self.strict && self.hurt() >= self.min_units.max(FIRST)
        {
            Broken::FromTheStart
        } else {
            return None;
        };
        let known = match share {
            // Nobody is left on stable to compare with.
            Some(Share::ALL) => self.worked.is_none() || lasted > typical.saturating_add(ENDLESS),
            Some(share) => self.expected(share, broken) >= EXPECTED,
            None if self.stable_seen => self.expected(HALF, broken) >= EXPECTED,
            None => true,
        };
        known.then_some(broken)
    }

    /// Good answers that the candidate would have given by now, of requests that no pause explains.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² requests")]
    fn expected(&self, share: Share, broken: Broken) -> f64 {
        let control = match broken {
            Broken::Endless => self.control[1],
            Broken::FromTheStart => self.control[0],
        };
        let part = f64::from(share.parts());
        let rest = f64::from(Share::ALL.parts() - share.parts()).max(1.0);
        control as f64 * part / rest
    }

    fn hurt(&self) -> u64 {
        self.units.len() as u64 + self.singles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn outage(strict: bool) -> Outage {
        let pauses = Pauses {
            strict,
            ..Pauses::default()
        };
        let mut outage = Outage::new(&pauses, 3);
        outage.stable_worked(-1);
        outage
    }

    #[test]
    fn a_pause_ends_and_an_outage_does_not() {
        let half = Some(Share::percent(50.0));
        let mut outage = outage(false);
        outage.worked(-1);
        for unit in 0..40 {
            let start = i64::try_from(unit).unwrap_or(0) * SECOND / 10;
            outage.failed(start, start, Unit::Sticky(unit));
            outage.stable_worked(start);
            let broken = outage.broken(half, 0);
            assert_eq!(broken.is_some(), start > 3 * SECOND, "{start}");
        }
        // What began before it says nothing, what began within it ends it.
        outage.worked(-1);
        assert!(outage.broken(half, 0).is_some());
        outage.worked(SECOND);
        assert_eq!(outage.broken(half, 0), None);
    }

    #[test]
    fn what_has_never_worked_is_broken_at_five_units() {
        for (strict, expected) in [(false, Some(Broken::FromTheStart)), (true, None)] {
            let mut outage = outage(strict);
            for unit in 0..5 {
                assert_eq!(outage.broken(Some(Share::percent(50.0)), 0), None);
                outage.failed(10, 10, Unit::Sticky(unit));
                outage.stable_worked(20);
            }
            assert_eq!(outage.broken(Some(Share::percent(50.0)), 0), expected);
        }
    }

    #[test]
    fn without_good_answers_of_stable_nothing_is_known() {
        let mut outage = outage(false);
        outage.worked(0);
        for unit in 0..50 {
            outage.failed(10, 10 * SECOND, Unit::Sticky(unit));
            outage.stable_worked(5);
        }
        assert_eq!(outage.broken(Some(Share::percent(5.0)), 0), None);
        // Those that a pause might have met say nothing either.
        for _ in 0..1_000 {
            outage.stable_worked(11);
        }
        assert_eq!(outage.broken(Some(Share::percent(5.0)), 0), None);
        for _ in 0..60 {
            outage.stable_worked(3 * SECOND);
        }
        // At five percent, sixty on stable are three.
        assert_eq!(outage.broken(Some(Share::percent(5.0)), 0), None);
        for _ in 0..40 {
            outage.stable_worked(3 * SECOND);
        }
        assert_eq!(
            outage.broken(Some(Share::percent(5.0)), 0),
            Some(Broken::Endless)
        );
    }
}
