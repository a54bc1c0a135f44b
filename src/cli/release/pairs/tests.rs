#![expect(clippy::unwrap_used, reason = "tests")]

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::cli::release::ask;

fn kept(text: &str, changes: &[(&str, Value)]) -> Value {
    let mut answer = json!({
        "revision": "v2-k3x9qa", "status": 200, "failed": false, "text": text, "cut": false, "refuses": false,
        "tokens": 12, "finish": "stop", "ttft_us": 12_000, "total_us": 340_000
    });
    for (field, value) in changes {
        answer[*field] = value.clone();
    }
    answer
}

fn pair(request: &str, live: &Value, candidate: &Value) -> Pair {
    let pair = json!({
        "id": "rpr_1",
        "release": "wo_0199",
        "at": "2026-11-26T18:20:00.123456Z",
        "request_id": "req-1",
        "unit": "00ff",
        "agrees": false,
        "similarity": 0.8333,
        "how": "words",
        "request": request,
        "live": live,
        "candidate": candidate
    });
    ask::read_as_it_is(&pair).unwrap()
}

#[test]
fn answers_stand_side_by_side() {
    let request = json!({ "model": "helpdesk", "messages": [
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "My password for VPN no longer works!" }
    ]});
    let live = kept(
        "{\n  \"resource\": \"vpn\",\n  \"urgency\": \"high\"\n}",
        &[("revision", json!("v1-ab12cd"))],
    );
    let candidate = kept(
        "我不能帮您处理这个请求，请联系管理员。",
        &[("cut", json!(true))],
    );
    let broken = kept(
        "",
        &[
            ("failed", json!(true)),
            ("status", json!(502)),
            ("finish", Value::Null),
            ("ttft_us", Value::Null),
        ],
    );
    let all = [
        pair(&request.to_string(), &live, &candidate),
        pair("{\"model\": \"helpd", &live, &broken),
    ];
    assert_snapshot!(pairs(&all, 80));
}

#[test]
fn nothing_kept_is_said() {
    assert_eq!(pairs(&[], 80), "No pairs are kept.");
}

#[test]
fn what_was_asked_is_found_in_each_kind_of_request() {
    assert_eq!(asked(r#"{"prompt": "Once"}"#), "Once");
    assert_eq!(asked(r#"{"input": ["a", "b"]}"#), r#"["a","b"]"#);
    assert_eq!(
        asked(r#"{"messages": [{"content": [{"text": "hi"}]}]}"#),
        r#"[{"text":"hi"}]"#
    );
    assert_eq!(asked(r#"{"other": 1}"#), r#"{"other": 1}"#);
}

/// Whatever a model says, the terminal stays as it is.
#[test]
fn no_answer_commands_the_terminal() {
    let text = pairs(
        &[pair(
            "{}",
            &kept("\u{1b}[2Jgone\r\u{7}", &[]),
            &kept("\u{9b}x", &[]),
        )],
        80,
    );
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(text.contains("[2Jgone"));
}

#[test]
fn lines_break_between_words_and_within_long_ones() {
    assert_eq!(wrapped("aa bb cccc", 8), ["aa bb", "cccc"]);
    assert_eq!(wrapped("abcdefghijkl", 8), ["abcdefgh", "ijkl"]);
    assert_eq!(wrapped("  x\n\ny", 8), ["  x", "", "y"]);
    assert_eq!(wrapped("申请开通系统", 8), ["申请开通", "系统"]);
    assert_eq!(wrapped("abcdefgh ij", 8), ["abcdefgh", "ij"]);
}
