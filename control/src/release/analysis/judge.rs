//! One objective on events: which outcomes count for it, and what they add up to.

mod verdict;

use std::collections::HashSet;

use super::bursts::Bursts;
use super::evidence::{Ratio, e_value};
use super::history::{History, Moved};
use super::keys::Keys;
use super::main::{Coins, Main};
use super::outage::{Broken, Outage};
use super::outcome::{Class, Exposure, Outcome, Share, Side, Unit};
use super::units::Units;
use super::window::Count;
use crate::release::strategy::{Event, Pauses, Rule};
use crate::time::Timestamp;

/// How the tests of an objective share its e-value. A weighted mean of e-processes is one.
const MAIN: f64 = 0.9;
const PAST: f64 = 0.04;
const SIDE: f64 = 0.03;
/// "Failed here, answered there" has at most this probability if the revisions are alike, however
/// likely the request was to fail: `q·(1 − q) ≤ 1/4`.
const DISCORDANT: f64 = 0.25;
/// Events on stable without which its past says nothing of what is usual.
const KNOWN: u64 = 20;
/// How many times as often as on stable something may happen once stable has no requests any more.
const WORSE: f64 = 3.0;
/// What is never news then: with a past, and without.
const FLOOR: f64 = 0.05;
const FLOOR_UNKNOWN: f64 = 0.2;
/// A bad moment of what both stand on makes many requests slow, and nobody is left on stable to tell.
const FLOOR_LATENCY: f64 = 0.5;
/// Units whose first event is held against stable's past; those of later ones are not.
const UNITS_OF_PAST: usize = 4_096;
/// Above this, everything is forgiven.
const CEILING: f64 = 0.9;

/// What all objectives of a release know.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    pub(super) history: History,
    pub(super) keys: Keys,
    /// How long a good answer takes on stable at most, in all but one case of twenty; microseconds.
    pub(super) typical: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Judge {
    event: Event,
    label: String,
    /// Natural logarithm of the e-value that is a breach.
    limit: f64,
    main: Main,
    /// The candidate alone, held against what stable was when it had requests.
    past: Coins,
    past_units: HashSet<u64>,
    moved: Moved,
    retried: Option<Coins>,
    /// By side.
    bursts: [Bursts<Mark>; 2],
    outage: Outage,
    units: Units,
    stable: Count,
    candidate: Count,
    step: Count,
    /// Several keys use the deployment, and it is one of them that is hurt.
    one_key_of_several: bool,
    breach: Option<(Timestamp, String)>,
}

/// An event that may count, with the chances that the null hypothesis gave it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Timestamp,
    side: Side,
    unit: Unit,
    /// That it is on the candidate.
    coin: Option<f64>,
    /// That the unit meets it, by its own past.
    moved: Option<f64>,
    /// That a request meets it, by stable's past.
    past: Option<f64>,
    discordant: bool,
}

impl Judge {
    /// `alpha` is this objective's part of the chance of a false alarm.
    pub(super) fn new(
        event: Event,
        rule: Rule,
        alpha: f64,
        (min_units, pauses): (u32, &Pauses),
        label: String,
    ) -> Self {
        let allowed = match rule {
            Rule::CompareStable => 0.0,
            Rule::MaxRatio(ratio) => ratio,
        };
        Self {
            event,
            label,
            limit: -alpha.ln(),
            main: Main::new(rule, event.may_be_a_pause().then_some(pauses)),
            past: Coins::new(),
            past_units: HashSet::new(),
            moved: Moved::new(allowed),
            retried: (event == Event::Error).then(Coins::new),
            bursts: [Bursts::new(pauses), Bursts::new(pauses)],
            outage: Outage::new(pauses, min_units),
            units: Units::new(min_units),
            stable: Count::default(),
            candidate: Count::default(),
            step: Count::default(),
            one_key_of_several: false,
            breach: None,
        }
    }

    pub(super) const fn event(&self) -> Event {
        self.event
    }

    pub(super) const fn is_breached(&self) -> bool {
        self.breach.is_some()
    }

    /// A change of weight: what follows may differ from what was.
    pub(super) fn begin_step(&mut self) {
        self.step = Count::default();
        self.moved.wealth.begin_step();
        self.past.wealth.begin_step();
        self.main.begin_step();
        if let Some(coins) = &mut self.retried {
            coins.wealth.begin_step();
        }
    }

