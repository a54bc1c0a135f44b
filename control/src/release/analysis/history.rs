//! A unit's own past on stable, held against its present on the candidate.
//!
//! A comparison of randomised units needs several. Where a deployment has few — one application with one key — a
//! rise of the weight moves all of it at once, and only its own past says whether it was always like that. The null hypothesis
//! here is generous: the unit may have become three times as bad as it was, or as stable is right now, and
//! one event in five is no news at all. A client that was noisy on stable is thereby no evidence, and
//! neither is one that was never seen there.

use std::collections::HashMap;
use std::time::Duration;

use super::outcome::Unit;
use super::wealth::Wealth;
use super::window::{Count, Window};
use crate::release::strategy::MAX_OBJECTIVES;
use crate::time::Timestamp;

/// Units whose past is kept; later ones have none.
const CAPACITY: usize = 16_384;
/// Requests on stable without which a unit has no past.
const PAST: u16 = 20;
/// How many times as bad a unit may become without a bet being won.
const WORSE: f64 = 3.0;
/// The ratio of events that is never news.
const FLOOR: f64 = 0.2;
/// Above this the null hypothesis forgives everything.
const CEILING: f64 = 0.9;
/// One bet a second: a burst of failures of a moment is one coin.
const PACE: Duration = Duration::from_secs(1);

/// Events and requests on stable, per unit and objective.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    past: HashMap<u64, [(u16, u16); MAX_OBJECTIVES]>,
}

impl History {
    pub(super) fn record(&mut self, unit: Unit, objective: usize, event: bool) {
        let Unit::Sticky(hash) = unit else { return };
        if self.past.len() >= CAPACITY && !self.past.contains_key(&hash) {
            return;
        }
        let (events, of) = &mut self.past.entry(hash).or_default()[objective];
        if *of < u16::MAX {
            *events += u16::from(event);
            *of += 1;
        }
    }

    /// The share of a unit's requests on stable that met the objective's event, shrunk away from 0; `None` without enough of them.
    fn ratio(&self, unit: Unit, objective: usize) -> Option<f64> {
        let Unit::Sticky(hash) = unit else {
            return None;
        };
        let (events, of) = self.past.get(&hash)?[objective];
        (of >= PAST).then(|| (f64::from(events) + 1.0) / (f64::from(of) + 2.0))
    }
}

/// The bets on units that were moved, for one objective.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) wealth: Wealth,
    pub(super) bets: Count,
    floor: f64,
    /// What stable does at the moment, so that an incident that hits both is nobody's fault.
    stable: Window,
    next: Timestamp,
}

impl Moved {
    /// `limit` is the ratio that is allowed anyway.
    pub(super) fn new(limit: f64) -> Self {
        Self {
            wealth: Wealth::new(),
            bets: Count::default(),
            floor: FLOOR.max(limit),
            stable: Window::new(Duration::from_secs(1), 10),
            next: Timestamp::from_micros(i64::MIN),
        }
    }

    /// What stable does.
    pub(super) fn stable(&mut self, at: Timestamp, event: bool) {
        self.stable.add(at, event);
    }

    /// The chance that the null hypothesis gives a request of `unit` on the candidate to meet the event; `None` where it
    /// is not bet on.
    pub(super) fn chance(
        &mut self,
        at: Timestamp,
        unit: Unit,
        objective: usize,
        history: &History,
    ) -> Option<f64> {
        if at < self.next {
            return None;
        }
        let own = history.ratio(unit, objective)?;
        let now = self.stable.count(at);
        #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds")]
        let others = match now.of {
            0 => 0.0,
            of => (now.events as f64 + 1.0) / (of as f64 + 2.0),
        };
        let null = self.floor.max(WORSE * own).max(WORSE * others);
        (null < CEILING).then_some(null)
    }

    /// Bets on one request, given its [`Self::chance`].
    pub(super) fn observe(&mut self, at: Timestamp, event: bool, null: f64) {
        if at < self.next {
            return;
        }
        self.next = at.after(PACE);
        self.bets.add(event);
        self.wealth.observe(event, null);
    }
}
