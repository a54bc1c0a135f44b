//! How long a task waits before its next attempt, and how waiting makes it more urgent. Pure: what is
//! random comes in as a seed.

use std::time::Duration;

/// Exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt; doubles with each further one.
    pub base: Duration,
    /// Never longer than this.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(2),
            max: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The wait after attempt number `attempt` (from 1): between half of `base · 2^(attempt − 1)` and the whole
    /// ("equal jitter"), so that tasks that failed together do not come back together, and none comes back at once.
    pub fn delay(&self, attempt: u32, seed: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(63);
        let whole = u64::try_from(self.base.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(1 << doublings)
            .min(u64::try_from(self.max.as_micros()).unwrap_or(u64::MAX));
        let half = whole / 2;
        Duration::from_micros(half + mixed(seed, attempt) % (whole - half + 1))
    }
}

/// `SplitMix64`'s finalizer: neighbouring seeds give unrelated numbers.
fn mixed(seed: u64, attempt: u32) -> u64 {
    let mut z = seed
        .wrapping_add(u64::from(attempt))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One level of priority is worth this much waiting.
///
/// The order of claims is by `run_at − priority · LEVEL`: between two waiting tasks it never changes, so an index
/// holds it, and a task of low priority is overtaken only by those that come within its handicap. None starves.
pub const LEVEL: Duration = Duration::from_secs(60);

/// [`LEVEL`] as the statements and the index `tasks__claim` write it.
pub(super) const RANK: &str = "run_at - priority * 60000000";

/// The place of a task in the order of claims; the smallest goes first.
pub fn rank(run_at_us: i64, priority: i64) -> i64 {
    run_at_us.saturating_sub(priority.saturating_mul(60_000_000))
}

/// Priorities beyond these would overflow the order, or wait for weeks.
pub const PRIORITIES: std::ops::RangeInclusive<i64> = -1000..=1000;

#[cfg(test)]
mod tests;
