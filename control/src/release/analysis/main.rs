//! The test that an objective rests on: the place of units that meet the event, or a limit.

use super::limit::Limit;
use super::noisiest::Noisiest;
use super::outcome::{Share, Side, Unit};
use super::reveals::Reveals;
use super::wealth::Wealth;
use super::window::Count;
use crate::release::strategy::{Pauses, Rule};
use crate::time::Timestamp;

/// What part of the pauses is paid for, without `strict`: a good release may then be taken back somewhat more often than
/// alpha says if the candidate pauses as often as is allowed, and a bad one is sooner.
const PAID: f64 = 0.25;
/// One request says of a pause no more than this, however long the last one is ago.
const LONGEST_PASS: f64 = 5.0;
/// How often time is paid for, in seconds.
const PACE: f64 = 1.0;

#[derive(Debug, Clone)]
pub(super) enum Main {
    Compare(Box<Compared>),
    Limit(Box<Limit>),
}

/// The candidate's share of the units that have the event.
#[derive(Debug, Clone)]
pub(super) struct Compared {
    reveals: Reveals,
    pub(super) coins: Coins,
    noisiest: Noisiest,
    /// Pauses of the candidate alone, a second.
    intensity: f64,
    paid: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct Coins {
    pub(super) wealth: Wealth,
    pub(super) count: Count,
}

impl Coins {
    pub(super) fn new() -> Self {
        Self {
            wealth: Wealth::new(),
            count: Count::default(),
        }
    }

    pub(super) fn observe(&mut self, heads: bool, null: f64) {
        self.count.add(heads);
        self.wealth.observe(heads, null);
    }
}

impl Main {
    /// Without `pauses` none are allowed for.
    pub(super) fn new(rule: Rule, pauses: Option<&Pauses>) -> Self {
        let intensity = |pauses: &Pauses| {
            let paid = if pauses.strict { 1.0 } else { PAID };
            paid / pauses.every.as_secs_f64()
        };
        match rule {
            Rule::CompareStable => Self::Compare(Box::new(Compared {
                reveals: Reveals::default(),
                coins: Coins::new(),
                noisiest: Noisiest::default(),
                intensity: pauses.map_or(0.0, intensity),
                paid: None,
            })),
            Rule::MaxRatio(ratio) => Self::Limit(Box::new(Limit::new(ratio))),
        }
    }

    pub(super) fn begin_step(&mut self) {
        match self {
            Self::Compare(compared) => compared.coins.wealth.begin_step(),
            Self::Limit(limit) => limit.wealth.begin_step(),
        }
    }

    /// Time goes by in which the candidate may have had a pause of its own.
    pub(super) fn pass(&mut self, at: Timestamp, share: Share) {
        let Self::Compare(compared) = self else {
            return;
        };
        let Some(paid) = compared.paid else {
            compared.paid = Some(at);
            return;
        };
        let seconds = at.since(paid).as_secs_f64();
        if seconds >= PACE {
            compared.paid = Some(at);
            let chance = f64::from(share.parts()) / f64::from(Share::ALL.parts());
            let seconds = seconds.min(LONGEST_PASS);
            compared
                .coins
                .wealth
                .pass(seconds, chance, compared.intensity);
        }
    }

    /// With what chance an event that has happened would be on the candidate, where it shows anything.
    pub(super) fn reveal(&mut self, share: Share, side: Side, unit: Unit) -> Option<f64> {
        match self {
            Self::Compare(compared) => compared.reveals.reveal(unit, share, side),
            Self::Limit(_) => None,
        }
    }

    /// An event, whether it counts or not.
    pub(super) fn note(&mut self, side: Side, unit: Unit) {
        if let (Self::Compare(compared), Side::Candidate, Unit::Sticky(hash)) = (self, side, unit) {
            compared.noisiest.note(hash);
        }
    }

    /// An event that counts, and the chance that it would be on the candidate.
    pub(super) fn observe(&mut self, side: Side, unit: Unit, chance: f64) {
        let Self::Compare(compared) = self else {
            return;
        };
        let before = compared.coins.wealth.ln();
        compared.coins.observe(side == Side::Candidate, chance);
        if let (Side::Candidate, Unit::Sticky(hash)) = (side, unit) {
            compared
                .noisiest
                .won(hash, compared.coins.wealth.ln() - before);
        }
    }

    pub(super) fn ln(&self) -> f64 {
        match self {
            Self::Compare(compared) => compared.ln(),
            Self::Limit(limit) => limit.wealth.ln(),
        }
    }
}

impl Compared {
    pub(super) fn ln(&self) -> f64 {
        self.coins.wealth.ln() - self.noisiest.discount()
    }
}
