#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// Five seconds that end then, with so many units of so many hurt.
fn closed(second: i64, events: u64, of: u64) -> Closed {
    Closed {
        at: at(second),
        share: events as f64 / of as f64,
        units: Count { events, of },
    }
}

#[test]
fn much_too_much_within_a_minute_burns_fast() {
    let mut limit = Limit::new(0.01);
    for index in 1..=3 {
        limit.observe(closed(5 * index, 4, 30));
    }
    let (burn, count) = limit.burning(at(15)).unwrap();
    assert_eq!(
        (burn.name, count),
        ("fast burn", Count { events: 12, of: 90 })
    );
    assert!(limit.burning(at(100)).is_none(), "it has stopped burning");
}

#[test]
fn a_burst_is_no_ratio() {
    // A second of nothing but failures, at the very beginning, across the end of the first five seconds.
    let mut limit = Limit::new(0.01);
    limit.observe(closed(5, 40, 40));
    limit.observe(closed(10, 40, 200));
    assert!(limit.burning(at(10)).is_none());
    // Eight of three hundred and fourteen, together, are no tenth.
    let mut limit = Limit::new(0.1);
    limit.observe(closed(5, 8, 26));
    for index in 2..=12 {
        limit.observe(closed(5 * index, 0, 26));
        assert!(limit.burning(at(5 * index)).is_none());
        assert!(limit.wealth.ln() < 2.0_f64.ln());
    }
}

#[test]
fn twice_the_limit_is_found_whatever_hangs_together() {
    let mut limit = Limit::new(0.1);
    let found = (1..400).find(|index| {
        limit.observe(closed(5 * index, 6, 30));
        limit.wealth.ln() > 600.0_f64.ln()
    });
    assert!(found.is_some_and(|index| index < 120), "{found:?}");
}

#[test]
fn too_much_for_half_an_hour_burns_slowly() {
    let mut limit = Limit::new(0.01);
    for index in 1..=250 {
        limit.observe(closed(5 * index, u64::from(index % 4 == 0), 10));
    }
    let (burn, _) = limit.burning(at(1_250)).unwrap();
    assert_eq!(burn.name, "slow burn");
}

#[test]
fn few_events_and_ratios_within_the_limit_do_not_burn() {
    let mut limit = Limit::new(0.01);
    for index in 1..=3 {
        limit.observe(closed(5 * index, 3, 3));
    }
    assert!(limit.burning(at(15)).is_none(), "nine are fewer than ten");
    let mut limit = Limit::new(0.01);
    for index in 1..=200 {
        limit.observe(closed(5 * index, 1, 100));
        assert!(limit.burning(at(5 * index)).is_none());
    }
}

#[test]
fn a_generous_limit_can_still_burn() {
    let mut limit = Limit::new(0.5);
    for index in 1..=4 {
        limit.observe(closed(5 * index, 5, 5));
    }
    assert!(limit.burning(at(20)).is_some());
}
