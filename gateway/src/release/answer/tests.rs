use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn whole(body: &Value) -> Kept {
    Kept {
        bytes: body.to_string().into_bytes(),
        whole: true,
        ..Kept::default()
    }
}

fn chat(message: &Value) -> Kept {
    whole(&json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
}

fn stream(deltas: &[Value]) -> Kept {
    let event = |delta: &Value| {
        let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        format!("data: {chunk}\n\n")
    };
    let events: String = deltas.iter().map(event).collect();
    Kept {
        bytes: (events + "data: [DONE]\n\n").into_bytes(),
        events: true,
        whole: true,
        ..Kept::default()
    }
}

fn facts(kept: &Kept) -> Facts {
    Facts::of(kept, Some(FinishReason::Stop))
}

#[test]
fn texts_are_read_whole_and_from_streams() {
    let answer = json!({"role": "assistant", "content": "Hello 你好"});
    assert_eq!(Said::read(&chat(&answer)).text, "Hello 你好");
    let pieces = [
        json!({"role": "assistant", "content": ""}),
        json!({"content": "Hello "}),
        json!({"content": "你好"}),
        json!({}),
    ];
    assert_eq!(Said::read(&stream(&pieces)).text, "Hello 你好");
    let completion = whole(&json!({"choices": [
        {"index": 1, "text": "another"}, {"index": 0, "text": "the first"}]}));
    assert_eq!(Said::read(&completion).text, "the first");
}

#[test]
fn calls_are_read_whole_and_from_fragments() {
    let calls = json!({"content": null, "tool_calls": [
        {"function": {"name": "f", "arguments": "{\"x\": 1}"}},
        {"function": {"name": "g", "arguments": "{}"}}]});
    let said = Said::read(&chat(&calls));
    assert_eq!(said.into_text(), "f({\"x\": 1})\ng({})");
    let fragments = [
        json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\": "}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        json!({"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "{}"}}]}),
    ];
    let said = Said::read(&stream(&fragments));
    assert_eq!(said.into_text(), "f({\"x\": 1})\ng({})");
}

#[test]
fn nothing_said_is_empty_unless_it_may_come_later() {
    assert!(facts(&chat(&json!({"content": " \n"}))).empty);
    assert!(facts(&stream(&[json!({"role": "assistant"})])).empty);
    assert!(!facts(&chat(&json!({"content": "a"}))).empty);
    let call =
        json!({"content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]});
    assert!(!facts(&chat(&call)).empty);
    let mut cut = stream(&[json!({"reasoning_content": "Hmm"})]);
    cut.whole = false;
    assert!(!facts(&cut).empty);
    // No choices at all: an embedding.
    assert_eq!(facts(&whole(&json!({"data": []}))), Facts::default());
}

#[test]
fn refusals_are_told_by_the_protocol_or_by_how_they_begin() {
    for refusal in [
        json!({"content": "I\u{2019}m sorry, but I can\u{2019}t help with that."}),
        json!({"content": "很抱歉，我无法回答这个问题。"}),
        json!({"content": "I'm not able to do that."}),
        json!({"content": null, "refusal": "No."}),
    ] {
        assert!(facts(&chat(&refusal)).refused, "{refusal}");
    }
    let filtered =
        json!({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]});
    assert!(facts(&whole(&filtered)).refused);
    for answer in ["You can cancel it under Settings.", "请在设置中关闭。", ""] {
        assert!(
            !facts(&chat(&json!({"content": answer}))).refused,
            "{answer}"
        );
    }
    let late = format!("{} I cannot help", "x".repeat(OPENING));
    assert!(!facts(&chat(&json!({"content": late}))).refused);
}

#[test]
fn json_that_was_asked_for_must_be_json() {
    let asked = |content: &str| Kept {
        structured: true,
        ..chat(&json!({"content": content}))
    };
    assert!(!facts(&asked("{\"a\": [1]}")).violation);
    assert!(facts(&asked("{\"a\": [1")).violation);
    assert!(facts(&asked("Sure! {}")).violation);
    // Cut short is not wrong.
    assert!(!Facts::of(&asked("{\"a\": ["), Some(FinishReason::Length)).violation);
    assert!(!facts(&chat(&json!({"content": "no JSON"}))).violation);
    let call = |arguments| {
        chat(&json!({"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}))
    };
    assert!(facts(&call("{\"x\": }")).violation);
    assert!(!facts(&call("{\"x\": 1}")).violation);
}

proptest! {
    #[test]
    fn rubbish_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), events in any::<bool>(), cut in 0_usize..200) {
        let pieces = [json!({"content": "a"}), json!({"tool_calls": [{"index": 1_u64 << 40, "function": {"arguments": "{"}}]})];
        let mut kept = stream(&pieces);
        kept.bytes.truncate(cut);
        kept.bytes.extend(bytes);
        kept.events = events;
        _ = facts(&kept);
        _ = Said::read(&kept).into_text();
    }
}
