#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;
use crate::cli::release::ask;

fn said(action: &Value, kind: &str, phase: &str, reason: Option<&str>) -> String {
    let decision = json!({
        "at": "2026-11-26T18:20:00Z",
        "actor": "alice",
        "kind": kind,
        "action": action,
        "reason": reason,
        "state": {
            "phase": { "phase": phase }, "step": 0, "passed": false,
            "since": "2026-11-26T18:20:00Z", "share": 0, "shadow": 0
        },
        "evidence": null
    });
    let steps = ["weight: 5 %".to_owned(), "pause: for 5m".to_owned()];
    decided(&ask::read(&decision).unwrap(), &steps)
}

#[test]
fn every_action_has_words() {
    let acted = |action: Value| said(&action, "action", "promoted", None);
    assert_eq!(
        acted(json!({ "action": "enter", "step": 1, "share": 50_000, "shadow": 0 })),
        "begins step 2 of 2: pause: for 5m (weight 5 %)"
    );
    assert_eq!(acted(json!({ "action": "wait", "until": null })), "waits");
    assert_eq!(acted(json!({ "action": "resume" })), "resumes");
    assert_eq!(
        acted(json!({ "action": "pause", "why": { "why": "step" } })),
        "pauses: the strategy pauses here"
    );
    assert_eq!(
        acted(json!({ "action": "extend", "because": "no_data" })),
        "gives the analysis its time once more: no_data"
    );
    assert_eq!(
        acted(json!({ "action": "promote" })),
        "promotes: all traffic to the candidate"
    );
    assert_eq!(
        acted(json!({ "action": "finish" })),
        "ends it: the candidate is live"
    );
    assert_eq!(
        acted(json!({ "action": "abort" })),
        "aborts it before anything reached the candidate"
    );
}

#[test]
fn a_persons_reason_follows_what_they_did() {
    let by_person = json!({ "action": "roll_back", "why": { "why": "person" } });
    let told = said(&by_person, "command", "running", Some("wrong tickets"));
    assert_eq!(told, "takes it back — wrong tickets");
    let refused = said(
        &Value::Null,
        "refused",
        "running",
        Some("the gate is closed"),
    );
    assert_eq!(refused, "was refused: the gate is closed");
    let noted = said(&Value::Null, "note", "running", Some("ended elsewhere"));
    assert_eq!(noted, "ended elsewhere");
}

#[test]
fn times_have_two_units() {
    let seconds = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 200_000];
    let texts = seconds.map(|it| lasting(Duration::from_secs(it)));
    let expected = [
        "0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "2d 7h",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn numbers_have_as_many_digits_as_tell_something() {
    let values = [
        0.0, 1.0, 9.99, 12.34, 99.99, 499.6, 99_999.0, 1.0e5, 2.5e299,
    ];
    let expected = [
        "0.00", "1.00", "9.99", "12.3", "100", "500", "99999", "1.0e5", "2.5e299",
    ];
    assert_eq!(values.map(e_value), expected);
    let ratios = [(0, 0), (0, 10), (1, 142), (30, 142), (5, 5)];
    let expected = [
        "–",
        "0 %  0 of 10",
        "0.70 %  1 of 142",
        "21.1 %  30 of 142",
        "100.0 %  5 of 5",
    ];
    assert_eq!(
        ratios.map(|(events, of)| share(Ratio { events, of })),
        expected
    );
    assert_eq!(
        [0.0, -0.0083, 0.12, 2.5].map(super::seconds),
        ["0", "−8.30ms", "120ms", "2.50s"]
    );
}
