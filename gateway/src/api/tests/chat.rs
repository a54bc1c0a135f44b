use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};
use sluice_engine::backend::fake::{Failure, FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;

use super::rig::{END, Rig, chat, joined};

#[tokio::test]
async fn a_whole_answer() {
    let rig = Rig::saying("Hello 你好!").await;
    let answer = rig.chat(json!({"service_tier": "default"})).await;
    assert_json_snapshot!("chat_whole", answer.stable());
}

#[tokio::test]
async fn a_stream() {
    let rig = Rig::saying("é\"\n").await;
    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = rig.chat(body).await;
    assert_snapshot!("chat_stream", answer.stable_events());
    assert_eq!(answer.headers["cache-control"], "no-cache");
    assert_eq!(answer.headers["x-accel-buffering"], "no");
}

#[tokio::test]
async fn every_answer_says_who_answered() {
    let rig = Rig::saying("Hi").await;
    let body = chat(&json!({})).to_string();
    let answer = rig
        .post_with("/v1/chat/completions", &[("x-request-id", "mine")], body)
        .await;
    assert_eq!(answer.headers["x-request-id"], "mine");
    assert_eq!(answer.headers["x-sluice-revision"], "r1");
    assert!(answer.headers.contains_key("openai-processing-ms"));
}

#[tokio::test]
async fn logprobs_come_with_bytes_and_alternatives() {
    let rig = Rig::saying("ab").await;
    let body = json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 2});
    let whole = rig.chat(body.clone()).await.stable();
    assert_json_snapshot!("chat_logprobs", whole["choices"][0]["logprobs"]);
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = rig.chat(streamed).await.events();
    let entries: Vec<&Value> = events
        .iter()
        .filter_map(|event| event.pointer("/choices/0/logprobs/content")?.as_array())
        .flatten()
        .collect();
    let all = whole["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(entries, all.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn stop_strings_never_leak() {
    let rig = Rig::saying("one two three").await;
    for stream in [false, true] {
        let answer = rig.chat(json!({"stop": ["two"], "stream": stream})).await;
        let (text, reason) = if stream {
            let events = answer.events();
            let reason = events.last().unwrap()["choices"][0]["finish_reason"].clone();
            (joined(&events, 0, "/delta/content"), reason)
        } else {
            let choice = answer.json()["choices"][0].take();
            let text = choice["message"]["content"].as_str().unwrap().to_owned();
            (text, choice["finish_reason"].clone())
        };
        assert_eq!((text.as_str(), reason), ("one ", json!("stop")));
    }
}

#[tokio::test]
async fn limits_end_with_length_and_flush_what_was_held() {
    let rig = Rig::saying("one two three").await;
    let answer = rig
        .chat(json!({"max_completion_tokens": 5, "stop": ["twenty"]}))
        .await
        .json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["message"]["content"], "one t");
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn n_choices_stream_side_by_side_and_share_one_prompt() {
    let rig = Rig::saying("Hello").await;
    let whole = rig.chat(json!({"n": 3})).await.json();
    let alone = rig.chat(json!({})).await.json();
    assert_eq!(
        whole["usage"]["prompt_tokens"],
        alone["usage"]["prompt_tokens"]
    );
    let indices: Vec<_> = whole["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["index"].clone())
        .collect();
    assert_eq!(indices, [0, 1, 2]);
    let events = rig.chat(json!({"n": 3, "stream": true})).await.events();
    for index in 0..3 {
        assert_eq!(joined(&events, index, "/delta/role"), "assistant");
        assert_eq!(joined(&events, index, "/delta/content"), "Hello");
        assert_eq!(joined(&events, index, "/finish_reason"), "stop");
    }
}

fn tools() -> Value {
    let function = |name| {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object",
            "properties": {"x": {"type": "integer"}}, "required": ["x"]}}})
    };
    json!([function("f"), function("g")])
}

