//! Narrows a schema to what a caller means by it.
//!
//! JSON Schema leaves much open that nobody wants generated: properties that were
//! never declared, integers of a thousand digits. A model with poor weights would
//! wander into them and never come back. So declared objects are closed and free
//! integers are held to what every JSON reader can represent (RFC 8259, section 6:
//! ±(2⁵³ − 1)). Every value of the narrowed schema is one of the original.

use serde_json::{Map, Value, json};

/// Largest magnitude of an integer that JSON's readers agree on.
const INTEROPERABLE: i64 = (1 << 53) - 1;

/// Keywords under which several schemas describe one object: closing one of them
/// could contradict another.
const COMPOSING: [&str; 5] = [
    "allOf",
    "if",
    "not",
    "dependentSchemas",
    "unevaluatedProperties",
];

/// Closes objects and bounds integers, in place.
pub(crate) fn narrow(schema: &mut Value) {
    let close = !composes(schema);
    visit(schema, close);
}

fn composes(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(composes),
        Value::Object(fields) => {
            let shared = ["$ref", "anyOf", "oneOf"]
                .iter()
                .any(|key| fields.contains_key(*key))
                && fields.contains_key("properties");
            shared
                || COMPOSING.iter().any(|key| fields.contains_key(*key))
                || fields.values().any(composes)
        }
        _ => false,
    }
}

fn visit(value: &mut Value, close: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, close)),
        Value::Object(fields) => {
            if close && is_declared_object(fields) {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            if fields.get("type") == Some(&json!("integer")) {
                bound(fields);
            }
            for (key, inner) in fields.iter_mut() {
                // Values, not schemas.
                if !matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                    visit(inner, close);
                }
            }
        }
        _ => {}
    }
}

/// Has `properties`, requires no others and says nothing of further ones.
fn is_declared_object(fields: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = fields.get("properties") else {
        return false;
    };
    // A property named `properties` is declared by its own schema, not by this one.
    let schema = fields.get("type").is_none_or(Value::is_string);
    let silent = ["additionalProperties", "patternProperties"]
        .iter()
        .all(|key| !fields.contains_key(*key));
    let required = fields.get("required").and_then(Value::as_array);
    let known = |name: &Value| {
        name.as_str()
            .is_some_and(|name| properties.contains_key(name))
    };
    schema && silent && required.is_none_or(|names| names.iter().all(known))
}

fn bound(fields: &mut Map<String, Value>) {
    let has = |keys: &[&str]| keys.iter().any(|key| fields.contains_key(*key));
    if has(&["const", "enum", "multipleOf"]) {
        return;
    }
    let (low, high) = (
        has(&["minimum", "exclusiveMinimum"]),
        has(&["maximum", "exclusiveMaximum"]),
    );
    let within = |keys: &[&str]| {
        let mut values = keys.iter().filter_map(|key| fields.get(*key));
        values.all(|value| {
            value
                .as_f64()
                .is_some_and(|v| v.abs() < INTEROPERABLE as f64)
        })
    };
    let (low_fits, high_fits) = (
        within(&["minimum", "exclusiveMinimum"]),
        within(&["maximum", "exclusiveMaximum"]),
    );
    if !low && high_fits {
        fields.insert("minimum".to_owned(), json!(-INTEROPERABLE));
    }
    if !high && low_fits {
        fields.insert("maximum".to_owned(), json!(INTEROPERABLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(mut schema: Value) -> Value {
        narrow(&mut schema);
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
        ] {
            assert_eq!(narrowed(schema.clone()), schema);
        }
    }

    #[test]
    fn free_integers_get_the_missing_bounds() {
        let both = narrowed(json!({"type": "integer"}));
        assert_eq!(both["minimum"], -INTEROPERABLE);
        assert_eq!(both["maximum"], INTEROPERABLE);
        let one = narrowed(json!({"type": "integer", "exclusiveMinimum": 3}));
        assert_eq!(one["maximum"], INTEROPERABLE);
        assert_eq!(one.get("minimum"), None);
        let beyond = json!({"type": "integer", "minimum": 1e300});
        assert_eq!(narrowed(beyond.clone()), beyond);
    }

    #[test]
    fn a_property_may_be_called_properties() {
        let schema = json!({"type": "object", "properties": {"properties": {"type": "object"}}});
        let got = narrowed(schema);
        assert_eq!(got["additionalProperties"], false);
        assert_eq!(got["properties"]["properties"], json!({"type": "object"}));
    }
}
