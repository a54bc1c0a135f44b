//! One objective on events: which outcomes count for it, and what they add up to.

use super::evidence::{Basis, Evidence, Measure, Ratio, Test, Verdict, Wanted, e_value};
use super::history::{History, Moved};
use super::limit::Limit;
use super::noisiest::Noisiest;
use super::outcome::{Exposure, Outcome, Share, Side, Unit};
use super::reveals::Reveals;
use super::units::Units;
use super::wealth::Wealth;
use super::window::Count;
use crate::release::strategy::{Event, Rule};
use crate::time::Timestamp;

/// How the tests of an objective share its e-value. A weighted mean of e-processes is one.
const MAIN: f64 = 0.9;
const SIDE: f64 = 0.05;
/// "Failed here, answered there" has at most this probability if the revisions are alike, however
/// likely the request was to fail: `q·(1 − q) ≤ 1/4`.
const DISCORDANT: f64 = 0.25;
/// With this share of events among units so few that as large a share of them met it, the objective does not pass,
/// even if there is not enough evidence against the candidate.
const UNCLEAR: f64 = 0.2;
/// Above a limit and with this e-value, it does not pass.
const DOUBTFUL: f64 = 3.0;

#[derive(Debug, Clone)]
pub(super) struct Judge {
    event: Event,
    label: String,
    /// Natural logarithm of the e-value that is a breach.
    limit: f64,
    main: Main,
    moved: Moved,
    retried: Option<Coins>,
    units: Units,
    stable: Count,
    candidate: Count,
    step: Count,
    breach: Option<(Timestamp, String)>,
}

#[derive(Debug, Clone)]
enum Main {
    Compare(Box<Compared>),
    Limit(Box<Limit>),
}

/// The candidate's share of the units that have the event.
#[derive(Debug, Clone)]
struct Compared {
    reveals: Reveals,
    coins: Coins,
    noisiest: Noisiest,
}

#[derive(Debug, Clone)]
struct Coins {
    wealth: Wealth,
    count: Count,
}

impl Coins {
    fn new() -> Self {
        Self {
            wealth: Wealth::new(),
            count: Count::default(),
        }
    }

    fn observe(&mut self, heads: bool, null: f64) {
        self.count.add(heads);
        self.wealth.observe(heads, null);
    }
}

impl Compared {
    fn new() -> Self {
        Self {
            reveals: Reveals::default(),
            coins: Coins::new(),
            noisiest: Noisiest::default(),
        }
    }

    /// An event of a randomised request.
    fn observe(&mut self, share: Share, side: Side, unit: Unit) {
        let before = self.coins.wealth.ln();
        let coin = self.reveals.reveal(unit, share, side);
        if let Some(chance) = coin {
            self.coins.observe(side == Side::Candidate, chance);
        }
        if let (Side::Candidate, Unit::Sticky(hash)) = (side, unit) {
            let won = coin.map(|_| self.coins.wealth.ln() - before);
            self.noisiest.note(hash, won);
        }
    }

    fn ln(&self) -> f64 {
        self.coins.wealth.ln() - self.noisiest.discount()
    }
}

