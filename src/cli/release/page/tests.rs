#![expect(clippy::unwrap_used, reason = "tests")]

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::cli::release::ask;

/// A release in its third step, as the API tells of it.
pub(in crate::cli::release) fn canary() -> Value {
    json!({
        "id": "wo_0199",
        "deployment": "dep_0042",
        "endpoint": "helpdesk",
        "state": "canary",
        "phase": "running",
        "why": null,
        "waits_for": null,
        "step": 2,
        "step_count": 6,
        "step_text": "analyse: 200 requests, at most 10m",
        "since": "2026-11-26T18:20:00.000000Z",
        "weight": 5.0,
        "shadow": 0.0,
        "stable": { "version": "v1", "revision": "v1-ab12cd" },
        "candidate": { "version": "v2", "revision": "v2-k3x9qa" },
        "reason": "better answers",
        "started_at": "2026-11-26T18:10:00.000000Z",
        "finished_at": null,
        "ended_because": null,
        "strategy": {},
        "steps": [
            { "shadow": { "percent": 20.0, "for": "9m" } },
            { "weight": 5.0 },
            { "analyse": { "min_requests": 200, "max_duration": "10m" } },
            { "weight": 50.0 },
            { "analyse": { "max_duration": "30m" } },
            { "pause": {} }
        ],
        "evidence": evidence()
    })
}

pub(in crate::cli::release) fn evidence() -> Value {
    let test = json!({ "name": "randomised units", "e_value": 1.2, "part": 0.9, "coins": { "events": 1, "of": 5 } });
    let requests = |stable: [u64; 2], candidate: [u64; 2], e_value: f64, judged: u64| {
        json!({
            "kind": "requests",
            "stable": { "events": stable[0], "of": stable[1] },
            "candidate": { "events": candidate[0], "of": candidate[1] },
            "judged_in_step": judged,
            "units": 1,
            "e_value": e_value,
            "limit": 500.0,
            "tests": [test]
        })
    };
    let quantile = |low: f64, value: f64, high: Option<f64>| json!({ "low": low, "value": value, "high": high });
    let pair = |latency: &str, p: f64, stable: Value, candidate: Value, difference: Value| json!({ "latency": latency, "p": p, "stable": stable, "candidate": candidate, "difference": difference });
    json!({
        "process": "process 4711",
        "at": "2026-11-26T18:21:12.000000Z",
        "verdict": "breach",
        "objectives": [
            {
                "objective": "error, compared with stable",
                "verdict": "inconclusive",
                "because": "142 of 200 requests judged in this step",
                "measure": requests([4, 812], [1, 142], 1.204, 142)
            },
            {
                "objective": "slow_ttft over 800ms, compared with stable",
                "verdict": "breach",
                "because": "e-value 5.210e2 reached 500; 30 of 142 on the candidate, 9 of 812 on stable",
                "breached_at": "2026-11-26T18:21:11.000000Z",
                "measure": requests([9, 812], [30, 142], 521.0, 139)
            },
            {
                "objective": "empty, at most 0.01",
                "verdict": "no_data",
                "because": "no request of the candidate was judged in this step",
                "measure": requests([0, 0], [0, 0], 1.0, 141)
            },
            {
                "objective": "evaluation triage, at least +0",
                "verdict": "pass",
                "because": "+0.012 against the live version",
                "measure": { "kind": "evaluation", "delta": 0.012, "min_delta": 0.0 }
            }
        ],
        "quantiles": [
            pair("ttft", 0.5, quantile(0.110, 0.120, Some(0.131)), quantile(0.140, 0.150, Some(0.165)), json!([0.009, 0.055])),
            pair("ttft", 0.9, quantile(0.210, 0.230, Some(0.251)), quantile(0.180, 0.240, Some(0.400)), json!([-0.071, 0.190])),
            pair("ttft", 0.99, quantile(0.410, 0.430, None), quantile(0.0, 0.440, None), Value::Null),
            pair("token_time", 0.5, quantile(0.0081, 0.0083, Some(0.0085)), Value::Null, Value::Null),
            pair("total", 0.5, Value::Null, Value::Null, Value::Null)
        ],
        "requests": { "stable": 812, "candidate": 142 }
    })
}

fn printed(view: &Value) -> String {
    let now = "2026-11-26T18:21:12Z".parse().unwrap();
    text(&page(&ask::read(view).unwrap(), now))
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut view = canary();
    for (field, value) in changes {
        view[*field] = value.clone();
    }
    view
}

#[test]
fn a_release_under_way() {
    assert_snapshot!(printed(&canary()));
}

#[test]
fn a_release_that_waits_for_approval() {
    assert_snapshot!(printed(&with(&[
        ("state", json!("pending")),
        ("phase", Value::Null),
        ("waits_for", json!("approval")),
        ("step", json!(0)),
        ("since", Value::Null),
        ("weight", json!(0.0)),
        ("stable", Value::Null),
        ("candidate", json!({ "version": "v2", "revision": "" })),
        ("evidence", Value::Null),
    ])));
}

