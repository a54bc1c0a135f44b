#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::take_messages;
use crate::api::fields::Fields;
use crate::error::ApiError;

fn take(messages: &Value) -> Result<Vec<Value>, ApiError> {
    let body = json!({"messages": messages}).to_string();
    take_messages(&mut Fields::parse(body.as_bytes())?)
}

#[test]
fn messages_take_the_form_of_templates() {
    let messages = take(&json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "not json"}},
            {"id": "call_3", "type": "function", "function": {"name": "h", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        {"role": "assistant", "content": null, "refusal": "no"},
        {"role": "assistant", "content": "ok", "audio": null, "unknown": 1},
    ]))
    .unwrap();
    let call = |id: &str, name: &str, arguments: Value| {
        json!({"id": id, "type": "function",
            "function": {"name": name, "arguments": arguments}})
    };
    assert_eq!(
        Value::Array(messages),
        json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                call("call_1", "f", json!("{\"x\": 1}")),
                call("call_2", "g", json!("not json")),
                call("call_3", "h", json!("")),
            ]},
            {"role": "tool", "content": "done", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "no"},
            {"role": "assistant", "content": "ok"},
        ])
    );
}

/// Messages, the field at fault, the code.
type Case = (Value, &'static str, &'static str);

fn refused(cases: impl IntoIterator<Item = Case>) {
    for (messages, param, code) in cases {
        let error = take(&messages).unwrap_err();
        assert_eq!(error.param(), Some(param), "{messages}");
        let object: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(object["error"]["code"], code, "{messages}");
    }
}

#[test]
fn each_mistake_names_its_path() {
    refused([
        (json!([]), "messages", "empty_array"),
        (json!("hi"), "messages", "invalid_type"),
        (json!(["hi"]), "messages[0]", "invalid_type"),
        (
            json!([{"content": "x"}]),
            "messages[0].role",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "wizard", "content": "x"}]),
            "messages[0].role",
            "invalid_value",
        ),
        (
            json!([{"role": "function", "content": "x"}]),
            "messages[0].role",
            "invalid_value",
        ),
        (
            json!([{"role": "user"}]),
            "messages[0].content",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "assistant"}]),
            "messages[0].content",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "user", "content": 5}]),
            "messages[0].content",
            "invalid_type",
        ),
        (
            json!([{"role": "user", "content": []}]),
            "messages[0].content",
            "empty_array",
        ),
        (
            json!([{"role": "user", "content": ["x"]}]),
            "messages[0].content[0]",
            "invalid_type",
        ),
        (
            json!([{"role": "user", "content": [{"text": "x"}]}]),
            "messages[0].content[0].type",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            json!([{"role": "user", "content": [{"type": "smell"}]}]),
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            json!([{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}]),
            "messages[1].tool_call_id",
            "missing_required_parameter",
        ),
    ]);
}

#[test]
fn each_mistake_in_a_call_names_its_path() {
    refused([
        (
            json!([{"role": "assistant", "tool_calls": 1}]),
            "messages[0].tool_calls",
            "invalid_type",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{}]}]),
            "messages[0].tool_calls[0].function",
            "missing_required_parameter",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}]),
            "messages[0].tool_calls[0].function.arguments",
            "invalid_type",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "f"}}]}]),
            "messages[0].tool_calls[0].type",
            "invalid_value",
        ),
        (
            json!([{"role": "assistant", "function_call": {"name": "f"}}]),
            "messages[0].function_call",
            "unsupported_parameter",
        ),
        (
            json!([{"role": "user", "content": "x", "name": 1}]),
            "messages[0].name",
            "invalid_type",
        ),
    ]);
}
