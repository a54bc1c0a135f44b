#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_engine::request::Priority;

use super::{Sampling, StreamOptions};
use crate::api::fields::Fields;
use crate::context::{Principal, RequestContext};
use crate::error::ApiError;

fn take(value: &Value) -> Result<Sampling, ApiError> {
    Sampling::take(&mut Fields::parse(value.to_string().as_bytes())?)
}

#[test]
fn every_parameter_arrives() {
    let sampling = take(&json!({
        "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1, "n": 3,
        "presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 1.2,
        "logit_bias": {"7": -100, "8": 5.5}, "seed": -1, "stop": ["a", "b"],
        "stop_token_ids": [1, 2], "ignore_eos": true, "min_tokens": 4,
        "skip_special_tokens": false, "include_stop_str_in_output": true,
        "stream": true, "stream_options": {"include_usage": true}, "user": "u",
        "metadata": {"k": "v"}, "service_tier": "flex", "store": true,
    }))
    .unwrap();
    let params = &sampling.params;
    assert_eq!(sampling.allowed, None);
    assert_eq!(
        (params.temperature, params.top_p, params.top_k),
        (0.0, 0.5, 0)
    );
    assert_eq!((params.min_p, params.repetition_penalty), (0.1, 1.2));
    assert_eq!(
        (params.presence_penalty, params.frequency_penalty),
        (-2.0, 2.0)
    );
    assert_eq!(*params.logit_bias, [(7, -100.0), (8, 5.5)]);
    assert_eq!(params.seed, Some(u64::MAX));
    assert_eq!(sampling.params_of(1).seed, Some(0));
    assert_eq!(*params.stop_token_ids, [1, 2]);
    assert_eq!((params.ignore_eos, params.min_tokens), (true, 4));
    assert_eq!((sampling.n, sampling.stop.len()), (3, 2));
    assert!(!sampling.skip_special && sampling.include_stop);
    assert_eq!(
        sampling.stream,
        Some(StreamOptions {
            include_usage: true,
            continuous_usage: false,
        })
    );
    assert_eq!(
        (sampling.tier, sampling.tier_asked),
        (Some(Priority::Low), true)
    );
}

#[test]
fn each_bad_value_names_its_field() {
    let cases = [
        (
            json!({"temperature": 2.1}),
            "temperature",
            "decimal_above_max_value",
        ),
        (
            json!({"temperature": -0.1}),
            "temperature",
            "decimal_below_min_value",
        ),
        (json!({"temperature": "1"}), "temperature", "invalid_type"),
        (json!({"top_p": 0}), "top_p", "invalid_value"),
        (json!({"top_k": -2}), "top_k", "integer_below_min_value"),
        (json!({"top_k": 1.5}), "top_k", "invalid_type"),
        (json!({"min_p": 2}), "min_p", "decimal_above_max_value"),
        (
            json!({"presence_penalty": 3}),
            "presence_penalty",
            "decimal_above_max_value",
        ),
        (
            json!({"frequency_penalty": []}),
            "frequency_penalty",
            "invalid_type",
        ),
        (
            json!({"repetition_penalty": 0}),
            "repetition_penalty",
            "invalid_value",
        ),
        (
            json!({"logit_bias": {"x": 1}}),
            "logit_bias",
            "invalid_value",
        ),
        (
            json!({"logit_bias": {"1": 101}}),
            "logit_bias",
            "decimal_above_max_value",
        ),
        (json!({"logit_bias": []}), "logit_bias", "invalid_type"),
        (json!({"seed": "x"}), "seed", "invalid_type"),
        (json!({"n": 0}), "n", "integer_below_min_value"),
        (json!({"n": 1000}), "n", "integer_above_max_value"),
        (json!({"stop": ""}), "stop", "empty_string"),
        (
            json!({"stop": vec!["x"; 17]}),
            "stop",
            "array_above_max_length",
        ),
        (json!({"stop": ["x", 1]}), "stop[1]", "invalid_type"),
        (
            json!({"stop": "x".repeat(2000)}),
            "stop",
            "string_above_max_length",
        ),
        (
            json!({"stop_token_ids": [-1]}),
            "stop_token_ids[0]",
            "integer_below_min_value",
        ),
        (json!({"stream": "yes"}), "stream", "invalid_type"),
        (
            json!({"stream_options": {}}),
            "stream_options",
            "invalid_value",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "invalid_type",
        ),
        (
            json!({"service_tier": "gold"}),
            "service_tier",
            "invalid_value",
        ),
        (json!({"user": 1}), "user", "invalid_type"),
        (json!({"metadata": "x"}), "metadata", "invalid_type"),
        (
            json!({"min_tokens": -1}),
            "min_tokens",
            "integer_below_min_value",
        ),
    ];
    for (request, param, code) in cases {
        let error = take(&request).unwrap_err();
        assert_eq!(error.param(), Some(param), "{request}");
        let object: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(object["error"]["code"], code, "{request}");
    }
}

#[test]
fn a_key_bounds_the_tier() {
    let high = take(&json!({"service_tier": "priority"})).unwrap();
    let mut context = RequestContext::new("id", "/v1/chat/completions");
    assert_eq!(high.priority(&context), Priority::High);
    context.principal = Some(Arc::new(Principal {
        key_id: "k".into(),
        name: "n".into(),
        priority: Priority::Normal,
        models: None,
        role: None,
        owner: None,
        rights: crate::access::Rights::unlimited(),
    }));
    assert_eq!(high.priority(&context), Priority::Normal);
    let low = take(&json!({"service_tier": "flex"})).unwrap();
    assert_eq!(low.priority(&context), Priority::Low);
    let unsaid = take(&json!({})).unwrap();
    assert_eq!(unsaid.priority(&context), Priority::Normal);
}
