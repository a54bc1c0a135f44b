use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

#[test]
fn a_unit_counts_once_in_five_seconds() {
    let mut units = Units::new(3);
    assert!(units.observe(at(0), Unit::Sticky(1), false));
    assert!(!units.observe(at(4), Unit::Sticky(1), true));
    assert!(units.observe(at(4), Unit::Sticky(2), false));
    assert!(units.observe(at(5), Unit::Sticky(1), false));
    assert_eq!(units.judged, Count { events: 0, of: 3 });
}

#[test]
fn no_unit_has_many_of_the_events() {
    let mut units = Units::new(3);
    for bucket in 0..100 {
        units.observe(at(5 * bucket), Unit::Sticky(1), true);
    }
    assert_eq!(units.judged.events, 1, "alone it is one event");
    assert_eq!(units.met.events, 100);
    assert!(!units.enough());
    // Several that are all bad are not held up by one another.
    for bucket in 100..200 {
        for unit in 1..=8 {
            units.observe(at(5 * bucket), Unit::Sticky(unit), true);
        }
    }
    assert!(units.enough());
    assert!(units.judged.events > 700, "{:?}", units.judged);
}

#[test]
fn requests_without_a_key_are_units_of_their_own() {
    let mut units = Units::new(3);
    for _ in 0..3 {
        assert!(units.observe(at(0), Unit::Single, true));
    }
    assert!(units.enough());
    assert_eq!(units.judged.events, 3);
}
