//! What one finished request says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::release::strategy::{Bar, Event};
use crate::time::Timestamp;

/// A share of the traffic in parts of a million. An integer, so that two shares that are meant to be the same are.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(1_000_000);

    /// From percent; outside of 0 to 100 the nearer end.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what fits"
        )]
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    #[must_use]
    pub(super) const fn parts_of_a_million(parts: u32) -> Self {
        Self(parts)
    }

    #[must_use]
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Parts of a million.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }
}

/// Which of the two revisions of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Stable,
    Candidate,
}

/// How the request came to its revision, which decides what it may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// By the hash of its unit, at the candidate's share when the target was picked.
    Randomised(Share),
    /// By a rule. Counts for absolute limits only.
    Cohort,
    /// As a copy. Counts for absolute limits only, and nobody waited for it.
    Shadow,
}

/// Whose request it was, as far as the split could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The hash of the sticky key: all requests with it go together.
    Sticky(u64),
    /// Nothing to recognise it by; picked by itself.
    Single,
}

/// How the request ended. Answers of a fallback are neither revision's, and no outcome at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Ok,
    /// 5xx, timeout, dead replica.
    Fault,
    /// An answer that is none: not what its endpoint answers, or a stream that breaks off.
    Broken,
    /// Refused by the model server, though the gateway had let it through.
    Rejected,
    /// The caller hung up before the first token.
    Abandoned,
    /// Over by the deadline that the caller had set.
    OwnDeadline,
    /// 4xx.
    ClientFault,
    /// The caller hung up afterwards.
    Cancelled,
}

/// What was measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub class: Class,
    /// A candidate's request that failed before its first token and was tried again on stable: whether stable answered.
    pub stable_answered: Option<bool>,
    /// To the first token; `None` if there was none.
    pub ttft: Option<Duration>,
    /// Mean time of a token after the first.
    pub token_time: Option<Duration>,
    pub total: Duration,
    pub output_tokens: Option<u32>,
    pub empty: bool,
    pub refusal: bool,
    pub grammar_violation: bool,
}

/// One finished request of a deployment under release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// When it finished.
    pub at: Timestamp,
    pub side: Side,
    pub exposure: Exposure,
    pub unit: Unit,
    /// Hash of the key that it was sent with, 0 without one.
    pub key: u64,
    pub facts: Facts,
}

/// Latencies that others are measured by, in the order of [`Bars::p95`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// To the first token; of an answer that is not streamed, to its end.
    First,
    Token,
    Total,
}

/// What is usual on stable, as known so far in this release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bars {
    /// The 95th percentiles of stable's latencies, by [`Latency`].
    pub p95: [Option<Duration>; 3],
}

/// Nothing shorter is slow by comparison.
const SHORT: Duration = Duration::from_millis(100);

impl Bars {
    fn over(&self, bar: Bar, latency: Latency) -> Option<Duration> {
        match bar {
            Bar::Time(time) => Some(time),
            Bar::Stable(times) => {
                let usual = self.p95[latency as usize]?;
                Some(usual.mul_f64(times).max(SHORT))
            }
        }
    }
}

impl Outcome {
    /// When it began.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.at.before(self.facts.total)
    }
}

impl Facts {
    /// A good answer that took `total`.
    #[must_use]
    pub const fn ok(total: Duration) -> Self {
        Self {
            class: Class::Ok,
            stable_answered: None,
            ttft: None,
            token_time: None,
            total,
            output_tokens: None,
            empty: false,
            refusal: false,
            grammar_violation: false,
        }
    }

    /// The latency, where there is one. An answer without tokens of its own begins with its end.
    #[must_use]
    pub fn latency(&self, latency: Latency) -> Option<Duration> {
        let answered = self.class == Class::Ok;
        match latency {
            Latency::First => self.ttft.or(answered.then_some(self.total)),
            Latency::Token => self.token_time,
            Latency::Total => Some(self.total),
        }
    }

    /// Whether `event` happened to this request; `None` where it says nothing about it.
    ///
    /// Somebody who hangs up, or an error, after the limit had passed has met a slow request; before it, nobody
    /// knows what would have come.
    #[must_use]
    pub fn met(&self, event: Event, bars: &Bars) -> Option<bool> {
        let answered = self.class == Class::Ok;
        if matches!(self.class, Class::ClientFault | Class::OwnDeadline) {
            return None;
        }
        let good = |happened| (answered || happened).then_some(happened);
        match event {
            Event::Error => match self.class {
                Class::Ok => Some(false),
                Class::Fault | Class::Broken => Some(true),
                Class::Rejected
                | Class::Abandoned
                | Class::OwnDeadline
                | Class::ClientFault
                | Class::Cancelled => None,
            },
            Event::Broken => good(self.class == Class::Broken),
            // What stable refuses as well is the request's own fault.
            Event::Rejected => {
                good(self.class == Class::Rejected && self.stable_answered != Some(false))
            }
            Event::Abandoned => self.abandoned(bars),
            Event::SlowTtft(bar) => self.slow_ttft(bar, bars),
            Event::SlowToken(bar) => {
                let limit = bars.over(bar, Latency::Token)?;
                self.token_time.map(|time| time > limit)
            }
            Event::SlowRequest(bar) => good(self.total > bars.over(bar, Latency::Total)?),
            Event::LongOutput(limit) => self
                .output_tokens
                .filter(|_| answered)
                .map(|tokens| tokens > limit),
            Event::ShortOutput(limit) => self
                .output_tokens
                .filter(|_| answered)
                .map(|tokens| tokens < limit),
            Event::Empty => answered.then_some(self.empty),
            Event::Refusal => answered.then_some(self.refusal),
            Event::GrammarViolation => answered.then_some(self.grammar_violation),
        }
    }

    /// Who has not waited as long as nearly everybody on stable had to has shown nothing.
    fn abandoned(&self, bars: &Bars) -> Option<bool> {
        match self.class {
            Class::Ok => Some(false),
            Class::Abandoned => {
                let usual = bars.p95[Latency::First as usize]?;
                (self.total > usual).then_some(true)
            }
            Class::Cancelled => self.ttft.map(|_| false),
            Class::Fault
            | Class::Broken
            | Class::Rejected
            | Class::OwnDeadline
            | Class::ClientFault => None,
        }
    }

    fn slow_ttft(&self, bar: Bar, bars: &Bars) -> Option<bool> {
        let limit = bars.over(bar, Latency::First)?;
        let first = match bar {
            Bar::Time(_) => self.ttft,
            Bar::Stable(_) => self.latency(Latency::First),
        };
        match first {
            Some(first) => Some(first > limit),
            None => (self.total > limit && self.class != Class::Ok).then_some(true),
        }
    }
}
