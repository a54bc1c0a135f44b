//! Which of many copied requests are kept for people to read side by side.
//!
//! Every pair draws a number; of too many, those with the greatest numbers go, so that what is kept at any time is a
//! fair sample of all that came, by whatever process. Half of the places are for pairs that disagree, which are
//! what people look for: they are taken only by what there is too little of on the other side.

mod keeper;

use std::collections::BTreeSet;
use std::time::SystemTime;

use sluice_engine::request::FinishReason;
use sluice_gateway::release::{Class, ShadowAnswer, ShadowPair};

use super::agreement::{Agreement, beginning};
use crate::domain::record::{PairAnswer, ReleasePair};
use crate::id::WorkOrderId;
use crate::store::Json;
use crate::time::Timestamp;
pub use keeper::{PairKeeper, PairWriter};

/// Bytes of each text that are kept: of the request and of both answers.
pub const MAX_TEXT: usize = 16 << 10;

/// A sample of bounded size. `K` is what a pair is known by.
#[derive(Debug, Clone)]
pub struct Sample<K> {
    places: usize,
    agreeing: BTreeSet<(i64, K)>,
    disagreeing: BTreeSet<(i64, K)>,
}

/// What became of a pair that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered<K> {
    /// There was room.
    Kept,
    /// It took another's place.
    Instead(K),
    /// It drew too high.
    Refused,
}

impl<K: Copy + Ord> Sample<K> {
    /// For so many pairs at most; 0 keeps none.
    #[must_use]
    pub const fn new(places: usize) -> Self {
        Self {
            places,
            agreeing: BTreeSet::new(),
            disagreeing: BTreeSet::new(),
        }
    }

    /// Offers a pair.
    pub fn offer(&mut self, agrees: bool, draw: i64, pair: K) -> Offered<K> {
        let half = self.places.div_ceil(2);
        if agrees {
            self.agreeing.insert((draw, pair));
        } else {
            self.disagreeing.insert((draw, pair));
        }
        if self.len() <= self.places {
            return Offered::Kept;
        }
        // One of them has more than its share, as both together do.
        let crowded = if self.disagreeing.len() > half {
            &mut self.disagreeing
        } else {
            &mut self.agreeing
        };
        match crowded.pop_last() {
            Some((_, last)) if last != pair => Offered::Instead(last),
            _ => Offered::Refused,
        }
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agreeing.len() + self.disagreeing.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pair as it is kept: each text cut at [`MAX_TEXT`].
#[must_use]
pub fn record(
    release: WorkOrderId,
    pair: &ShadowPair,
    agreement: &Agreement,
    draw: i64,
) -> ReleasePair {
    // As much as may be kept, so that a large body is not copied whole.
    let request = &pair.request[..pair.request.len().min(MAX_TEXT + 4)];
    ReleasePair {
        work_order: release,
        at: timestamp(pair.ended),
        request_id: pair.request_id.to_string(),
        unit: format!("{:016x}", pair.unit),
        agrees: agreement.agrees,
        similarity: agreement.similarity,
        how: agreement.how.to_owned(),
        draw,
        request: text(beginning(&String::from_utf8_lossy(request), MAX_TEXT)),
        live: Json(answer(&pair.live, agreement.live_refuses)),
        candidate: Json(answer(&pair.candidate, agreement.candidate_refuses)),
    }
}

fn answer(answer: &ShadowAnswer, refuses: bool) -> PairAnswer {
    let kept = beginning(&answer.text, MAX_TEXT);
    let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    PairAnswer {
        revision: answer.revision.to_string(),
        status: answer.status,
        failed: answer.class != Class::Answered,
        text: text(kept),
        cut: !answer.whole || kept.len() < answer.text.len(),
        refuses,
        tokens: answer.output_tokens,
        finish: answer.finish.map(|finish| word(finish).to_owned()),
        ttft_us: answer.ttft.map(micros),
        total_us: micros(answer.total),
    }
}

/// PostgreSQL's text holds no NUL.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

const fn word(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
        FinishReason::Deadline => "deadline",
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
