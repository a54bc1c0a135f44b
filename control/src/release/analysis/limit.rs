//! An absolute limit: at most this share of the candidate's requests.
//!
//! Three looks at the same counts. The capital of [`Wealth`] against "the ratio is within the limit" finds any
//! lasting excess as early as the evidence allows and with a known false-alarm rate. The two burn windows are what
//! an operator can check by hand: much too much within a minute, too much within half an hour.

use std::time::Duration;

use super::units::BUCKET_US;
use super::wealth::Wealth;
use super::window::{Count, Window};
use crate::time::Timestamp;

/// A burn rule: broken by `least` events in the window that are also `times` the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burn {
    pub name: &'static str,
    pub window: Duration,
    pub times: f64,
    pub least: u64,
}

/// If the ratio is at the limit, ten events at ten times the budget have a chance of less than 10⁻⁶ in a window.
pub(super) const FAST: Burn = Burn {
    name: "fast burn",
    window: Duration::from_secs(60),
    times: 10.0,
    least: 10,
};
/// Twice the budget over half an hour and thirty events: less than 10⁻³ at the limit, nothing to speak of at half of it.
pub(super) const SLOW: Burn = Burn {
    name: "slow burn",
    window: Duration::from_secs(1_800),
    times: 2.0,
    least: 30,
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

    pub(super) fn observe(&mut self, at: Timestamp, event: bool) {
        self.wealth.observe(event, self.max_ratio);
        for (_, window) in &mut self.windows {
            window.add(at, event);
        }
    }

    /// The burn rule that is broken, and the counts that break it.
    pub(super) fn burning(&mut self, now: Timestamp) -> Option<(Burn, Count)> {
        let max_ratio = self.max_ratio;
        self.windows.iter_mut().find_map(|(burn, window)| {
            let count = window.count(now);
            let ratio = (burn.times * max_ratio).min(WORST.max(max_ratio));
            (count.events >= burn.least && count.ratio() > ratio).then_some((*burn, count))
        })
    }
}

#[cfg(test)]
mod tests;
