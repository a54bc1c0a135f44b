//! Answers in one piece as they are read on their way.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_engine::request::FinishReason;

use super::super::scan::Scanner;
use super::super::tally::Tally;

fn scan(pieces: &[&[u8]]) -> (String, Tally) {
    let mut scanner = Scanner::new(Some(Bytes::from_static(b"\"our \\\"desk\\\"\"")));
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&scanner.take(&Bytes::copy_from_slice(piece)));
    }
    (String::from_utf8(out).unwrap(), *scanner.tally())
}

fn used(json: &str) -> (Option<usize>, Option<usize>, Option<usize>) {
    let usage = scan(&[json.as_bytes()]).1.usage.unwrap_or_default();
    (usage.prompt, usage.completion, usage.cached)
}

#[test]
fn usage_counts_wherever_it_stands_and_nowhere_else() {
    let details: serde_json::Map<String, Value> = (0..900)
        .map(|i| (format!("detail_{i}"), json!(i)))
        .collect();
    let usage = json!({
        "total_tokens": 1500, "prompt_tokens_details": {"audio": [1], "cached_tokens": 7},
        "completion_tokens_details": details,
        "completion_tokens": 500, "prompt_tokens": 1000,
    });
    let text = "x".repeat(20_000);
    let choice =
        json!({"message": {"role": "assistant", "content": text, "usage": {"prompt_tokens": 1}}});
    let tail: Vec<u32> = (10_000..13_000).collect();
    for answer in [
        json!({"usage": usage, "choices": [choice]}),
        json!({"choices": [choice], "usage": usage, "tail": tail}),
        json!({"x": {"usage": {"prompt_tokens": 2}}, "usage": usage, "y": [{"usage": {"prompt_tokens": 3}}]}),
        json!({"id": "\"usage\":{\"prompt_tokens\":4}", "usage": usage}),
    ] {
        let pretty = serde_json::to_string_pretty(&answer).unwrap();
        for text in [answer.to_string(), pretty] {
            assert_eq!(
                used(&text),
                (Some(1000), Some(500), Some(7)),
                "{}",
                &text[..80]
            );
        }
    }
    for nothing in [
        r#"{"choices":[{"usage":{"prompt_tokens":1}}],"x":"\"usage\":{\"prompt_tokens\":1}"}"#,
        r#"{"usage":null}"#,
        r#"{"usage":[{"prompt_tokens":1}]}"#,
        r#"[{"usage":{"prompt_tokens":1}}]"#,
        r#""usage""#,
        "",
        "<html>",
    ] {
        assert_eq!(scan(&[nothing.as_bytes()]).1.usage, None, "{nothing}");
    }
    let cohere =
        r#"{"results":[],"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":9}}}"#;
    assert_eq!(used(cohere).0, Some(9));
}

#[test]
fn the_end_and_what_is_said_are_read() {
    let chat = r#"{"choices":[{"message":{"role":"assistant","content":"ab\"c","tool_calls":[{"f":"de"}]},"finish_reason":"length"}]}"#;
    let (_, tally) = scan(&[chat.as_bytes()]);
    assert_eq!(tally.finish, Some(FinishReason::Length));
    // Escapes count as they are written, names within calls as well.
    assert_eq!(tally.bytes, 5 + 3);
    let text = r#"{"choices":[{"text":"abc","logprobs":{"tokens":["abc"]},"finish_reason":null},{"finish_reason":"stop"}]}"#;
    let (_, tally) = scan(&[text.as_bytes()]);
    assert_eq!((tally.bytes, tally.finish), (3, Some(FinishReason::Stop)));
}

#[test]
fn only_the_name_at_the_top_is_another() {
    let answer = r#"{"a":{"model":"x"}, "model" : "th\"eirs","data":[{"model":"x"}],"b":"model"}"#;
    let expected =
        r#"{"a":{"model":"x"}, "model" : "our \"desk\"","data":[{"model":"x"}],"b":"model"}"#;
    assert_eq!(scan(&[answer.as_bytes()]).0, expected);
    for same in [
        r#"{"model":null,"x":["model","y"]}"#,
        r#"{"model":{"a":"b"}}"#,
        "[\"model\"]",
        "{}",
    ] {
        assert_eq!(scan(&[same.as_bytes()]).0, same);
    }
    let mut keeps = Scanner::new(None);
    let whole = Bytes::from_static(answer.as_bytes());
    let same = keeps.take(&whole);
    assert_eq!((&same, same.as_ptr()), (&whole, whole.as_ptr()));
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "usage",
        "model",
        "prompt_tokens",
        "choices",
        "message",
        "content",
        "finish_reason",
        "x\"",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "(\\PC|[\"\\\\{}\\[\\]]){0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..5)
                .prop_map(|them| them.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    /// Whatever an answer holds and however it is cut: all is as it was but the name at the top.
    #[test]
    fn all_passes_but_the_name(
        answer in any_json(),
        pretty in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let text = match pretty {
            true => serde_json::to_string_pretty(&answer).unwrap(),
            false => answer.to_string(),
        };
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (out, tally) = scan(&pieces);
        let mut expected = answer;
        if expected["model"].is_string() {
            expected["model"] = json!("our \"desk\"");
        }
        let found: Value = serde_json::from_str(&out).unwrap();
        prop_assert_eq!(&found, &expected);
        let prompt = match &expected["usage"]["prompt_tokens"] {
            Value::Number(number) => number.as_u64().and_then(|it| usize::try_from(it).ok()),
            _ => None,
        };
        prop_assert_eq!(tally.usage.unwrap_or_default().prompt, prompt);
    }

    #[test]
    fn rubbish_is_survived(pieces in prop::collection::vec("[\"\\\\{}\\[\\]:,a1 ]{0,20}", 0..8)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        _ = scan(&pieces);
    }
}
