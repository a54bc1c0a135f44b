#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;
use crate::cli::release::ask;
use crate::cli::release::page::tests::canary;

fn cells(changes: &[(&str, Value)]) -> Vec<String> {
    let mut item = canary();
    let fields = item.as_object_mut().unwrap();
    // What a list leaves out.
    for left_out in ["steps", "strategy", "evidence"] {
        fields.remove(left_out);
    }
    for (field, value) in changes {
        item[*field] = value.clone();
    }
    let now = "2026-11-26T18:21:12Z".parse().unwrap();
    row(&ask::read(&item).unwrap(), now)
}

#[test]
fn a_row_says_how_long_and_why() {
    assert_eq!(
        cells(&[]),
        [
            "wo_0199",
            "helpdesk",
            "v2-k3x9qa",
            "v1-ab12cd",
            "canary",
            "2026-11-26 18:10:00",
            "11m 12s so far",
            "better answers"
        ]
    );
    let over = [
        ("state", json!("rolled_back")),
        ("stable", Value::Null),
        ("finished_at", json!("2026-11-26T18:10:42.500000Z")),
        ("ended_because", json!("error: ".repeat(20))),
    ];
    let cells = cells(&over);
    assert_eq!(cells[3], "–");
    assert_eq!(cells[6], "42s");
    assert_eq!(cells[7].chars().count(), WIDEST);
    assert!(cells[7].ends_with('…'));
    assert_eq!(cells.len(), HEADINGS.len());
}

#[test]
fn what_it_waits_for_is_a_reason() {
    let waiting = [("waits_for", json!("approval"))];
    assert_eq!(cells(&waiting)[7], "waits for approval");
}
