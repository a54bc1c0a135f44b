//! The capital of a gambler who bets against "nothing is wrong".
//!
//! Each observation is a coin that, if nothing is wrong, shows heads with a known probability (or less). The gambler
//! spreads its capital over several guesses of how much more likely heads really are, and multiplies each part
//! by the likelihood ratio of its guess. If nothing is wrong the capital is a supermartingale that starts at 1,
//! so that it ever reaches `1/α` has probability `α` at most (Ville's inequality), however often one looks.
//!
//! The mixture over guesses is that of Lindon & Malek (NeurIPS 2022), on a grid of odds ratios instead of a
//! Beta prior on the proportion: an odds ratio means the same at every weight of the candidate, a proportion does
//! not. The moving of capital between guesses is the fixed share of Herbster & Warmuth (1998): without it, a
//! candidate that was good for an hour could be bad for another before the lost capital is won back.

/// Guesses of the odds ratio of heads. One-sided: being better than expected is no alarm.
const ODDS: [f64; 8] = [1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0];
/// The parts of fresh capital that is bet: most on what has to be found within seconds.
const PRIOR: [f64; ODDS.len()] = [0.03, 0.03, 0.05, 0.10, 0.19, 0.30, 0.20, 0.10];
/// The share of fresh capital that is not bet at all, so that a long quiet time costs little.
const CASH: f64 = 0.06;
/// The share that moves after the n-th is `1 / (n + PATIENCE)`.
const PATIENCE: f64 = 50.0;
/// The share that is bet anew when a step begins, which is when things are likely to change.
const AT_STEP: f64 = 0.125;

/// An e-process: its value is evidence against the null hypothesis.
#[derive(Debug, Clone)]
pub(super) struct Wealth {
    /// Parts of the capital; they sum to 1.
    cash: f64,
    stakes: [f64; ODDS.len()],
    /// Natural logarithm of the whole capital.
    ln: f64,
    bets: f64,
    /// Seconds that have passed in this step.
    passed: f64,
}

impl Wealth {
    pub(super) fn new() -> Self {
        Self {
            cash: CASH,
            stakes: PRIOR.map(|part| (1.0 - CASH) * part),
            ln: 0.0,
            bets: 0.0,
            passed: 0.0,
        }
    }

    /// Natural logarithm of the e-value.
    pub(super) const fn ln(&self) -> f64 {
        self.ln
    }

    /// Bets on one coin, of which the null hypothesis says that heads have probability `null` at most,
    /// whatever came before. Where `null` is 0 or 1 there is nothing to bet on.
    pub(super) fn observe(&mut self, heads: bool, null: f64) {
        if !(null > 0.0 && null < 1.0) {
            return;
        }
        let mut whole = self.cash;
        for (stake, odds) in self.stakes.iter_mut().zip(ODDS) {
            // The guess says heads with probability `null·odds / (1 + null·(odds − 1))`.
            let scale = 1.0 / (1.0 + null * (odds - 1.0));
            *stake *= if heads { odds * scale } else { scale };
            whole += *stake;
        }
        self.ln += whole.ln();
        let moved = 1.0 / (self.bets + PATIENCE);
        self.bets += 1.0;
        self.spread(whole, moved);
    }

    /// Bets on a share of heads between 0 and 1, of which the null hypothesis says that its mean is `null` at most,
    /// whatever came before. What happens within the share may depend on each other in any way.
    pub(super) fn observe_share(&mut self, share: f64, null: f64) {
        if !(null > 0.0 && null < 1.0) {
            return;
        }
        let mut whole = self.cash;
        for (stake, odds) in self.stakes.iter_mut().zip(ODDS) {
            let scale = 1.0 / (1.0 + null * (odds - 1.0));
            *stake *= scale * (1.0 + share * (odds - 1.0));
            whole += *stake;
        }
        self.ln += whole.ln();
        let moved = 1.0 / (self.bets + PATIENCE);
        self.bets += 1.0;
        self.spread(whole, moved);
    }

    /// Pays for heads that come by themselves, at `intensity` a second, beside those that the coins of probability `null`
    /// allow: each stake loses what it would win by them in the mean.
    pub(super) fn pass(&mut self, seconds: f64, null: f64, intensity: f64) {
        if !(null > 0.0 && null < 1.0 && seconds > 0.0 && intensity > 0.0) {
            return;
        }
        let mut whole = self.cash;
        for (stake, odds) in self.stakes.iter_mut().zip(ODDS) {
            let gain = (odds - 1.0) * (1.0 - null) / (1.0 + null * (odds - 1.0));
            *stake *= (-gain * intensity * seconds).exp();
            whole += *stake;
        }
        self.ln += whole.ln();
        let before = self.passed + PATIENCE;
        self.passed += seconds;
        self.spread(whole, seconds / (before + seconds));
    }

    /// Bets part of the capital anew.
    pub(super) fn begin_step(&mut self) {
        self.bets = 0.0;
        self.passed = 0.0;
        self.spread(1.0, AT_STEP);
    }

    /// Makes the parts sum to 1 again, and moves a share of each to the first guesses.
    fn spread(&mut self, whole: f64, moved: f64) {
        let kept = (1.0 - moved) / whole;
        self.cash = self.cash * kept + moved * CASH;
        let fresh = moved * (1.0 - CASH);
        for (stake, part) in self.stakes.iter_mut().zip(PRIOR) {
            *stake = *stake * kept + fresh * part;
        }
    }
}

#[cfg(test)]
mod tests;
