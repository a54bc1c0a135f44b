#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use sluice_engine::SubmitError;

use super::{ApiError, RateLimit};

fn object(error: &ApiError) -> Value {
    serde_json::from_str::<Value>(&error.to_json()).unwrap()["error"].take()
}

#[test]
fn the_wire_form_is_openais() {
    let error = ApiError::missing("messages[2].content");
    assert_eq!(
        object(&error),
        json!({
            "message": "Missing required parameter: 'messages[2].content'.",
            "type": "invalid_request_error",
            "param": "messages[2].content",
            "code": "missing_required_parameter",
        })
    );
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn too_long_a_prompt_names_the_field_and_the_sum() {
    let error = ApiError::from_submit(
        SubmitError::TooLong {
            prompt: 90,
            requested: 110,
            limit: 100,
        },
        "messages",
    );
    let object = object(&error);
    assert_eq!(object["code"], "context_length_exceeded");
    assert_eq!(object["param"], "messages");
    let message = object["message"].as_str().unwrap();
    assert!(message.contains("100 tokens"), "{message}");
    assert!(
        message.contains("(90 in the messages, 20 in the completion)"),
        "{message}"
    );
}

#[test]
fn every_refusal_of_the_engine_has_its_status() {
    let cases = [
        (
            SubmitError::QueueFull {
                waiting: 3,
                retry_after: Duration::from_millis(2500),
            },
            503,
            Some("3"),
        ),
        (
            SubmitError::DeadlineUnmeetable {
                expected_wait: Duration::from_millis(1),
            },
            503,
            Some("1"),
        ),
        (SubmitError::Unavailable("unloading".into()), 503, Some("1")),
        (
            SubmitError::Invalid {
                param: "logit_bias",
                message: "no".into(),
            },
            400,
            None,
        ),
    ];
    for (error, status, retry) in cases {
        let response = ApiError::from_submit(error.clone(), "prompt").into_response();
        assert_eq!(response.status().as_u16(), status, "{error:?}");
        let found = response.headers().get("retry-after");
        assert_eq!(
            found.map(|value| value.to_str().unwrap()),
            retry,
            "{error:?}"
        );
    }
}

#[test]
fn rates_carry_openais_type() {
    let wait = Duration::from_secs(7);
    let error = ApiError::rate_limited(RateLimit::Tokens, "slow down", wait);
    assert_eq!(object(&error)["type"], "tokens");
    assert_eq!(object(&error)["code"], "rate_limit_exceeded");
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[test]
fn long_names_are_not_repeated_whole() {
    let error = ApiError::model_not_found(&"é".repeat(100_000));
    assert!(error.message().len() < 400);
}
