//! Limits that several keys share: all of one person's, all of a department's.
//!
//! A [`Quota`] is counted in memory, with atomics; where the month's counts begin and when
//! the month ends is told by whoever keeps the books. One process counts what it
//! serves itself, so `n` processes let through up to `n` times a limit per minute; of a
//! month's limit they overshoot by what the others serve between two
//! [`Quota::at_least`], as each hears of the others by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Level, RateLimiter, RateLimits};

/// What a quota allows; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaLimits {
    /// Requests and tokens a minute.
    pub minute: RateLimits,
    /// Requests a calendar month (UTC).
    pub month_requests: Option<u64>,
    /// Tokens a calendar month (UTC).
    pub month_tokens: Option<u64>,
}

/// Counters that several keys share.
#[derive(Debug)]
pub struct Quota {
    name: Arc<str>,
    limits: QuotaLimits,
    minute: RateLimiter,
    requests: AtomicU64,
    tokens: AtomicU64,
    /// Unix seconds.
    month_ends: AtomicU64,
}

/// A limit is exceeded (429).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whose it is (`quota of department helpdesk`); `None` for the key's own.
    pub quota: Option<Arc<str>>,
    /// `requests` or `tokens`.
    pub what: &'static str,
    /// `minute` or `month`.
    pub period: &'static str,
    /// Units per period.
    pub limit: u64,
    /// When the same request would pass.
    pub retry_after: Duration,
}

impl Quota {
    /// A quota of which nothing is used. `name` stands in refusals.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, limits: QuotaLimits, start: Instant) -> Self {
        Self {
            name: name.into(),
            limits,
            minute: RateLimiter::new(limits.minute, start),
            requests: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            month_ends: AtomicU64::new(0),
        }
    }

    /// Other limits, as much used up: an edit is no amnesty.
    #[must_use]
    pub fn with_limits(&self, name: impl Into<Arc<str>>, limits: QuotaLimits) -> Self {
        let minute = if limits.minute == self.limits.minute {
            self.minute.carry_over()
        } else {
            RateLimiter::new(limits.minute, Instant::now())
        };
        let copy = |counter: &AtomicU64| AtomicU64::new(counter.load(Relaxed));
        Self {
            name: name.into(),
            limits,
            minute,
            requests: copy(&self.requests),
            tokens: copy(&self.tokens),
            month_ends: copy(&self.month_ends),
        }
    }

    /// As it stands in refusals.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it allows.
    #[must_use]
    pub fn limits(&self) -> QuotaLimits {
        self.limits
    }

    /// Requests and tokens of this month so far, reservations included.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.tokens.load(Relaxed))
    }

    /// A month that ends at `ends` (Unix seconds) has begun: counts begin at nothing.
    /// Told again of the same month, it does nothing.
    pub fn begin_month(&self, ends: u64) {
        if self.month_ends.swap(ends, Relaxed) != ends {
            self.requests.store(0, Relaxed);
            self.tokens.store(0, Relaxed);
        }
    }

    /// The books say that this much of the month is used, by all processes together.
    pub fn at_least(&self, requests: u64, tokens: u64) {
        self.requests.fetch_max(requests, Relaxed);
        self.tokens.fetch_max(tokens, Relaxed);
    }

    fn take(&self, now: Instant, tokens: u64) -> Result<(), Refusal> {
        let month = [
            ("requests", self.limits.month_requests, &self.requests, 1),
            ("tokens", self.limits.month_tokens, &self.tokens, tokens),
        ];
        for (index, (what, limit, used, units)) in month.iter().enumerate() {
            let before = used.fetch_add(*units, Relaxed);
            if let Some(limit) = limit.filter(|limit| before >= *limit) {
                for (_, _, used, units) in &month[..=index] {
                    used.fetch_sub(*units, Relaxed);
                }
                return Err(Refusal {
                    quota: Some(Arc::clone(&self.name)),
                    what,
                    period: "month",
                    limit,
                    retry_after: self.month_left(),
                });
            }
        }
        self.minute.take(now, tokens).map_err(|exceeded| {
            for (_, _, used, units) in month {
                used.fetch_sub(units, Relaxed);
            }
            Refusal {
                quota: Some(Arc::clone(&self.name)),
                what: exceeded.what,
                period: "minute",
                limit: exceeded.limit.into(),
                retry_after: exceeded.retry_after,
            }
        })
    }

    fn give_back(&self, now: Instant, tokens: u64) {
        self.minute.give_back(now, tokens);
        lower(&self.requests, 1);
        lower(&self.tokens, tokens);
    }

    fn settle(&self, now: Instant, reserved: u64, used: u64) {
        self.minute.settle(now, reserved, used);
        if used >= reserved {
            self.tokens.fetch_add(used - reserved, Relaxed);
        } else {
            lower(&self.tokens, reserved - used);
        }
    }

    fn month_left(&self) -> Duration {
        let ends = Duration::from_secs(self.month_ends.load(Relaxed));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        ends.saturating_sub(now)
    }

    fn levels(&self, now: Instant) -> [[Option<Level>; 2]; 2] {
        let month = |limit: Option<u64>, used: &AtomicU64| {
            limit.map(|limit| Level {
                limit,
                remaining: limit.saturating_sub(used.load(Relaxed)),
                reset: self.month_left(),
            })
        };
        [
            self.minute.levels(now),
            [
                month(self.limits.month_requests, &self.requests),
                month(self.limits.month_tokens, &self.tokens),
            ],
        ]
    }
}

/// Never below nothing: a month may have begun since the units were taken.
fn lower(counter: &AtomicU64, units: u64) {
    _ = counter.fetch_update(Relaxed, Relaxed, |value| Some(value.saturating_sub(units)));
}

/// Everything that one request is counted against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purse<'a> {
    /// The key's own limits.
    pub(crate) key: &'a RateLimiter,
    /// What it shares.
    pub(crate) quotas: &'a [Arc<Quota>],
}

impl Purse<'_> {
    pub(crate) fn is_unlimited(self) -> bool {
        self.key.is_unlimited() && self.quotas.is_empty()
    }

    /// Takes one request and `tokens` by estimate from each, or nothing from any.
    pub(crate) fn take(self, now: Instant, tokens: u64) -> Result<(), Refusal> {
        self.key.take(now, tokens).map_err(|exceeded| Refusal {
            quota: None,
            what: exceeded.what,
            period: "minute",
            limit: exceeded.limit.into(),
            retry_after: exceeded.retry_after,
        })?;
        for (index, quota) in self.quotas.iter().enumerate() {
            if let Err(refusal) = quota.take(now, tokens) {
                self.key.give_back(now, tokens);
                for taken in &self.quotas[..index] {
                    taken.give_back(now, tokens);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    pub(crate) fn settle(self, now: Instant, reserved: u64, used: u64) {
        self.key.settle(now, reserved, used);
        for quota in self.quotas {
            quota.settle(now, reserved, used);
        }
    }

    /// Of requests and of tokens, the limit of which least is left.
    pub(crate) fn levels(self, now: Instant) -> [Option<Level>; 2] {
        let mut nearest = self.key.levels(now);
        for levels in self.quotas.iter().flat_map(|quota| quota.levels(now)) {
            for (nearest, level) in nearest.iter_mut().zip(levels) {
                let closer = |level: &Level| {
                    nearest.is_none_or(|nearest| level.remaining < nearest.remaining)
                };
                if let Some(level) = level.filter(closer) {
                    *nearest = Some(level);
                }
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests;
