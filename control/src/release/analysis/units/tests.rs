use super::*;
use crate::release::analysis::outcome::Share;

const LOT: Exposure = Exposure::Randomised(Share::ALL);

const fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// A request without a unit that begins the next five seconds.
fn next(units: &mut Units, second: i64) -> Option<Closed> {
    units.observe(at(second), Unit::Single, 0, LOT, false)
}

#[test]
fn a_unit_is_hurt_whatever_it_sent_before() {
    let mut units = Units::new(3);
    for unit in 0..3 {
        for request in 0..5 {
            units.observe(at(1), Unit::Sticky(unit), 0, LOT, request == 3);
        }
    }
    assert!(units.enough());
    let closed = next(&mut units, 5).unwrap_or_else(|| unreachable!("five seconds are over"));
    // One of five requests each.
    assert!((closed.share - 0.2).abs() < 1e-12, "{closed:?}");
    assert_eq!(closed.units, Count { events: 3, of: 3 });
}

#[test]
fn a_client_in_a_loop_has_one_voice() {
    let mut units = Units::new(3);
    for _ in 0..1_000 {
        units.observe(at(1), Unit::Sticky(1), 0, LOT, true);
    }
    for unit in 2..12 {
        units.observe(at(2), Unit::Sticky(unit), 0, LOT, false);
    }
    let closed = next(&mut units, 5).unwrap_or_else(|| unreachable!("five seconds are over"));
    assert!((closed.share - 1.0 / 11.0).abs() < 1e-12, "{closed:?}");
    // And afterwards none, as long as nobody else is hurt.
    for _ in 0..1_000 {
        units.observe(at(6), Unit::Sticky(1), 0, LOT, true);
    }
    let closed = next(&mut units, 10).unwrap_or_else(|| unreachable!("five seconds are over"));
    assert_eq!(closed.share, 0.0);
    assert!(!units.enough());
}

#[test]
fn what_is_under_way_can_be_looked_at_without_closing_it() {
    let mut units = Units::new(1);
    for unit in 0..10 {
        units.observe(at(1), Unit::Sticky(unit), 0, LOT, unit < 4);
    }
    let looked = units.so_far();
    assert_eq!(looked, units.so_far());
    assert_eq!(looked.1, Count { events: 4, of: 10 });
}

#[test]
fn what_one_of_several_keys_has_met_may_be_its_own_doing() {
    let mut keys = Keys::default();
    for unit in 0..100 {
        keys.note(Unit::Sticky(unit), unit % 2);
    }
    let mut units = Units::new(3);
    for unit in 0..20 {
        units.observe(at(1), Unit::Sticky(2 * unit), 0, LOT, true);
    }
    assert!(units.may_be_one_keys_doing(&keys));
    units.observe(at(1), Unit::Sticky(1), 1, LOT, true);
    assert!(
        units.may_be_one_keys_doing(&keys),
        "what fails now and then fails for all"
    );
    for unit in [3, 5] {
        units.observe(at(1), Unit::Sticky(unit), 1, LOT, true);
    }
    assert!(!units.may_be_one_keys_doing(&keys));
    let mut units = Units::new(3);
    units.observe(at(1), Unit::Sticky(1), 7, Exposure::Cohort, true);
    assert!(
        !units.may_be_one_keys_doing(&keys),
        "a cohort may be of one key"
    );
    let mut units = Units::new(3);
    units.observe(at(1), Unit::Sticky(1), 7, LOT, true);
    assert!(
        !units.may_be_one_keys_doing(&Keys::default()),
        "the only key"
    );
}
