#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::form::PromptEnd;
use super::ChatRequest;
use crate::api::fuzz;
use crate::error::ApiError;

fn parse(extra: &Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    ChatRequest::parse(body.to_string().as_bytes())
}

#[test]
fn defaults_are_openais() {
    let request = parse(&json!({})).unwrap();
    assert_eq!(request.sampling.params.temperature, 1.0);
    assert_eq!(request.sampling.n, 1);
    assert_eq!(request.max_tokens, None);
    assert_eq!(request.logprobs, None);
    assert!(request.sampling.stream.is_none());
    assert_eq!((request.form.end, request.echo), (PromptEnd::NewTurn, None));
}

#[test]
fn fields_that_change_nothing_are_ignored() {
    parse(&json!({
        "store": true, "prediction": {"type": "content"}, "reasoning_effort": "none",
        "verbosity": "medium", "safety_identifier": "x", "prompt_cache_key": "y", "whatever": [1],
        "modalities": ["text"],
    }))
    .unwrap();
}

#[test]
fn limits_have_two_names() {
    let limit = |extra: Value| parse(&extra).unwrap().max_tokens;
    assert_eq!(limit(json!({"max_tokens": 5})), Some(5));
    assert_eq!(limit(json!({"max_completion_tokens": 6})), Some(6));
    assert_eq!(
        limit(json!({"max_tokens": 6, "max_completion_tokens": 6})),
        Some(6)
    );
    assert_eq!(limit(json!({"max_tokens": null})), None);
}

#[test]
fn each_mistake_names_its_path() {
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let cases = [
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 6}),
            "max_tokens",
        ),
        (
            json!({"max_completion_tokens": "x"}),
            "max_completion_tokens",
        ),
        (json!({"logprobs": 1}), "logprobs"),
        (json!({"top_logprobs": 1}), "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "x"}}), "audio"),
        (json!({"chat_template_kwargs": 1}), "chat_template_kwargs"),
        (json!({"add_generation_prompt": 1}), "add_generation_prompt"),
        (json!({"verbosity": "low"}), "verbosity"),
        (json!({"echo": 1}), "echo"),
        (
            json!({"tools": [tool], "tool_choice": "required",
                "response_format": {"type": "json_object"}}),
            "tool_choice",
        ),
    ];
    for (extra, param) in cases {
        assert_eq!(parse(&extra).unwrap_err().param(), Some(param), "{extra}");
    }
}

fn valid() -> Value {
    json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
                "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "y"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "text"},
        "stop": ["a"], "logit_bias": {"1": 1}, "stream": true,
        "stream_options": {"include_usage": true}, "temperature": 1, "seed": 1,
        "logprobs": true, "top_logprobs": 2, "max_tokens": 4, "n": 2,
    })
}

proptest! {
    #[test]
    fn mutated_requests_are_read_or_refused(body in fuzz::mutated(valid())) {
        if let Err(error) = ChatRequest::parse(body.to_string().as_bytes()) {
            prop_assert_eq!(error.status().as_u16(), 400);
        }
    }

    #[test]
    fn rubbish_is_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ChatRequest::parse(&body).is_err());
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = valid().to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        _ = ChatRequest::parse(&body);
        body.truncate(cut.index(body.len()));
        prop_assert!(ChatRequest::parse(&body).is_err());
    }
}
