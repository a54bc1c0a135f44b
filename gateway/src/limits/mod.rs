//! How much one key may ask: requests and tokens a minute.
//!
//! Tokens are not known at the door, so a request reserves an estimate and the
//! difference is settled when its outcome is known. One atomic a bucket, no lock.

pub mod admission;
pub(crate) mod forecast;
pub mod gcra;
pub mod quota;
pub(crate) mod share;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gcra::{Quota, Verdict};

/// Limits of one key a minute; `None` or 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Requests a minute.
    pub requests: Option<u32>,
    /// Prompt plus completion tokens a minute.
    pub tokens: Option<u32>,
    /// Requests a minute to what is no inference: the control plane, lists of models.
    pub control: Option<u32>,
}

/// The buckets of one key.
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    control: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    quota: Quota,
    /// Nanoseconds after `start` at which it is full again.
    arrival: AtomicU64,
}

/// What the `x-ratelimit-*` headers say of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Units a minute, or a month.
    pub limit: u64,
    /// Units left.
    pub remaining: u64,
    /// Until it is full again.
    pub reset: Duration,
}

/// A limit is exceeded (429).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// `requests` or `tokens`.
    pub what: &'static str,
    /// Units a minute.
    pub limit: u32,
    /// When the same request would pass.
    pub retry_after: Duration,
}

impl RateLimiter {
    /// Full buckets.
    #[must_use]
    pub fn new(limits: RateLimits, start: Instant) -> Self {
        let bucket = |per_minute: Option<u32>| {
            per_minute
                .filter(|limit| *limit > 0)
                .map(|per_minute| Bucket {
                    quota: Quota { per_minute },
                    arrival: AtomicU64::new(0),
                })
        };
        Self {
            start,
            requests: bucket(limits.requests),
            tokens: bucket(limits.tokens),
            control: bucket(limits.control),
        }
    }

    /// Whether there is nothing of inference to count.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }

    /// Buckets of the same limits, as full as these are now.
    #[must_use]
    pub fn carry_over(&self) -> Self {
        let copy = |bucket: &Option<Bucket>| {
            bucket.as_ref().map(|bucket| Bucket {
                quota: bucket.quota,
                arrival: AtomicU64::new(bucket.arrival.load(Relaxed)),
            })
        };
        Self {
            start: self.start,
            requests: copy(&self.requests),
            tokens: copy(&self.tokens),
            control: copy(&self.control),
        }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        let of = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.quota.per_minute);
        RateLimits {
            requests: of(&self.requests),
            tokens: of(&self.tokens),
            control: of(&self.control),
        }
    }

    /// Takes one request that is no inference.
    ///
    /// # Errors
    /// There were too many.
    pub fn take_control(&self, now: Instant) -> Result<(), Exceeded> {
        let Some(bucket) = &self.control else {
            return Ok(());
        };
        bucket
            .take(self.nanos(now), 1)
            .map_err(|retry_after| Exceeded {
                what: "requests",
                limit: bucket.quota.per_minute,
                retry_after,
            })
    }

    /// Takes one request and `tokens` by estimate, or nothing.
    ///
    /// # Errors
    /// One of the limits is exceeded.
    pub fn take(&self, now: Instant, tokens: u64) -> Result<(), Exceeded> {
        let now = self.nanos(now);
        if let Some(bucket) = &self.requests {
            bucket.take(now, 1).map_err(|retry_after| Exceeded {
                what: "requests",
                limit: bucket.quota.per_minute,
                retry_after,
            })?;
        }
        let Some(bucket) = &self.tokens else {
            return Ok(());
        };
        bucket.take(now, tokens).map_err(|retry_after| {
            if let Some(requests) = &self.requests {
                requests.settle(now, 1, 0);
            }
            Exceeded {
                what: "tokens",
                limit: bucket.quota.per_minute,
                retry_after,
            }
        })
    }

    /// Undoes a [`RateLimiter::take`] whose request was refused elsewhere.
    pub(crate) fn give_back(&self, now: Instant, tokens: u64) {
        if let Some(bucket) = &self.requests {
            bucket.settle(self.nanos(now), 1, 0);
        }
        self.settle(now, tokens, 0);
    }

    /// Replaces an estimate by what was used.
    pub fn settle(&self, now: Instant, reserved: u64, used: u64) {
        if let Some(bucket) = &self.tokens {
            bucket.settle(self.nanos(now), reserved, used);
        }
    }

    /// State of the request and the token bucket.
    #[must_use]
    pub fn levels(&self, now: Instant) -> [Option<Level>; 2] {
        let now = self.nanos(now);
        [&self.requests, &self.tokens].map(|bucket| bucket.as_ref().map(|bucket| bucket.level(now)))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    fn take(&self, now: u64, units: u64) -> Result<(), Duration> {
        let mut arrival = self.arrival.load(Relaxed);
        loop {
            let next = match self.quota.judge(arrival, now, units) {
                Verdict::Conforms { arrival } => arrival,
                Verdict::Exceeds { retry_after } => return Err(retry_after),
            };
            match self
                .arrival
                .compare_exchange_weak(arrival, next, Relaxed, Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(actual) => arrival = actual,
            }
        }
    }

    fn settle(&self, now: u64, reserved: u64, used: u64) {
        _ = self.arrival.fetch_update(Relaxed, Relaxed, |arrival| {
            Some(self.quota.settle(arrival, now, reserved, used))
        });
    }

    fn level(&self, now: u64) -> Level {
        let arrival = self.arrival.load(Relaxed);
        Level {
            limit: self.quota.per_minute.into(),
            remaining: self.quota.remaining(arrival, now),
            reset: Quota::reset(arrival, now),
        }
    }
}

/// As OpenAI writes it in `x-ratelimit-reset-*`: `250ms`, `1s`, `6m0s`.
#[must_use]
pub fn format_reset(reset: Duration) -> String {
    let ms = reset.as_nanos().div_ceil(1_000_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}s", ms.div_ceil(1_000)),
        _ => {
            let seconds = ms.div_ceil(1_000);
            format!("{}m{}s", seconds / 60, seconds % 60)
        }
    }
}
