//! An absolute limit: at most this share of the candidate's requests.
//!
//! A ratio is broken by a ratio, not by a burst. So what is bet on is not the request but five seconds: the mean share
//! of events over the units in them, which lies between 0 and 1 and has a mean of at most the limit, however the failures
//! of one moment hang together. The capital of [`Wealth`] finds any lasting excess with a known false-alarm rate. The two
//! burn windows are what an operator can check by hand: much too much within a minute, too much within half an hour.
//! Comparisons of answers are no matter of time, and each of those is a coin of its own.

use std::time::Duration;

use super::units::{BUCKET_US, Closed};
use super::wealth::Wealth;
use super::window::{Count, Window};
use crate::time::Timestamp;

/// A burn rule: broken by `least` events in `spread` or more different five seconds of the window that are also `times` the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burn {
    pub name: &'static str,
    pub window: Duration,
    pub times: f64,
    pub least: u64,
    /// The longest pause lies in two of them at most.
    pub spread: usize,
}

/// If the ratio is at the limit, ten events at ten times the budget have a chance of less than 10⁻⁶ in a window.
pub(super) const FAST: Burn = Burn {
    name: "fast burn",
    window: Duration::from_secs(60),
    times: 10.0,
    least: 10,
    spread: 3,
};
/// Twice the budget over half an hour and thirty events: less than 10⁻³ at the limit, nothing to speak of at half of it.
pub(super) const SLOW: Burn = Burn {
    name: "slow burn",
    window: Duration::from_secs(1_800),
    times: 2.0,
    least: 30,
    spread: 12,
};
/// A limit of a half, ten times over, is more than everything; this much is as bad as it gets.
const WORST: f64 = 0.9;

#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) max_ratio: f64,
    pub(super) wealth: Wealth,
    windows: [(Burn, Window); 2],
}

impl Limit {
    pub(super) fn new(max_ratio: f64) -> Self {
        let bucket = Duration::from_micros(BUCKET_US.unsigned_abs());
        let window = |burn: Burn| {
            let buckets = burn.window.as_secs() / bucket.as_secs();
            let ring = Window::new(bucket, usize::try_from(buckets).unwrap_or(1));
            (burn, ring)
        };
        Self {
            max_ratio,
            wealth: Wealth::new(),
            windows: [window(FAST), window(SLOW)],
        }
    }

    /// Five seconds are over.
    pub(super) fn observe(&mut self, closed: Closed) {
        self.wealth.observe_share(closed.share, self.max_ratio);
        // Half a unit's requests are half an event: burn rules count in whole ones.
        let Count { events, of } = closed.units;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "units of five seconds"
        )]
        let events = events.min((closed.share * of as f64).round() as u64);
        for (_, window) in &mut self.windows {
            window.add_all(
                closed.at.before(Duration::from_micros(1)),
                Count { events, of },
            );
        }
    }

    /// One comparison of answers.
    pub(super) fn observe_pair(&mut self, at: Timestamp, event: bool) {
        self.wealth.observe(event, self.max_ratio);
        for (_, window) in &mut self.windows {
            window.add(at, event);
        }
    }

    /// The e-value's logarithm if the five seconds under way were over.
    pub(super) fn ln_with(&self, open: Option<Closed>) -> f64 {
        let Some(open) = open else {
            return self.wealth.ln();
        };
        let mut wealth = self.wealth.clone();
        wealth.observe_share(open.share, self.max_ratio);
        wealth.ln()
    }

    /// The burn rule that is broken, and the counts that break it.
    pub(super) fn burning(&mut self, now: Timestamp) -> Option<(Burn, Count)> {
        let max_ratio = self.max_ratio;
        self.windows.iter_mut().find_map(|(burn, window)| {
            let count = window.count(now);
            let ratio = (burn.times * max_ratio).min(WORST.max(max_ratio));
            let is_broken = count.events >= burn.least
                && count.ratio() > ratio
                && window.buckets_with_events() >= burn.spread;
            is_broken.then_some((*burn, count))
        })
    }
}

#[cfg(test)]
mod tests;
