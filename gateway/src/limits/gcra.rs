//! The generic cell rate algorithm (ITU-T I.371): a token bucket in one number.
//!
//! A bucket remembers only its *theoretical arrival time*: the instant at which
//! it would be full again. Costs push it into the future; a request conforms as
//! long as that stays within the bucket's depth from now. Pure: times are
//! nanoseconds since any fixed start.

use std::time::Duration;

/// Rate and depth of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Units that the bucket holds, and that come back each minute.
    pub per_minute: u32,
}

/// What a bucket says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It conforms; store the new arrival time.
    Conforms {
        /// New state of the bucket.
        arrival: u64,
    },
    /// It does not, and would after this long.
    Exceeds {
        /// Time until the same request conforms.
        retry_after: Duration,
    },
}

const MINUTE: u64 = 60_000_000_000;

impl Quota {
    /// Nanoseconds in which `units` come back.
    fn refill(self, units: u64) -> u64 {
        // Both factors fit in 64 bits, so the product fits in 128.
        let nanos = u128::from(units) * u128::from(MINUTE) / u128::from(self.per_minute.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Judges a request of `units` at `now`. One that is larger than the whole
    /// bucket is treated as one that empties it, so that it conforms sometime.
    #[must_use]
    pub fn judge(self, arrival: u64, now: u64, units: u64) -> Verdict {
        let cost = self.refill(units.min(u64::from(self.per_minute)));
        let after = arrival.max(now).saturating_add(cost);
        let latest = now.saturating_add(MINUTE);
        if after <= latest {
            Verdict::Conforms { arrival: after }
        } else {
            Verdict::Exceeds {
                retry_after: Duration::from_nanos(after - latest),
            }
        }
    }

    /// The bucket after `units` turned out to be `used`. Debt may exceed the
    /// depth by what was used beyond the estimate, no more than one minute of it.
    #[must_use]
    pub fn settle(self, arrival: u64, now: u64, reserved: u64, used: u64) -> u64 {
        if used >= reserved {
            arrival
                .max(now)
                .saturating_add(self.refill(used - reserved))
                .min(now.saturating_add(2 * MINUTE))
        } else {
            let capped = reserved.min(u64::from(self.per_minute));
            arrival.saturating_sub(self.refill(capped.saturating_sub(used)))
        }
    }

    /// Units left at `now`.
    #[must_use]
    pub fn remaining(self, arrival: u64, now: u64) -> u64 {
        let free = MINUTE.saturating_sub(arrival.saturating_sub(now));
        u64::try_from(u128::from(free) * u128::from(self.per_minute) / u128::from(MINUTE))
            .unwrap_or(u64::MAX)
    }

    /// Time until the bucket is full again.
    #[must_use]
    pub fn reset(arrival: u64, now: u64) -> Duration {
        Duration::from_nanos(arrival.saturating_sub(now))
    }
}
