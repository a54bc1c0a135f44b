#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::cli::release::page::tests::canary;

fn view(changes: &[(&str, Value)]) -> View {
    let mut item = canary();
    for (field, value) in changes {
        item[*field] = value.clone();
    }
    ask::read(&item).unwrap()
}

#[test]
fn a_script_ends_with_a_release_that_waits_and_says_for_what() {
    let minute = Duration::from_secs(60);
    let within = Enough {
        until_paused: true,
        within: Some(minute),
    };
    let lacks = "error, compared with stable: 142 of 200 requests judged in this step";
    let running = view(&[("waits_for", json!(lacks))]);
    assert_eq!(within.is_reached(&running, minute / 2), Ok(()));
    let text = within.is_reached(&running, minute).unwrap_err().text;
    assert_eq!(
        text,
        format!("wo_0199 is not over after 1m: canary; it waits for {lacks}")
    );
    assert_eq!(Enough::default().is_reached(&running, minute), Ok(()));

    let paused = view(&[
        ("state", json!("paused")),
        ("phase", json!("paused")),
        (
            "why",
            json!({"why": "inconclusive", "because": "no_data: nobody asked"}),
        ),
        ("waits_for", json!("a person, to resume or to take it back")),
    ]);
    let text = within.is_reached(&paused, Duration::ZERO).unwrap_err().text;
    assert_eq!(
        text,
        "wo_0199 is paused; no_data: nobody asked; it waits for a person, to resume or to take it back"
    );
    assert_eq!(Enough::default().is_reached(&paused, minute), Ok(()));
}
