//! What one finished request says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::release::strategy::Event;
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
    /// 5xx, timeout, broken stream, dead replica.
    Fault,
    /// 4xx.
    ClientFault,
    /// The caller hung up.
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
    pub facts: Facts,
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

    /// Whether `event` happened to this request; `None` where it says nothing about it.
    ///
    /// Somebody who hangs up, or an error, after the limit had passed has met a slow request; before it, nobody
    /// knows what would have come.
    #[must_use]
    pub fn met(&self, event: Event) -> Option<bool> {
        let answered = self.class == Class::Ok;
        match event {
            _ if self.class == Class::ClientFault => None,
            Event::Error => match self.class {
                Class::Ok => Some(false),
                Class::Fault => Some(true),
                Class::ClientFault | Class::Cancelled => None,
            },
            Event::SlowTtft(limit) => match self.ttft {
                Some(ttft) => Some(ttft > limit),
                None => (self.total > limit && !answered).then_some(true),
            },
            Event::SlowToken(limit) => self.token_time.map(|time| time > limit),
            Event::SlowRequest(limit) => {
                let slow = self.total > limit;
                (answered || slow).then_some(slow)
            }
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
}
