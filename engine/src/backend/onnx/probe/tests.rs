#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use super::super::OnnxOptions;
use super::super::testing::{copy, fixture, load};
use super::*;

fn falsified(edit: impl FnOnce(&mut Value)) -> Result<(), LoadError> {
    let dir = copy("tiny-llama");
    let path = dir.path().join(FILE);
    let mut probe = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut probe);
    std::fs::write(&path, probe.to_string()).unwrap();
    load(dir.path(), &OnnxOptions::default()).map(drop)
}

#[test]
fn another_logit_is_refused_with_prompt_and_position() {
    let error = falsified(|probe| {
        let value = &mut probe["prompts"][3]["logits"]["values"][1][2];
        *value = json!(value.as_f64().unwrap() + 0.01);
    });
    let error = error.unwrap_err();
    assert!(matches!(error, LoadError::Parity { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("prompt 3 (100 tokens) at position 99: logit of token 32"),
        "{text}"
    );
}

#[test]
fn another_greedy_token_is_refused() {
    let error = falsified(|probe| {
        let token = &mut probe["prompts"][1]["greedy"][9];
        *token = json!((token.as_u64().unwrap() + 1) % 128);
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("prompt 1 (17 tokens) at position 25: the greedy token is"),
        "{text}"
    );
}

#[test]
fn a_malformed_probe_is_refused_by_field() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 5] = [
        ("format is 2", |p| p["format"] = json!(2)),
        ("atol is 0", |p| p["atol"] = json!(0)),
        ("no prompts", |p| p["prompts"] = json!([])),
        ("positions × token_ids", |p| {
            p["prompts"][0]["logits"]["values"][0] = json!([1.0])
        }),
        ("prompt 2 is empty", |p| {
            p["prompts"][2]["input_ids"] = json!([])
        }),
    ];
    for (expected, edit) in cases {
        let error = falsified(edit).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(FILE),
            "{expected}: {error}"
        );
    }
    let text = falsified(|p| p["prompts"][0]["input_ids"][0] = json!(128))
        .unwrap_err()
        .to_string();
    assert!(text.contains("vocabulary of 128"), "{text}");
}

/// A NaN on either side is a difference.
#[test]
fn nan_is_never_equal() {
    let prompt: Prompt = serde_json::from_value(json!({
        "input_ids": [3],
        "logits": {"positions": [0], "token_ids": [1], "values": [[0.5]]},
    }))
    .unwrap();
    assert!(prompt.compare(0, &[0.0, 0.5], 1e-3).is_ok());
    assert!(prompt.compare(0, &[0.0, f32::NAN], 1e-3).is_err());
}

/// Prompts beyond a slot are cut; what remains is still checked.
#[test]
fn a_probe_longer_than_the_slots_is_cut() {
    let dir = copy("tiny-llama");
    for capacity in [110, 40, 4] {
        let options = OnnxOptions {
            capacity: Some(capacity),
            ..OnnxOptions::default()
        };
        load(dir.path(), &options).unwrap();
    }
}

#[test]
fn without_a_probe_the_model_is_compared_with_itself() {
    for slots in [1, 2, 5] {
        let dir = copy("tiny-gemma2");
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        let options = OnnxOptions {
            slots: Some(slots),
            ..OnnxOptions::default()
        };
        load(dir.path(), &options).unwrap();
    }
}

/// The comparison with itself notices another model's answers.
#[test]
fn answers_of_another_model_are_noticed() {
    let mut llama = load(&fixture("tiny-llama"), &OnnxOptions::default()).unwrap();
    let mut gemma = load(&fixture("tiny-gemma2"), &OnnxOptions::default()).unwrap();
    let (prompts, atol) = own_answers(&mut llama).unwrap();
    assert!(compare_all(&mut llama, &prompts, atol, "llama").unwrap() > 10);
    assert!(compare_all(&mut gemma, &prompts, atol, "gemma").is_err());
}
