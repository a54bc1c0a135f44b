//! What an objective says of itself: its verdict, and the numbers that it rests on.

use super::super::evidence::{Basis, Evidence, Measure, Ratio, Test, Verdict, Wanted, e_value};
use super::super::main::Main;
use super::super::window::Count;
use super::{Judge, MAIN, PAST, SIDE};

/// With this share of events among units so few that as large a share of them met it, the objective does not pass,
/// even if there is not enough evidence against the candidate.
const UNCLEAR: f64 = 0.2;
/// Above a limit and with this e-value, it does not pass.
const DOUBTFUL: f64 = 3.0;

impl Judge {
    /// `wanted`: requests of the candidate without which it does not pass.
    pub(in super::super) fn evidence(&self, wanted: Wanted) -> Evidence {
        // Copies count for limits alone: nobody drew by lot who is copied.
        let is_limit = matches!(self.main, Main::Limit(_));
        let asked = wanted.answers || (wanted.copies && is_limit);
        self.stated(Basis::Requests, asked, wanted.requests)
    }

    /// As [`Judge::evidence`], of pairs of answers, of which `least` are needed in any case.
    pub(in super::super) fn agreement(&self, wanted: Wanted, least: u64) -> Evidence {
        let least = least.max(wanted.pairs);
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
        if self.outage.is_under_way() {
            return (
                Verdict::Inconclusive,
                "every request that has ended of late met it".into(),
            );
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
        let (met, counted, open) = self.units.so_far();
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
            && limit.ln_with(open) > DOUBTFUL.ln()
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
            Main::Limit(limit) => test("limit", limit.wealth.ln(), MAIN, self.units.so_far().1),
        };
        let past = (self.past.count.of > 0).then(|| {
            test(
                "stable's past",
                self.past.wealth.ln(),
                PAST,
                self.past.count,
            )
        });
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
            tests: [Some(main), past, Some(moved), retried]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}