#[test]
fn copies_are_a_bar_of_their_own() {
    assert_snapshot!(printed(&with(&[
        ("state", json!("shadow")),
        ("step", json!(0)),
        ("weight", json!(0.0)),
        ("shadow", json!(20.0)),
        ("evidence", Value::Null),
    ])));
}

#[test]
fn a_release_that_was_taken_back() {
    let why = json!({ "why": "breach", "because": "error, compared with stable: e-value 5.210e2 reached 500" });
    assert_snapshot!(printed(&with(&[
        ("state", json!("rolled_back")),
        ("phase", json!("rolled_back")),
        ("why", why),
        ("weight", json!(0.0)),
        ("finished_at", json!("2026-11-26T18:21:12.000000Z")),
        ("evidence", Value::Null),
    ])));
}

#[test]
fn the_step_is_marked_as_the_phase_says() {
    let marks = |phase: &str, step: usize| {
        let view = with(&[("phase", json!(phase)), ("step", json!(step))]);
        let lines = printed(&view);
        let lines = lines.lines().skip_while(|line| !line.starts_with("steps"));
        let marks = lines.take(7).filter_map(|line| line.chars().nth(LABEL));
        marks.collect::<String>()
    };
    assert_eq!(marks("prepared", 0), "·······");
    assert_eq!(marks("running", 0), "▶······");
    assert_eq!(marks("paused", 5), "✓✓✓✓✓▶·");
    assert_eq!(marks("promoting", 5), "✓✓✓✓✓✓▶");
    assert_eq!(marks("promoted", 5), "✓✓✓✓✓✓✓");
    // Promoted before its time.
    assert_eq!(marks("promoting", 2), "✓✓✓–––▶");
    assert_eq!(marks("promoted", 2), "✓✓✓–––✓");
    assert_eq!(marks("rolling_back", 2), "✓✓✗····");
    assert_eq!(marks("aborted", 0), "·······");
}

#[test]
fn a_bar_shows_whatever_is_not_nothing() {
    let full = |fraction| bar(fraction, 10, Style::new())[0].width();
    let found = [-1.0, 0.0, 0.001, 0.26, 0.999, 1.0, 7.0].map(full);
    assert_eq!(found, [0, 0, 1, 3, 10, 10, 10]);
    // An e-value of 0, or none at all.
    assert_eq!([f64::NEG_INFINITY, f64::NAN].map(full), [0, 0]);
}

#[test]
fn a_change_is_one_line() {
    let view = |changes: &[(&str, Value)]| line_with_waits(&ask::read(&with(changes)).unwrap());
    assert_eq!(
        view(&[]),
        "helpdesk  canary  step 3 of 6 (analyse: 200 requests, at most 10m)  weight 5 %"
    );
    let promoting = [
        ("state", json!("promoting")),
        ("phase", json!("promoting")),
        ("weight", json!(100.0)),
    ];
    assert_eq!(view(&promoting), "helpdesk  promoting  weight 100 %");
    let why = json!({ "why": "gate", "because": ["an evaluation of v2", "a person"] });
    let paused = [
        ("state", json!("paused")),
        ("phase", json!("paused")),
        ("why", why),
        ("waits_for", json!("a person, to resume or to take it back")),
    ];
    assert_eq!(
        view(&paused),
        "helpdesk  paused  step 3 of 6 (analyse: 200 requests, at most 10m)  weight 5 %  \
         the approval gate is closed: an evaluation of v2; a person  waits for a person, to resume or to take it back"
    );
    let by_hand = [
        ("state", json!("paused")),
        ("phase", json!("paused")),
        ("why", json!({ "why": "person" })),
        ("paused_by", json!("ada")),
        ("paused_because", json!("lunch")),
        ("waits_for", json!("a person")),
    ];
    assert_eq!(
        view(&by_hand),
        "helpdesk  paused  step 3 of 6 (analyse: 200 requests, at most 10m)  weight 5 %  \
         ada paused it: lunch  waits for a person"
    );
    let over = [
        ("state", json!("rolled_back")),
        ("phase", json!("rolled_back")),
        ("ended_because", json!("alice: wrong tickets")),
    ];
    assert_eq!(view(&over), "helpdesk  rolled_back  alice: wrong tickets");
}

/// Whoever watches is told by these when to stop, and with which exit status.
#[test]
fn every_end_is_known() {
    let end = |changes: &[(&str, Value)]| ask::read::<View>(&with(changes)).unwrap().end();
    let at = ("finished_at", json!("2026-11-26T18:21:12.000000Z"));
    assert_eq!(end(&[]), None);
    assert_eq!(end(&[("phase", json!("promoting"))]), None);
    assert_eq!(end(&[("phase", json!("rolling_back"))]), None);
    assert_eq!(end(&[("phase", json!("promoted"))]), Some(End::Promoted));
    for phase in ["rolled_back", "aborted"] {
        assert_eq!(end(&[("phase", json!(phase))]), Some(End::NotPromoted));
    }
    // Of orders that never became a release.
    for state in ["rejected", "aborted", "rollback_failed"] {
        let over = [("phase", Value::Null), ("state", json!(state)), at.clone()];
        assert_eq!(end(&over), Some(End::NotPromoted), "{state}");
    }
}