    /// Takes in one outcome that says `event` of this objective.
    pub(super) fn observe(
        &mut self,
        outcome: &Outcome,
        event: bool,
        index: usize,
        shared: &mut Shared,
    ) {
        let Outcome { at, side, .. } = *outcome;
        match side {
            Side::Stable => self.stable.add(event),
            Side::Candidate => self.candidate.add(event),
        }
        self.note_outage(outcome, event);
        self.bet(outcome, event, index, shared);
        if side == Side::Candidate {
            let counts = match outcome.exposure {
                Exposure::Randomised(_) => true,
                Exposure::Cohort | Exposure::Shadow => matches!(self.main, Main::Limit(_)),
            };
            if counts {
                self.step.add(event);
                let (unit, key) = (outcome.unit, outcome.key);
                let closed = self.units.observe(at, unit, key, outcome.exposure, event);
                if let (Some(closed), Main::Limit(limit)) = (closed, &mut self.main) {
                    limit.observe(closed);
                }
            }
        }
        if side == Side::Candidate || event {
            self.one_key_of_several = self.units.may_be_one_keys_doing(&shared.keys);
            self.decide(outcome, shared.typical);
        }
    }

    /// One comparison of answers.
    pub(super) fn observe_pair(&mut self, at: Timestamp, unit: Unit, event: bool) {
        self.candidate.add(event);
        self.step.add(event);
        if let Main::Limit(limit) = &mut self.main
            && self.units.observe_pair(unit, event)
        {
            limit.observe_pair(at, event);
        }
        self.decide_by_evidence(at);
    }

    /// What ends the rule of three seconds, and what begins it.
    fn note_outage(&mut self, outcome: &Outcome, event: bool) {
        let start = outcome.started().as_micros();
        let judged = match outcome.exposure {
            Exposure::Randomised(_) => true,
            // Copies are asked when the server has time for them.
            Exposure::Cohort | Exposure::Shadow => matches!(self.main, Main::Limit(_)),
        };
        match (outcome.side, event) {
            (Side::Candidate, true) if judged => {
                // Who waited in vain has seen it broken for as long as that; an error is over at once.
                let until = match outcome.facts.class {
                    Class::Abandoned => outcome.at.as_micros(),
                    _ => start,
                };
                self.outage.failed(start, until, outcome.unit);
            }
            (Side::Candidate, false) if judged => self.outage.worked(start),
            (Side::Candidate, _) | (Side::Stable, true) => {}
            (Side::Stable, false) => self.outage.stable_worked(start),
        }
        if outcome.facts.stable_answered == Some(true) {
            self.outage.stable_worked(start);
        }
    }

    /// The coins that this outcome is: those without the event at once, those with it when they are known to be an event
    /// of their own.
    fn bet(&mut self, outcome: &Outcome, event: bool, index: usize, shared: &mut Shared) {
        let Outcome {
            at,
            side,
            unit,
            exposure,
            ..
        } = *outcome;
        let start = outcome.started().as_micros();
        let discordant =
            side == Side::Candidate && event && outcome.facts.stable_answered == Some(true);
        if let (Some(coins), Side::Candidate, false) = (&mut self.retried, side, discordant)
            && exposure != Exposure::Shadow
        {
            coins.observe(false, DISCORDANT);
        }
        let Exposure::Randomised(share) = exposure else {
            return;
        };
        self.main.pass(at, share);
        let moved = match side {
            Side::Candidate => self.moved.chance(at, unit, index, &shared.history),
            Side::Stable => {
                self.moved.stable(at, event);
                shared.history.record(unit, index, event);
                None
            }
        };
        let past = (side == Side::Candidate && share == Share::ALL)
            .then(|| self.usual())
            .filter(|_| matches!(self.main, Main::Compare(_)));
        if !event {
            self.bursts[side as usize].good(start);
            if let Some(null) = moved {
                self.moved.observe(at, false, null);
            }
            if let Some(null) = past {
                self.past.observe(false, null);
            }
        } else {
            let coin = self.main.reveal(share, side, unit);
            if coin.is_some() || moved.is_some() || past.is_some() || discordant {
                let mark = Mark {
                    at,
                    side,
                    unit,
                    coin,
                    moved,
                    past,
                    discordant,
                };
                if self.event.may_be_a_pause() {
                    self.bursts[side as usize].failed(start, mark);
                } else {
                    self.count(mark);
                }
            }
            self.main.note(side, unit);
        }
        while let Some(mark) = self.bursts[side as usize].next() {
            self.count(mark);
        }
    }

