#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn json_is_rfc_3339_to_the_microsecond() {
    let instant = Timestamp::from_micros(1_769_860_800_000_001);
    assert_eq!(
        serde_json::to_string(&instant).unwrap(),
        "\"2026-01-31T12:00:00.000001Z\""
    );
    assert_eq!("2026-01-31T13:00:00.000001+01:00".parse(), Ok(instant));
}

#[test]
fn texts_that_are_no_instants_are_refused() {
    for text in [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-01-31T12:00:00",
    ] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
}

#[test]
fn hours_and_months_start_where_the_calendar_says() {
    let instant: Timestamp = "2024-02-29T23:59:59.999999Z".parse().unwrap();
    assert_eq!(
        instant.start_of_hour().to_string(),
        "2024-02-29T23:00:00.000000Z"
    );
    assert_eq!(
        instant.start_of_month().to_string(),
        "2024-02-01T00:00:00.000000Z"
    );
    let before_the_epoch = Timestamp::from_micros(-1);
    assert_eq!(
        before_the_epoch.start_of_hour().to_string(),
        "1969-12-31T23:00:00.000000Z"
    );
    assert_eq!(
        before_the_epoch.start_of_month().to_string(),
        "1969-12-01T00:00:00.000000Z"
    );
}

#[test]
fn arithmetic_saturates() {
    let last = Timestamp::from_micros(i64::MAX);
    assert_eq!(last.after(Duration::MAX), last);
    assert_eq!(Timestamp::from_micros(0).since(last), Duration::ZERO);
    assert_eq!(
        Timestamp::from_micros(5).before(Duration::from_micros(2)),
        Timestamp::from_micros(3)
    );
}