#[tokio::test]
async fn tool_calls_are_told_apart_from_text() {
    let call = "I call.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\
        <tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": 2}}\n</tool_call>";
    let rig = Rig::saying(call).await;
    let whole = rig.chat(json!({"tools": tools()})).await;
    assert_json_snapshot!("chat_tool_calls", whole.stable()["choices"]);
    let streamed = rig.chat(json!({"tools": tools(), "stream": true})).await;
    let events = streamed.events();
    assert_eq!(joined(&events, 0, "/finish_reason"), "tool_calls");
    let mut arguments = [String::new(), String::new()];
    for call in events
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"))
    {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        arguments[index] += call["function"]["arguments"].as_str().unwrap();
        if let Some(name) = call["function"].get("name") {
            assert_eq!(name, ["f", "g"][index]);
            assert_eq!(
                (&call["type"], &call["id"]),
                (&json!("function"), &json!("call_…"))
            );
        }
    }
    assert_eq!(arguments, ["{\"x\": 1}", "{\"x\": 2}"]);
    let one = rig
        .chat(json!({"tools": tools(), "parallel_tool_calls": false}))
        .await
        .json();
    assert_eq!(
        one["choices"][0]["message"]["tool_calls"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let none = rig
        .chat(json!({"tools": tools(), "tool_choice": "none"}))
        .await
        .json();
    assert_eq!(none["choices"][0]["message"]["content"], call);
}

#[tokio::test]
async fn a_call_of_an_undeclared_tool_is_a_call() {
    let call = "Well.<tool_call>\n{\"name\": \"h\", \"arguments\": {\"x\": 1}}\n</tool_call>";
    let rig = Rig::saying(call).await;
    let whole = rig.chat(json!({"tools": tools()})).await.json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], "Well.");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"],
        json!({"name": "h", "arguments": "{\"x\": 1}"})
    );
    assert_eq!(choice["finish_reason"], "tool_calls");
    let streamed = rig.chat(json!({"tools": tools(), "stream": true})).await;
    let events = streamed.events();
    assert_eq!(joined(&events, 0, "/delta/content"), "Well.");
    let names = joined(&events, 0, "/delta/tool_calls/0/function/name");
    assert_eq!(names, "h");
}

#[tokio::test]
async fn a_call_cut_by_the_length_limit_shows_no_markup() {
    let call = "Well.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
    let rig = Rig::saying(call).await;
    // A token is a byte here; from the complete mark on.
    for length in "Well.<tool_call>".len()..call.len() {
        let body = json!({"tools": tools(), "max_tokens": length});
        let whole = rig.chat(body.clone()).await.json();
        let choice = &whole["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap();
        assert_eq!(
            (content.trim_end(), &choice["finish_reason"]),
            ("Well.", &json!("length"))
        );
        let calls = choice["message"]["tool_calls"].as_array();
        assert_eq!(
            calls.is_some(),
            length >= call.find("f\"").unwrap() + 2,
            "{length}"
        );
        let mut body = body;
        body["stream"] = json!(true);
        let events = rig.chat(body).await.events();
        assert_eq!(joined(&events, 0, "/delta/content"), content);
        assert_eq!(joined(&events, 0, "/finish_reason"), "length");
        let arguments = joined(&events, 0, "/delta/tool_calls/0/function/arguments");
        let function = |calls: &Vec<Value>| calls[0]["function"]["arguments"].clone();
        assert_eq!(calls.map_or(json!(""), function), arguments);
        assert!("{\"x\": 1}".starts_with(&arguments), "{arguments}");
    }
}

/// Whatever the model would say, the grammar makes it a call.
#[tokio::test]
async fn forced_calls_hold_with_any_weights() {
    let tokens = FakeTokens::Hash { low: 0, high: 256 };
    let rig = Rig::start(tokens, GeneratorOptions::default(), 4).await;
    let choice = json!({"type": "function", "function": {"name": "g"}});
    let tool = json!([{"type": "function", "function": {"name": "g", "parameters": {
        "type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"],
        "additionalProperties": false}}}]);
    let body = json!({"tools": tool, "tool_choice": choice, "parallel_tool_calls": false});
    let answer = rig.chat(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let message = answer.json()["choices"][0]["message"].take();
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!((calls.len(), &message["content"]), (1, &Value::Null));
    assert_eq!(calls[0]["function"]["name"], "g");
    let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert!(["a", "b"].contains(&arguments["x"].as_str().unwrap()));
}

#[tokio::test]
async fn schemas_hold_with_any_weights() {
    let tokens = FakeTokens::Hash { low: 0, high: 256 };
    let rig = Rig::start(tokens, GeneratorOptions::default(), 4).await;
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "s", "strict": true, "schema": schema}});
    let answer = rig.chat(json!({"response_format": format})).await.json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["ok"].is_boolean());
    let bad = json!({"type": "json_schema", "json_schema": {"name": "s",
        "schema": {"type": "no such type"}}});
    let refused = rig.chat(json!({"response_format": bad})).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.error()["param"], "response_format");
}

