use proptest::prelude::*;

use super::*;

const fn side(place: u32, share: Share) -> Side {
    if place < share.parts() {
        Side::Candidate
    } else {
        Side::Stable
    }
}

#[test]
fn a_noisy_client_is_one_coin() {
    let mut reveals = Reveals::default();
    let share = Share::percent(5.0);
    let unit = Unit::Sticky(1);
    assert_eq!(reveals.reveal(unit, share, Side::Candidate), Some(0.05));
    for _ in 0..1_000 {
        assert_eq!(reveals.reveal(unit, share, Side::Candidate), None);
    }
    // Nor does it become one when the weight rises: it stays where it is.
    assert_eq!(
        reveals.reveal(unit, Share::percent(50.0), Side::Candidate),
        None
    );
}

#[test]
fn a_raised_weight_is_a_new_coin_for_those_on_stable() {
    let mut reveals = Reveals::default();
    let unit = Unit::Sticky(1);
    reveals.reveal(unit, Share::percent(1.0), Side::Stable);
    let chance = reveals.reveal(unit, Share::percent(10.0), Side::Candidate);
    assert_eq!(chance, Some(9.0 / 99.0));
}

#[test]
fn requests_without_a_key_are_coins_of_their_own() {
    let mut reveals = Reveals::default();
    for _ in 0..3 {
        let chance = reveals.reveal(Unit::Single, Share::percent(5.0), Side::Candidate);
        assert_eq!(chance, Some(0.05));
    }
    assert_eq!(
        reveals.reveal(Unit::Single, Share::NONE, Side::Stable),
        None
    );
    assert_eq!(
        reveals.reveal(Unit::Single, Share::ALL, Side::Candidate),
        None
    );
}

#[test]
fn what_there_is_no_room_for_is_not_counted_rather_than_counted_twice() {
    let mut reveals = Reveals::default();
    let share = Share::percent(50.0);
    for unit in 0..CAPACITY as u64 {
        assert!(
            reveals
                .reveal(Unit::Sticky(unit), share, Side::Stable)
                .is_some()
        );
    }
    assert_eq!(
        reveals.reveal(Unit::Sticky(u64::MAX), share, Side::Stable),
        None
    );
    assert_eq!(reveals.ignored, 1);
}

proptest! {
    /// The probabilities are right: averaged over where a unit may be, any bet on them has the expectation 1,
    /// whatever the weights do and however often the unit has events.
    #[test]
    fn a_bet_on_a_unit_is_fair(
        weights in prop::collection::vec(0_u32..=50, 1..12),
        guesses in prop::collection::vec(0.0_f64..=1.0, 12),
    ) {
        let mut mean = 0.0;
        // A place in the middle of each of fifty equal parts stands for the whole of it.
        for part in 0..50_u32 {
            let place = part * 20_000 + 10_000;
            let mut reveals = Reveals::default();
            let mut capital = 1.0;
            for (weight, guess) in weights.iter().zip(&guesses) {
                let share = Share::percent(f64::from(*weight) * 2.0);
                let side = side(place, share);
                if let Some(chance) = reveals.reveal(Unit::Sticky(1), share, side) {
                    capital *= match side {
                        Side::Candidate => guess / chance,
                        Side::Stable => (1.0 - guess) / (1.0 - chance),
                    };
                }
            }
            mean += capital / 50.0;
        }
        prop_assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    }
}
