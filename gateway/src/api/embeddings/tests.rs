#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{EmbeddingRequest, Encoded, Format, Truncate, check_truncate, encode};
use crate::api::fuzz;
use crate::error::ApiError;

fn parse(extra: &Value) -> Result<EmbeddingRequest, ApiError> {
    let mut body = json!({"model": "m", "input": "x"});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    EmbeddingRequest::parse(body.to_string().as_bytes())
}

#[test]
fn parameters_are_read() {
    let request = parse(
        &json!({"encoding_format": "base64", "dimensions": 3, "user": "u",
        "normalize": false, "truncate": true}),
    )
    .unwrap();
    assert_eq!(
        (request.format, request.dimensions),
        (Format::Base64, Some(3))
    );
    assert_eq!(
        (request.truncate, request.normalize),
        (Truncate::AtLimit, Some(false))
    );
    let truncate = |n| {
        parse(&json!({"truncate_prompt_tokens": n}))
            .unwrap()
            .truncate
    };
    assert_eq!(truncate(-1), Truncate::AtLimit);
    assert_eq!(truncate(9), Truncate::At(9));
    assert!(check_truncate(Truncate::At(512), 256).unwrap());
    assert_eq!(
        check_truncate(Truncate::At(9), 256).unwrap_err().param(),
        Some("truncate_prompt_tokens")
    );
}

#[test]
fn each_mistake_names_its_path() {
    let cases = [
        (json!({"input": null}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ["a", ""]}), "input[1]"),
        (json!({"input": [[]]}), "input[0]"),
        (json!({"input": {}}), "input"),
        (json!({"input": vec!["x"; 2049]}), "input"),
        (json!({"input": ["a", 7]}), "input[1]"),
        (json!({"encoding_format": "int8"}), "encoding_format"),
        (json!({"dimensions": 0}), "dimensions"),
        (
            json!({"truncate_prompt_tokens": -2}),
            "truncate_prompt_tokens",
        ),
        (json!({"user": []}), "user"),
    ];
    for (extra, param) in cases {
        assert_eq!(parse(&extra).unwrap_err().param(), Some(param), "{extra}");
    }
}

#[test]
fn base64_is_little_endian() {
    let Encoded::Base64(text) = encode(vec![1.0, -2.0], Format::Base64) else {
        panic!("base64 was asked for");
    };
    assert_eq!(text, "AACAPwAAAMA=");
}

proptest! {
    #[test]
    fn mutated_requests_are_read_or_refused(body in fuzz::mutated(json!({
        "model": "m", "input": [[3], [1, 2]], "dimensions": 2, "encoding_format": "float",
        "truncate": true, "truncate_prompt_tokens": -1, "user": "u",
    }))) {
        if let Err(error) = EmbeddingRequest::parse(body.to_string().as_bytes()) {
            prop_assert_eq!(error.status().as_u16(), 400);
        }
    }
}