impl Judge {
    /// `alpha` is this objective's part of the chance of a false alarm.
    pub(super) fn new(event: Event, rule: Rule, alpha: f64, min_units: u32, label: String) -> Self {
        let (main, allowed) = match rule {
            Rule::CompareStable => (Main::Compare(Box::new(Compared::new())), 0.0),
            Rule::MaxRatio(ratio) => (Main::Limit(Box::new(Limit::new(ratio))), ratio),
        };
        Self {
            event,
            label,
            limit: -alpha.ln(),
            main,
            moved: Moved::new(allowed),
            retried: (event == Event::Error).then(Coins::new),
            units: Units::new(min_units),
            stable: Count::default(),
            candidate: Count::default(),
            step: Count::default(),
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
        match &mut self.main {
            Main::Compare(compared) => compared.coins.wealth.begin_step(),
            Main::Limit(limit) => limit.wealth.begin_step(),
        }
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
        history: &mut History,
    ) {
        let Outcome { at, side, unit, .. } = *outcome;
        match side {
            Side::Stable => self.stable.add(event),
            Side::Candidate => {
                self.candidate.add(event);
                if let (Some(coins), false) =
                    (&mut self.retried, outcome.exposure == Exposure::Shadow)
                {
                    let discordant = event && outcome.facts.stable_answered == Some(true);
                    coins.observe(discordant, DISCORDANT);
                }
            }
        }
        match outcome.exposure {
            Exposure::Randomised(share) => {
                self.moved.observe(at, side, unit, index, event, history);
                if side == Side::Stable {
                    history.record(unit, index, event);
                }
                self.observe_randomised(at, share, side, unit, event);
            }
            Exposure::Cohort | Exposure::Shadow if side == Side::Candidate => {
                if let Main::Limit(limit) = &mut self.main {
                    self.step.add(event);
                    if self.units.observe(at, unit, event) {
                        limit.observe(at, event);
                    }
                }
            }
            Exposure::Cohort | Exposure::Shadow => {}
        }
        if side == Side::Candidate || event {
            self.decide(at);
        }
    }

    fn observe_randomised(
        &mut self,
        at: Timestamp,
        share: Share,
        side: Side,
        unit: Unit,
        event: bool,
    ) {
        let counts = side == Side::Candidate && {
            self.step.add(event);
            self.units.observe(at, unit, event)
        };
        match &mut self.main {
            Main::Limit(limit) if counts => limit.observe(at, event),
            Main::Limit(_) => {}
            Main::Compare(compared) => {
                if event {
                    compared.observe(share, side, unit);
                }
            }
        }
    }

    fn main_ln(&self) -> f64 {
        match &self.main {
            Main::Compare(compared) => compared.ln(),
            Main::Limit(limit) => limit.wealth.ln(),
        }
    }

    /// Natural logarithm of the e-value of all tests together.
    fn ln(&self) -> f64 {
        let main = match self.main_ln() {
            // What few units did may still be their own doing.
            ln if !self.units.enough() => ln.min(0.0),
            ln => ln,
        };
        let retried = self.retried.as_ref().map_or(0.0, |it| it.wealth.ln());
        let parts = [
            (MAIN, main),
            (SIDE, self.moved.wealth.ln()),
            (SIDE, retried),
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

    fn decide(&mut self, at: Timestamp) {
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
        } else if let Main::Limit(limit) = &mut self.main
            && self.units.enough()
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

    /// `wanted`: requests of the candidate without which it does not pass.
    pub(super) fn evidence(&self, wanted: Wanted) -> Evidence {
        // Copies count for limits alone: nobody drew by lot who is copied.
        let is_limit = matches!(self.main, Main::Limit(_));
        let asked = wanted.answers || (wanted.copies && is_limit);
        self.stated(Basis::Requests, asked, wanted.requests)
    }

    /// As [`Judge::evidence`], of pairs of answers, of which `least` are needed.
    pub(super) fn agreement(&self, wanted: Wanted, least: u64) -> Evidence {
        // Without copies there will be no more of them, and what few there were decide nothing.
        let asked = wanted.copies || self.step.of >= least;
        self.stated(Basis::Copies, asked, least)
    }

    fn stated(&self, basis: Basis, asked: bool, least: u64) -> Evidence {
        let (verdict, because) = self.verdict(least, basis);
        Evidence {
            objective: self.label.clone(),
            basis,
            asked,
            verdict,
            because,
            breached_at: self.breach.as_ref().map(|(at, _)| *at),
            measure: self.measure(),
        }
    }

    fn verdict(&self, wanted: u64, basis: Basis) -> (Verdict, String) {
        if let Some((_, because)) = &self.breach {
            return (Verdict::Breach, because.clone());
        }
        let judged = self.step.of;
        if judged == 0 {
            let text = match basis {
                Basis::Copies => "no copy was compared yet",
                Basis::Requests | Basis::Evaluation => {
                    "no request of the candidate was judged in this step"
                }
            };
            return (Verdict::NoData, text.into());
        }
        if judged < wanted {
            let text = match basis {
                Basis::Copies => format!("{judged} of {wanted} copies compared"),
                Basis::Requests | Basis::Evaluation => {
                    format!("{judged} of {wanted} requests judged in this step")
                }
            };
            return (Verdict::Inconclusive, text);
        }
        let ln = self.ln();
        if ln >= self.limit / 2.0 {
            let text = format!(
                "suspicious: e-value {:.1}, a breach at {:.0}",
                e_value(ln),
                e_value(self.limit)
            );
            return (Verdict::Inconclusive, text);
        }
        let (met, counted) = (self.units.met, self.units.judged);
        // What a limit allows is not unclear, however much that is.
        let unclear = match &self.main {
            Main::Limit(limit) => limit.max_ratio.max(UNCLEAR),
            Main::Compare(_) => UNCLEAR,
        };
        if met.ratio() > unclear && self.units.hurt_share().is_some_and(|it| it > UNCLEAR) {
            let text = format!(
                "{} requests met it, but of too few units to tell the release from its callers",
                Ratio::from(met)
            );
            return (Verdict::Inconclusive, text);
        }
        if let Main::Limit(limit) = &self.main
            && self.units.enough()
            && counted.ratio() > limit.max_ratio
            && limit.wealth.ln() > DOUBTFUL.ln()
        {
            let text = format!("{} is above the limit, if not surely", Ratio::from(counted));
            return (Verdict::Inconclusive, text);
        }
        let text = format!(
            "{} on the candidate, {} on stable",
            Ratio::from(self.candidate),
            Ratio::from(self.stable)
        );
        (Verdict::Pass, text)
    }

    fn measure(&self) -> Measure {
        let test = |name: &str, ln, part, coins: Count| Test {
            name: name.into(),
            e_value: e_value(ln),
            part,
            coins: coins.into(),
        };
        let main = match &self.main {
            Main::Compare(compared) => test(
                "randomised units",
                compared.ln(),
                MAIN,
                compared.coins.count,
            ),
            Main::Limit(limit) => test("limit", limit.wealth.ln(), MAIN, self.units.judged),
        };
        let moved = test("own history", self.moved.wealth.ln(), SIDE, self.moved.bets);
        let retried = self
            .retried
            .as_ref()
            .map(|it| test("retried on stable", it.wealth.ln(), SIDE, it.count));
        Measure::Requests {
            stable: self.stable.into(),
            candidate: self.candidate.into(),
            judged_in_step: self.step.of,
            units: self.units.hurt(),
            e_value: e_value(self.ln()),
            limit: e_value(self.limit),
            tests: [Some(main), Some(moved), retried]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}