    /// Bets on an event that is known to count.
    fn count(&mut self, mark: Mark) {
        if let Some(chance) = mark.coin {
            self.main.observe(mark.side, mark.unit, chance);
        }
        if let Some(null) = mark.moved {
            self.moved.observe(mark.at, true, null);
        }
        if let Some(null) = mark.past
            && self.is_first_of_its_unit(mark.unit)
        {
            self.past.observe(true, null);
        }
        if let (true, Some(coins)) = (mark.discordant, &mut self.retried) {
            coins.observe(true, DISCORDANT);
        }
    }

    /// One client is one event, however many requests it sends.
    fn is_first_of_its_unit(&mut self, unit: Unit) -> bool {
        match unit {
            Unit::Single => true,
            Unit::Sticky(hash) => {
                self.past_units.len() < UNITS_OF_PAST && self.past_units.insert(hash)
            }
        }
    }

    /// What share of requests may meet the event when stable has none to compare with.
    fn usual(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² requests")]
        let ratio = (self.stable.events as f64 + 1.0) / (self.stable.of as f64 + 2.0);
        let null = match self.stable.of {
            KNOWN.. => FLOOR.max(WORSE * ratio),
            _ => FLOOR_UNKNOWN,
        };
        let null = if self.event.is_latency() {
            null.max(FLOOR_LATENCY)
        } else {
            null
        };
        if null < CEILING { null } else { 1.0 }
    }

    /// Whether what few units, or those of one key, have met can be the candidate's fault.
    const fn is_blamed(&self, enough: bool) -> bool {
        enough && !self.one_key_of_several
    }

    /// Natural logarithm of the e-value of all tests together.
    fn ln(&self) -> f64 {
        self.ln_of(self.main.ln())
    }

    fn ln_of(&self, main: f64) -> f64 {
        // What few units did may still be their own doing.
        let several = self.is_blamed(self.units.enough());
        let main = if several { main } else { main.min(0.0) };
        let past = self.past.wealth.ln();
        let past = if several { past } else { past.min(0.0) };
        let own = |ln: f64| {
            if self.is_blamed(true) {
                ln
            } else {
                ln.min(0.0)
            }
        };
        let retried = self.retried.as_ref().map_or(0.0, |it| it.wealth.ln());
        let parts = [
            (MAIN, main),
            (PAST, past),
            (SIDE, own(self.moved.wealth.ln())),
            (SIDE, own(retried)),
        ];
        let largest = parts
            .iter()
            .fold(f64::NEG_INFINITY, |max, part| max.max(part.1));
        let sum: f64 = parts
            .iter()
            .map(|(part, ln)| part * (ln - largest).exp())
            .sum();
        largest + sum.ln()
    }

    fn decide(&mut self, outcome: &Outcome, typical: i64) {
        if self.breach.is_some() {
            return;
        }
        let share = match outcome.exposure {
            // A limit is a limit though nobody is asked beside the candidate.
            Exposure::Randomised(_)
                if matches!(self.main, Main::Limit(_)) && !self.outage.has_control() =>
            {
                None
            }
            Exposure::Randomised(share) => Some(share),
            Exposure::Cohort | Exposure::Shadow => None,
        };
        if let Some(broken) = self.outage.broken(share, typical)
            && self.is_blamed(true)
        {
            let what = match broken {
                Broken::Endless => "each request met it for more than 3 s, which is no pause",
                Broken::FromTheStart => "each request met it from the first on",
            };
            let because = format!(
                "{what}; {} on the candidate, {} on stable",
                Ratio::from(self.candidate),
                Ratio::from(self.stable)
            );
            self.breach = Some((outcome.at, because));
            return;
        }
        self.decide_by_evidence(outcome.at);
    }

    fn decide_by_evidence(&mut self, at: Timestamp) {
        if self.breach.is_some() {
            return;
        }
        let ln = self.ln();
        if ln >= self.limit {
            let because = format!(
                "e-value {:.3e} reached {:.0}; {} on the candidate, {} on stable",
                e_value(ln),
                e_value(self.limit),
                Ratio::from(self.candidate),
                Ratio::from(self.stable)
            );
            self.breach = Some((at, because));
            return;
        }
        let blamed = self.is_blamed(self.units.enough());
        if let Main::Limit(limit) = &mut self.main
            && blamed
            && let Some((burn, count)) = limit.burning(at)
        {
            let because = format!(
                "{}: {} within {} s, {} times the limit of {} and at least {} events are too much",
                burn.name,
                Ratio::from(count),
                burn.window.as_secs(),
                burn.times,
                limit.max_ratio,
                burn.least
            );
            self.breach = Some((at, because));
        }
    }
}
