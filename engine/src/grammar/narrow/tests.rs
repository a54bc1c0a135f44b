#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::grammar::numbers::INTEROPERABLE;

fn narrowed(mut schema: Value) -> Value {
    narrow(&mut schema, &Bounds::default(), Patterns::Bounded).unwrap();
    schema
}

#[test]
fn declared_objects_are_closed_at_every_depth() {
    let schema = json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}}});
    let got = narrowed(schema);
    assert_eq!(got["additionalProperties"], false);
    assert_eq!(
        got["properties"]["list"]["items"]["additionalProperties"],
        false
    );
}

#[test]
fn what_the_schema_says_stays() {
    for schema in [
        json!({"type": "object"}),
        json!({"properties": {}, "additionalProperties": {"type": "string"}}),
        json!({"properties": {"a": {}}, "required": ["a", "b"]}),
        json!({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}),
        json!({"type": "integer", "minimum": 0, "maximum": 9}),
        json!({"type": "integer", "enum": [1, 2]}),
        json!({"const": {"properties": {}}}),
        json!({"type": "string", "pattern": "^a{2}$", "maxLength": 2000}),
        json!({"type": "string", "format": "date"}),
        json!({"enum": [{"format": "password", "maxLength": "x"}]}),
    ] {
        assert_eq!(narrowed(schema.clone()), schema);
    }
}

#[test]
fn free_integers_get_the_missing_bounds() {
    let both = narrowed(json!({"type": "integer", "multipleOf": 7}));
    assert_eq!(both["minimum"], -INTEROPERABLE);
    assert_eq!(both["maximum"], INTEROPERABLE);
    let one = narrowed(json!({"type": "integer", "exclusiveMinimum": 3}));
    assert_eq!(one["maximum"], INTEROPERABLE);
    assert_eq!(one.get("minimum"), None);
    let beyond = json!({"type": "integer", "minimum": 1e300});
    assert_eq!(narrowed(beyond.clone()), beyond);
}

#[test]
fn numbers_with_a_limit_have_so_many_decimals() {
    for limit in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
        let got = narrowed(json!({"type": ["number", "null"], limit: 0}));
        assert_eq!(got["multipleOf"], 1e-8, "{limit}");
    }
    for free in [
        json!({"type": "number"}),
        json!({"type": "number", "minimum": 0, "multipleOf": 0.5}),
        json!({"type": "number", "minimum": 0, "maximum": 1e-7}),
    ] {
        assert_eq!(
            narrowed(free.clone()).get("multipleOf"),
            free.get("multipleOf")
        );
    }
    let far = narrowed(json!({"type": "number", "maximum": 1e308}));
    assert_eq!(far, json!({"type": "number"}));
}

#[test]
fn formats_and_patterns_get_a_length() {
    let length = |schema: Value| narrowed(schema)["maxLength"].as_u64();
    assert_eq!(length(json!({"format": "duration"})), Some(40));
    assert_eq!(
        length(json!({"format": "email", "minLength": 200})),
        Some(200)
    );
    assert_eq!(length(json!({"pattern": "^[a-z]+$"})), Some(128));
    assert_eq!(length(json!({"pattern": "^.+$"})), Some(2048));
    assert_eq!(length(json!({"pattern": "^.+$", "maxLength": 7})), Some(7));
    assert_eq!(length(json!({"type": "string"})), None);
    let mut schema = json!({"pattern": "^[a-z]+$"});
    narrow(&mut schema, &Bounds::default(), Patterns::AsTheyAre).unwrap();
    assert_eq!(schema.get("maxLength"), None);
}

#[test]
fn a_property_may_be_called_properties() {
    let schema = json!({"type": "object", "properties": {"properties": {"type": "object"}}});
    let got = narrowed(schema);
    assert_eq!(got["additionalProperties"], false);
    assert_eq!(got["properties"]["properties"], json!({"type": "object"}));
}
