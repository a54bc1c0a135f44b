#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn what_commands_a_terminal_is_shown_escaped() {
    for (written, shown) in [
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("\x1b]0;pwn\x07", "\\u001b]0;pwn\\u0007"),
        ("8 bit \u{9b}2J", "8 bit \\u009b2J"),
        ("over\rwritten", "over\\u000dwritten"),
        ("back\x08\x7f", "back\\u0008\\u007f"),
        ("txt.\u{202e}exe", "txt.\\u202eexe"),
        ("\u{2066}a\u{2069}", "\\u2066a\\u2069"),
        ("hid\u{200b}den\u{e0041}", "hid\\u200bden\\udb40\\udc41"),
        ("two\nlines\tand tabs", "two\nlines\tand tabs"),
        ("漢字 é 👩\u{200d}💻", "漢字 é 👩\u{200d}💻"),
    ] {
        assert_eq!(visible(written), shown);
    }
    assert_eq!(in_one_line("a\nb"), "a\\u000ab");
}

#[test]
fn a_json_document_says_the_same_when_escaped() {
    let written = serde_json::json!({"a\u{9b}": "\x1b[2J\u{202e}\u{7f}\u{e0041}\n\t漢"});
    let shown = serde_json::to_string_pretty(&written).unwrap();
    let shown = visible(&shown);
    assert!(!shown.chars().any(|c| is_unsafe(c) && c != '\n'), "{shown}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
        written
    );
}
