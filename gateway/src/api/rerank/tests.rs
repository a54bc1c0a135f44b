#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{RerankRequest, rank};
use crate::api::fuzz;
use crate::error::ApiError;

fn parse(extra: &Value) -> Result<RerankRequest, ApiError> {
    let mut body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}]});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    RerankRequest::parse(body.to_string().as_bytes())
}

#[test]
fn documents_are_strings_or_objects() {
    assert_eq!(parse(&json!({})).unwrap().documents, ["a", "b"]);
}

#[test]
fn each_mistake_names_its_path() {
    let cases = [
        (json!({"query": null}), "query"),
        (json!({"query": ""}), "query"),
        (json!({"query": 1}), "query"),
        (json!({"documents": null}), "documents"),
        (json!({"documents": []}), "documents"),
        (json!({"documents": vec!["x"; 1001]}), "documents"),
        (json!({"documents": ["a", 1]}), "documents[1]"),
        (json!({"documents": [{}]}), "documents[0].text"),
        (json!({"top_n": 0}), "top_n"),
        (json!({"max_tokens_per_doc": 0}), "max_tokens_per_doc"),
        (json!({"texts": ["a"]}), "texts"),
        (json!({"return_documents": 1}), "return_documents"),
    ];
    for (extra, param) in cases {
        assert_eq!(parse(&extra).unwrap_err().param(), Some(param), "{extra}");
    }
}

#[test]
fn the_best_come_first_and_ties_keep_their_order() {
    let scores = vec![0.1, 0.9, f32::NAN, 0.9];
    assert_eq!(
        rank(vec![0.1, 0.9, 0.5, 0.9], Some(3)),
        [(1, 0.9), (3, 0.9), (2, 0.5)]
    );
    assert_eq!(rank(scores, None).len(), 4);
}

proptest! {
    #[test]
    fn mutated_requests_are_read_or_refused(body in fuzz::mutated(json!({
        "model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1,
        "return_documents": true,
    }))) {
        if let Err(error) = RerankRequest::parse(body.to_string().as_bytes()) {
            prop_assert_eq!(error.status().as_u16(), 400);
        }
    }
}
