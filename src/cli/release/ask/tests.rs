#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

/// A reason is written by one person and read in the terminals of others.
#[test]
fn texts_cannot_command_a_terminal() {
    let sent = json!({
        "reason": "fine\x1b]0;owned\x07\x1b[2J\u{9b}31m\nDEPLOYMENT  all\tgood",
        "why": { "why": "gate", "because": ["no\rapproval"] },
        "weight": 5.0,
        "stable": null,
    });
    let shown: Value = read(&sent).unwrap();
    let expected = json!({
        "reason": "fine\u{fffd}]0;owned\u{fffd}\u{fffd}[2J\u{fffd}31m DEPLOYMENT  all good",
        "why": { "why": "gate", "because": ["no approval"] },
        "weight": 5.0,
        "stable": null,
    });
    assert_eq!(shown, expected);
}
