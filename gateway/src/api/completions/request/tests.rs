#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CompletionRequest, Prompt};
use crate::api::fuzz;
use crate::error::ApiError;

fn parse(extra: &Value) -> Result<CompletionRequest, ApiError> {
    let mut body = json!({"model": "m", "prompt": "x"});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    CompletionRequest::parse(body.to_string().as_bytes())
}

#[test]
fn every_form_of_prompt_is_read() {
    let prompts = |prompt: Value| parse(&json!({"prompt": prompt})).unwrap().prompts;
    let text = |text: &str| Prompt::Text(text.into());
    assert_eq!(prompts(json!("a")), [text("a")]);
    assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
    assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(
        prompts(json!([[1, 2], [3]])),
        [Prompt::Tokens(vec![1, 2]), Prompt::Tokens(vec![3])]
    );
}

#[test]
fn scoring_a_prompt_is_allowed() {
    let request = parse(&json!({"echo": true, "logprobs": 1, "max_tokens": 0})).unwrap();
    assert_eq!(
        (request.echo, request.logprobs, request.max_tokens),
        (true, Some(1), Some(0))
    );
    parse(&json!({"n": 2, "best_of": 2, "suffix": ""})).unwrap();
}

#[test]
fn each_mistake_names_its_path() {
    let cases = [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": 1}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": vec!["x"; 257]}), "prompt"),
        (json!({"prompt": [[]]}), "prompt[0]"),
        (json!({"prompt": ["a", 1]}), "prompt[1]"),
        (json!({"prompt": [1, "a"]}), "prompt[1]"),
        (json!({"prompt": [1, [2]]}), "prompt[1]"),
        (json!({"prompt": ["a", [3]]}), "prompt[1]"),
        (json!({"prompt": [[3], "a"]}), "prompt[1]"),
        (json!({"prompt": [[3], [4], 5]}), "prompt[2]"),
        (json!({"prompt": [[1, -1]]}), "prompt[0][1]"),
        (json!({"prompt": [1.5]}), "prompt[0]"),
        (json!({"prompt": [{}]}), "prompt[0]"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"logprobs": 6}), "logprobs"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"echo": "yes"}), "echo"),
        (json!({"max_tokens": -1}), "max_tokens"),
    ];
    for (extra, param) in cases {
        assert_eq!(parse(&extra).unwrap_err().param(), Some(param), "{extra}");
    }
}

proptest! {
    #[test]
    fn mutated_requests_are_read_or_refused(body in fuzz::mutated(json!({
        "model": "m", "prompt": [[1, 2], [3]], "echo": true, "logprobs": 1, "max_tokens": 0,
        "n": 2, "best_of": 2, "suffix": "", "stop": "x", "stream": false,
    }))) {
        if let Err(error) = CompletionRequest::parse(body.to_string().as_bytes()) {
            prop_assert_eq!(error.status().as_u16(), 400);
        }
    }
}
