use proptest::prelude::*;
use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

fn random(seed: u64) -> impl FnMut(f64) -> bool {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    move |p| (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 > 1.0 - p
}

fn after(wealth: &Wealth, heads: bool, null: f64) -> f64 {
    let mut next = wealth.clone();
    next.observe(heads, null);
    (next.ln() - wealth.ln()).exp()
}

proptest! {
    /// What makes it an e-process: whatever has been seen, the expected factor of the next bet is 1 under the null
    /// hypothesis, and less where heads are less likely than it says.
    #[test]
    fn nothing_is_won_in_expectation(
        past in prop::collection::vec((any::<bool>(), 0.001_f64..0.999, prop::bool::weighted(0.05)), 0..200),
        null in 0.001_f64..0.999,
        less in 0.0_f64..1.0,
    ) {
        let mut wealth = Wealth::new();
        for (heads, null, step) in past {
            if step {
                wealth.begin_step();
            }
            wealth.observe(heads, null);
        }
        let (won, lost) = (after(&wealth, true, null), after(&wealth, false, null));
        prop_assert!((null * won + (1.0 - null) * lost - 1.0).abs() < 1e-9);
        let p = null * less;
        prop_assert!(p * won + (1.0 - p) * lost <= 1.0 + 1e-9);
    }

    #[test]
    fn its_parts_stay_a_whole(past in prop::collection::vec((any::<bool>(), 0.0_f64..=1.0), 0..500)) {
        let mut wealth = Wealth::new();
        for (heads, null) in past {
            wealth.observe(heads, null);
            let whole = wealth.cash + wealth.stakes.iter().sum::<f64>();
            prop_assert!((whole - 1.0).abs() < 1e-9);
            prop_assert!(wealth.ln().is_finite());
        }
    }
}

/// Ville's inequality, seen: looked at after each of a thousand bets, a limit of 20 is reached in fewer than one path of twenty.
#[test]
fn the_limit_is_rarely_reached_by_chance() {
    let paths = 2_000;
    let reached = (0..paths)
        .filter(|seed| {
            let mut toss = random(*seed);
            let mut wealth = Wealth::new();
            (0..1_000).any(|index| {
                let null = [0.01, 0.05, 0.1, 0.5][index % 4];
                wealth.observe(toss(null), null);
                wealth.ln() >= 20.0_f64.ln()
            })
        })
        .count();
    assert!(reached * 20 <= paths as usize, "{reached} of {paths}");
}

#[test]
fn what_turns_bad_after_a_long_good_time_is_found() {
    let mut toss = random(7);
    let mut wealth = Wealth::new();
    for _ in 0..5_000 {
        wealth.observe(toss(0.05), 0.05);
    }
    let bets = (1..)
        .find(|_| {
            wealth.observe(toss(0.7), 0.05);
            wealth.ln() >= 500.0_f64.ln()
        })
        .unwrap_or(u32::MAX);
    assert!(bets < 60, "{bets}");
}

#[test]
fn a_certain_coin_is_no_bet() {
    let mut wealth = Wealth::new();
    wealth.observe(true, 0.0);
    wealth.observe(false, 1.0);
    wealth.observe(true, f64::NAN);
    assert_eq!(wealth.ln(), 0.0);
}
