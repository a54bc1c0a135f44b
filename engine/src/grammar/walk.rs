//! Where in a JSON schema further schemas stand.
//!
//! A property may be called `$ref` or `items`, and an `enum` may hold anything: who looks at keywords must know which
//! objects are schemas and which are values.

use serde_json::{Map, Value};

/// Keywords whose value is one schema.
const ONE: [&str; 12] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
    "contains",
    "contentSchema",
    "not",
    "if",
    "then",
    "else",
];

/// Keywords whose value is an array of schemas; `items` up to draft 2019-09.
const MANY: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];

/// Keywords whose value maps names to schemas.
const NAMED: [&str; 6] = [
    "properties",
    "patternProperties",
    "dependentSchemas",
    "dependencies",
    "$defs",
    "definitions",
];

/// Calls `look` for each schema directly within this one, with the keyword it stands under.
pub(super) fn children_mut<E>(
    fields: &mut Map<String, Value>,
    mut look: impl FnMut(&str, &mut Value) -> Result<(), E>,
) -> Result<(), E> {
    for (key, value) in fields.iter_mut() {
        match value {
            Value::Object(inner) if NAMED.contains(&key.as_str()) => {
                for schema in inner.values_mut() {
                    look(key, schema)?;
                }
            }
            Value::Array(inner) if MANY.contains(&key.as_str()) => {
                for schema in inner {
                    look(key, schema)?;
                }
            }
            Value::Object(_) | Value::Bool(_) if ONE.contains(&key.as_str()) => look(key, value)?,
            _ => {}
        }
    }
    Ok(())
}

/// The same for reading.
pub(super) fn children(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    fields
        .iter()
        .flat_map(|(key, value)| children_of(key, value))
}

/// The schemas directly within the value of one keyword.
pub(super) fn children_of<'a>(key: &str, value: &'a Value) -> Vec<&'a Value> {
    match value {
        Value::Object(inner) if NAMED.contains(&key) => inner.values().collect(),
        Value::Array(inner) if MANY.contains(&key) => inner.iter().collect(),
        Value::Object(_) | Value::Bool(_) if ONE.contains(&key) => vec![value],
        _ => Vec::new(),
    }
}