#[tokio::test]
async fn a_failure_before_the_first_token_has_a_status() {
    let rig = Rig::saying("Hello").await;
    for stream in [false, true] {
        rig.control.fail_next(Failure::Step);
        let answer = rig.chat(json!({"stream": stream})).await;
        assert_eq!(answer.status, 500, "{}", answer.text);
        assert_eq!(answer.error()["type"], "server_error");
    }
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_an_event() {
    let rig = Rig::saying("Hello").await;
    rig.control.fail_at(rig.control.steps() + 2, Failure::Step);
    let answer = rig.chat(json!({"stream": true})).await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    assert_eq!(
        joined(&events[..events.len() - 1], 0, "/delta/content"),
        "He"
    );
    assert_eq!(events.last().unwrap()["error"]["type"], "server_error");
}

#[tokio::test]
async fn a_deadline_before_the_first_token_is_a_504() {
    let rig = Rig::saying("Hello").await;
    rig.control.hold();
    let body = chat(&json!({"stream": true})).to_string();
    let headers = [("x-request-timeout-ms", "30")];
    let answer = rig.post_with("/v1/chat/completions", &headers, body).await;
    rig.control.release();
    assert_eq!(answer.status, 504, "{}", answer.text);
    assert_eq!(answer.error()["code"], "timeout");
}

#[tokio::test]
async fn a_full_queue_is_a_503_at_once() {
    let options = GeneratorOptions {
        max_waiting: 2,
        ..GeneratorOptions::default()
    };
    let rig = Rig::start(FakeTokens::text("Hello", END), options, 1).await;
    rig.control.hold();
    let second = async {
        while rig.model.generator.stats().waiting() + rig.model.generator.stats().running() < 2 {
            tokio::task::yield_now().await;
        }
        let answer = rig.chat(json!({"n": 2})).await;
        rig.control.release();
        answer
    };
    let (first, answer) = tokio::join!(rig.chat(json!({"n": 2})), second);
    assert_eq!(first.status, 200);
    assert_eq!(answer.status, 503);
    assert!(
        answer.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert_eq!(answer.error()["code"], "overloaded");
}

#[tokio::test]
async fn hanging_up_cancels() {
    // Without the cancellation it would run for eight seconds.
    let backend = FakeOptions {
        tokens: FakeTokens::Hash { low: 97, high: 123 },
        step_time: Duration::from_millis(20),
        ..FakeOptions::default()
    };
    let rig = Rig::with(backend, GeneratorOptions::default()).await;
    let body = chat(&json!({"stream": true, "max_tokens": 400})).to_string();
    let mut response = rig
        .send(Method::POST, "/v1/chat/completions", &[], body)
        .await;
    response.frame().await.unwrap().unwrap();
    drop(response);
    while rig.model.generator.stats().running() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(rig.model.generator.stats().snapshot().generated_tokens < 400);
}

#[tokio::test]
async fn messages_reach_the_template_with_their_calls() {
    let rig = Rig::saying("ok").await;
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]);
    let body = json!({"model": "fake", "messages": messages});
    let tokens = rig.post("/tokenize", &body).await.json();
    let ids = json!({"model": "fake", "tokens": tokens["tokens"]});
    let prompt = rig.post("/detokenize", &ids).await.json();
    assert_snapshot!("chat_prompt", prompt["prompt"].as_str().unwrap());
    let answer = rig.chat(json!({"messages": messages})).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], tokens["count"]);
}
