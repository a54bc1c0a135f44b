#![expect(clippy::unwrap_used, reason = "tests")]

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::cli::release::ask;
use crate::cli::release::page::tests::{canary, evidence};
use crate::cli::release::page::text;

fn state(phase: &Value) -> Value {
    let mut state = json!({
        "step": 2, "passed": false, "since": "2026-11-26T18:20:00.000000Z", "share": 50_000, "shadow": 0
    });
    state["phase"] = phase.clone();
    state
}

fn decision(second: u32, kind: &str, action: &Value, phase: &Value) -> Value {
    json!({
        "id": "rdc_1",
        "release": "wo_0199",
        "at": format!("2026-11-26T18:20:{second:02}.123456Z"),
        "actor": "system: work orders",
        "kind": kind,
        "action": action,
        "reason": null,
        "state": state(phase),
        "evidence": null
    })
}

fn read(items: &[Value]) -> Vec<Decision> {
    items.iter().map(|it| ask::read(it).unwrap()).collect()
}

#[test]
fn each_decision_stands_with_its_evidence() {
    let running = json!({ "phase": "running" });
    let why = json!({ "why": "breach", "because": "slow_ttft over 800ms, compared with stable: e-value 5.210e2 reached 500" });
    let mut taken_back = decision(
        9,
        "action",
        &json!({ "action": "roll_back", "why": why }),
        &json!({ "phase": "rolling_back", "why": why }),
    );
    taken_back["actor"] = json!("analysis");
    taken_back["evidence"] = evidence();
    let mut refused = decision(8, "refused", &Value::Null, &running);
    refused["actor"] = json!("alice");
    refused["reason"] = json!("an objective is broken: roll back");
    let mut first = decision(
        1,
        "action",
        &json!({ "action": "enter", "step": 0, "share": 0, "shadow": 200_000 }),
        &running,
    );
    // Before the first request there is nothing to tell of each objective.
    first["evidence"] = evidence();
    first["evidence"]["verdict"] = json!("no_data");
    first["evidence"]["requests"] = json!({ "stable": 0, "candidate": 0 });
    let items = [
        first,
        decision(
            2,
            "action",
            &json!({ "action": "enter", "step": 1, "share": 50_000, "shadow": 0 }),
            &running,
        ),
        refused,
        taken_back,
        decision(
            10,
            "action",
            &json!({ "action": "finish" }),
            &json!({ "phase": "rolled_back", "why": why }),
        ),
    ];
    let view = ask::read(&canary()).unwrap();
    assert_snapshot!(text(&replay(&view, &read(&items))));
}

#[test]
fn a_release_without_decisions_says_so() {
    let view = ask::read(&canary()).unwrap();
    assert!(text(&replay(&view, &[])).ends_with("\nNothing has been decided yet."));
}
