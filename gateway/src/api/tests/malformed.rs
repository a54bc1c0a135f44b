//! Bad requests, each with the status, `type`, `code` and `param` that OpenAI's
//! clients expect. (Every field's own mistakes are in the parsers' tests.)

use http::Method;
use serde_json::{Value, json};

use super::rig::{Rig, chat};

const CHAT: &str = "/v1/chat/completions";

struct Case {
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    code: Value,
    param: Value,
}

fn case(
    path: &'static str,
    body: impl Into<Vec<u8>>,
    status: u16,
    code: Value,
    param: Value,
) -> Case {
    Case {
        path,
        body: body.into(),
        status,
        code,
        param,
    }
}

fn refused_chat(extra: &Value, code: &str, param: &str) -> Case {
    let body = chat(extra).to_string();
    case(CHAT, body, 400, json!(code), json!(param))
}

/// Well-formed, and still impossible.
fn impossible() -> Vec<Case> {
    let chat = |extra: Value, code: &str, param: &str| refused_chat(&extra, code, param);
    vec![
        chat(
            json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "loop", "schema": {"$ref": "#"}}}}),
            "invalid_value",
            "response_format",
        ),
        chat(
            json!({"tool_choice": "required", "tools": [{"type": "function", "function":
                {"name": "f", "parameters": {"properties": {"a": {"$ref": "#/properties/a"}}}}}]}),
            "invalid_value",
            "tools[0].function.parameters",
        ),
        case(
            "/v1/completions",
            json!({"model": "fake", "prompt": vec!["x"; 100], "n": 100}).to_string(),
            400,
            json!("invalid_value"),
            json!("n"),
        ),
        case(
            CHAT,
            r#"{"model":"fake","model":"nope","messages":[]}"#,
            400,
            json!("invalid_value"),
            json!("model"),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let bad = |body: &[u8]| case(CHAT, body, 400, Value::Null, Value::Null);
    let chat = |extra: Value, code: &str, param: &str| refused_chat(&extra, code, param);
    let deep = format!("{{\"model\":\"fake\",\"messages\":{}", "[".repeat(200_000));
    vec![
        bad(b""),
        bad(b"{"),
        bad(b"[]"),
        bad(b"null"),
        bad(b"\xff\xfe"),
        bad(deep.as_bytes()),
        bad(br#"{"model":"fake","messages":[{"role":"user","content":"\ud800"}]}"#),
        bad(br#"{"model":"fake","messages":[{"role":"user","content":"x"}],"seed":1e999}"#),
        bad(b"{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}"),
        bad(b"{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"\x00\"}]}"),
        chat(
            json!({"model": null}),
            "missing_required_parameter",
            "model",
        ),
        chat(json!({"model": 5}), "invalid_type", "model"),
        chat(
            json!({"messages": null}),
            "missing_required_parameter",
            "messages",
        ),
        chat(json!({"messages": []}), "empty_array", "messages"),
        chat(
            json!({"temperature": 9}),
            "decimal_above_max_value",
            "temperature",
        ),
        chat(
            json!({"logit_bias": {"999999": 1}}),
            "invalid_value",
            "logit_bias",
        ),
        chat(
            json!({"max_tokens": 100_000}),
            "context_length_exceeded",
            "messages",
        ),
        chat(
            json!({"messages": [{"role": "user", "content": "word ".repeat(20_000)}]}),
            "context_length_exceeded",
            "messages",
        ),
        case(
            CHAT,
            r#"{"model":"nope"}"#,
            404,
            json!("model_not_found"),
            json!("model"),
        ),
        case(
            "/v1/completions",
            r#"{"model":"fake","prompt":[300]}"#,
            400,
            json!("invalid_value"),
            json!("prompt[0]"),
        ),
        case(
            "/v1/completions",
            json!({"model": "fake", "prompt": vec![1; 600]}).to_string(),
            400,
            json!("context_length_exceeded"),
            json!("prompt"),
        ),
        case(
            "/v1/embeddings",
            r#"{"model":"fake","input":"x"}"#,
            400,
            json!("unsupported_value"),
            json!("model"),
        ),
        case(
            "/v1/rerank",
            r#"{"model":"fake","query":"x","documents":["y"]}"#,
            400,
            json!("unsupported_value"),
            json!("model"),
        ),
        case("/v1/responses", "{}", 404, Value::Null, Value::Null),
        case("/v1/nothing", "{}", 404, Value::Null, Value::Null),
        case(
            "/v1/models",
            "{}",
            405,
            json!("method_not_supported"),
            Value::Null,
        ),
    ]
}

#[tokio::test]
async fn each_has_openais_error() {
    let rig = Rig::saying("Hello").await;
    for case in cases().into_iter().chain(impossible()) {
        let shown = String::from_utf8_lossy(&case.body[..case.body.len().min(90)]).into_owned();
        let answer = rig.post_with(case.path, &[], case.body).await;
        assert_eq!(answer.status, case.status, "{shown}: {}", answer.text);
        let error = answer.error();
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert_eq!(error["code"], case.code, "{shown}: {error}");
        assert_eq!(error["param"], case.param, "{shown}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{shown}");
    }
    assert_eq!(rig.chat(json!({})).await.status, 200, "the server goes on");
}

#[tokio::test]
async fn a_get_where_a_post_belongs_is_a_405() {
    let rig = Rig::saying("Hello").await;
    let answer = rig.get(CHAT).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.error()["code"], "method_not_supported");
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn a_compressed_body_is_a_415_that_says_what_is_taken() {
    let rig = Rig::saying("Hello").await;
    let body = chat(&json!({})).to_string();
    let gzip = [("content-encoding", "gzip")];
    let answer = rig.post_with(CHAT, &gzip, body.clone()).await;
    assert_eq!(answer.status, 415);
    assert_eq!(answer.error()["code"], "unsupported_content_encoding");
    assert_eq!(answer.headers["accept-encoding"], "identity");
    let plain = [("content-encoding", "identity")];
    assert_eq!(rig.post_with(CHAT, &plain, body).await.status, 200);
}

#[tokio::test]
async fn other_content_types_are_a_415_and_lazy_ones_are_taken() {
    let rig = Rig::saying("Hello").await;
    let body = chat(&json!({})).to_string();
    for (content_type, status) in [
        ("application/json; charset=utf-8", 200),
        ("text/plain", 200),
        ("multipart/form-data; boundary=x", 415),
        ("application/xml", 415),
    ] {
        // Official clients send a key, needed or not: so this came from no web page.
        let headers = [
            ("content-type", content_type),
            ("authorization", "Bearer unused"),
        ];
        let answer = rig.send(Method::POST, CHAT, &headers, body.clone()).await;
        assert_eq!(answer.status(), status, "{content_type}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413() {
    let rig = Rig::saying("Hello").await;
    let limit = rig.gateway.config().server.max_body;
    let answer = rig.post_with(CHAT, &[], vec![b' '; limit + 1]).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.error()["code"], "request_too_large");
}
