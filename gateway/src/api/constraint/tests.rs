#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use sluice_engine::grammar::GrammarSpec;

use super::take;
use crate::api::fields::Fields;
use crate::error::ApiError;

fn read(value: &Value) -> Result<Option<GrammarSpec>, ApiError> {
    let taken = take(&mut Fields::parse(value.to_string().as_bytes())?)?;
    Ok(taken.map(|constraint| constraint.spec))
}

fn schema(value: Value) -> GrammarSpec {
    GrammarSpec::JsonSchema(value)
}

#[test]
fn every_form_is_read() {
    let object = json!({"type": "object"});
    let cases = [
        (json!({}), None),
        (json!({"response_format": {"type": "text"}}), None),
        (
            json!({"response_format": {"type": "json_object"}}),
            Some(GrammarSpec::JsonObject),
        ),
        (
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "a-b_1", "strict": true, "schema": object}}}),
            Some(schema(object.clone())),
        ),
        (json!({"guided_json": object}), Some(schema(object.clone()))),
        (
            json!({"guided_json": "{\"type\":\"object\"}"}),
            Some(schema(object.clone())),
        ),
        (
            json!({"guided_regex": "a+"}),
            Some(GrammarSpec::Regex("a+".into())),
        ),
        (
            json!({"guided_choice": ["a", "b"]}),
            Some(GrammarSpec::Choice(vec!["a".into(), "b".into()])),
        ),
        (
            json!({"guided_grammar": "start: \"a\""}),
            Some(GrammarSpec::Lark("start: \"a\"".into())),
        ),
        (
            json!({"structured_outputs": {"regex": "a"}}),
            Some(GrammarSpec::Regex("a".into())),
        ),
        (
            json!({"structured_outputs": {"json": object}}),
            Some(schema(object)),
        ),
    ];
    for (request, expected) in cases {
        let found = read(&request).unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{request}");
    }
}

#[test]
fn each_mistake_names_its_path() {
    let cases = [
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {}}), "response_format.type"),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            "response_format.json_schema.name",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}),
            "response_format.json_schema.name",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": 1}}}),
            "response_format.json_schema.strict",
        ),
        (json!({"guided_json": "{"}), "guided_json"),
        (json!({"guided_json": 1}), "guided_json"),
        (json!({"guided_regex": ""}), "guided_regex"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_choice": ["a", 1]}), "guided_choice[1]"),
        (json!({"guided_grammar": 1}), "guided_grammar"),
        (
            json!({"guided_regex": "a", "guided_grammar": "b"}),
            "guided_grammar",
        ),
        (
            json!({"structured_outputs": {"regex": "a", "grammar": "b"}}),
            "structured_outputs",
        ),
    ];
    for (request, param) in cases {
        let error = read(&request).unwrap_err();
        assert_eq!(error.param(), Some(param), "{request}");
    }
}
