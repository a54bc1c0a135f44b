#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

#[test]
fn much_too_much_within_a_minute_burns_fast() {
    let mut limit = Limit::new(0.01);
    for index in 0..90 {
        limit.observe(at(index / 10), index % 9 == 0);
    }
    let (burn, count) = limit.burning(at(9)).unwrap();
    assert_eq!(
        (burn.name, count),
        ("fast burn", Count { events: 10, of: 90 })
    );
    assert!(limit.burning(at(100)).is_none(), "it has stopped burning");
}

#[test]
fn too_much_for_half_an_hour_burns_slowly() {
    let mut limit = Limit::new(0.01);
    for index in 0..1_250 {
        limit.observe(at(index), index % 40 == 0);
    }
    let (burn, _) = limit.burning(at(1_250)).unwrap();
    assert_eq!(burn.name, "slow burn");
}

#[test]
fn few_events_and_ratios_within_the_limit_do_not_burn() {
    let mut limit = Limit::new(0.01);
    for index in 0..9 {
        limit.observe(at(index), true);
    }
    assert!(limit.burning(at(9)).is_none(), "nine are fewer than ten");
    let mut limit = Limit::new(0.01);
    for index in 0..10_000 {
        limit.observe(at(index / 10), index % 100 == 0);
        assert!(limit.burning(at(index / 10)).is_none());
    }
}

#[test]
fn a_generous_limit_can_still_burn() {
    let mut limit = Limit::new(0.5);
    for index in 0..20 {
        limit.observe(at(index), true);
    }
    assert!(limit.burning(at(20)).is_some());
}
