//! Narrows a schema to what a caller means by it.
//!
//! JSON Schema leaves much open that nobody wants generated: properties that were never declared, integers of a thousand
//! digits. A model with poor weights would wander into them and never come back. So declared objects are closed, and
//! numbers, formats and patterns are held to lengths within which they end. Every value of the narrowed schema is one of
//! the original. What is only an annotation, or says nothing, is left out, since the compiler refuses what it cannot
//! enforce; limits that are larger than what is ever written are left out or lowered, as they hold anyway.

use serde_json::{Map, Value, json};

use super::GrammarError;
use super::growth::Bounds;
use super::numbers;
use super::pattern::{bound_digits, is_text};
use super::walk::children_mut;

/// Largest `minItems`, `maxItems`, `minLength`, … that is compiled: each unrolls that many states.
const MAX_REPEAT: u64 = 10_000;

/// What a token may have beyond a bound that is reached within it.
const TOKEN: usize = 1024;

/// How much longer a text may become than a name or a code, where a pattern describes it.
const TEXT: usize = 16;

/// Keywords whose values are counts.
const COUNTS: [&str; 6] = [
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

/// Formats that are enforced, and how long a text of each may become; those without a number end by themselves. All
/// others are annotations (JSON Schema 2020-12, Validation, section 7.2.3).
const FORMATS: [(&str, Option<u64>); 10] = [
    ("date-time", Some(35)),
    ("time", Some(24)),
    ("date", None),
    ("duration", Some(40)),
    ("email", Some(128)),
    ("hostname", Some(128)),
    ("ipv4", None),
    ("ipv6", None),
    ("uuid", None),
    ("uri", Some(512)),
];

/// Keywords under which several schemas describe one object: closing one of them could contradict another.
const COMPOSING: [&str; 5] = [
    "allOf",
    "if",
    "not",
    "dependentSchemas",
    "unevaluatedProperties",
];

/// Whether patterns are held to a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patterns {
    /// They are.
    Bounded,
    /// Only by [`Bounds::string_bytes`], where they let themselves end: for those that are too much for the compiler
    /// together with a length.
    AsTheyAre,
}

/// See the module's text. In place.
pub(super) fn narrow(
    schema: &mut Value,
    bounds: &Bounds,
    patterns: Patterns,
) -> Result<(), GrammarError> {
    tidy(schema)?;
    let composed = composes(schema);
    let pass = Pass {
        bounds,
        patterns,
        composed,
    };
    pass.visit(schema)
}

/// Leaves out what says nothing.
fn tidy(schema: &mut Value) -> Result<(), GrammarError> {
    let Value::Object(fields) = schema else {
        return Ok(());
    };
    let anything = |value: &Value| *value == Value::Bool(true) || *value == json!({});
    fields.retain(|key, value| match key.as_str() {
        "uniqueItems" => *value != Value::Bool(false),
        "propertyNames" | "unevaluatedProperties" | "unevaluatedItems" | "if" => !anything(value),
        "not" => *value != Value::Bool(false),
        "dependentRequired" | "dependentSchemas" | "dependencies" => *value != json!({}),
        "then" | "else" => !anything(value),
        "format" => FORMATS.iter().any(|(known, _)| value == known),
        _ => true,
    });
    // Where nothing else describes the object, what was not evaluated is what was not declared.
    let others = ["allOf", "anyOf", "oneOf", "$ref", "if", "dependentSchemas"];
    if fields.get("unevaluatedProperties") == Some(&Value::Bool(false))
        && !others.iter().any(|key| fields.contains_key(*key))
    {
        fields.shift_remove("unevaluatedProperties");
        let closed = || Value::Bool(false);
        fields.entry("additionalProperties").or_insert_with(closed);
    }
    children_mut(fields, |_, child| tidy(child))
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

struct Pass<'a> {
    bounds: &'a Bounds,
    patterns: Patterns,
    /// Several schemas may describe one value.
    composed: bool,
}

impl Pass<'_> {
    fn visit(&self, schema: &mut Value) -> Result<(), GrammarError> {
        let Value::Object(fields) = schema else {
            return Ok(());
        };
        self.counts(fields)?;
        if !self.composed && is_declared_object(fields) {
            fields.insert("additionalProperties".to_owned(), json!(false));
        }
        drop_idle_count(fields);
        numbers::bound(fields, self.composed)?;
        self.strings(fields);
        children_mut(fields, |_, child| self.visit(child))
    }

    /// Counts as integers that can be compiled. `2.0` is an integer (JSON Schema 2020-12, Core, section 4.2.3).
    fn counts(&self, fields: &mut Map<String, Value>) -> Result<(), GrammarError> {
        for key in COUNTS {
            let Some(value) = fields.get(key) else {
                continue;
            };
            let count = value
                .as_f64()
                .filter(|count| *count >= 0.0 && count.fract() == 0.0)
                .ok_or_else(|| GrammarError::Invalid {
                    reason: format!("`{key}` must be an integer that is not negative"),
                })?;
            let count = count as u64;
            if count <= MAX_REPEAT {
                fields.insert(key.to_owned(), json!(count));
            } else if key.starts_with("min") {
                return Err(GrammarError::TooComplex {
                    reason: format!("`{key}` above {MAX_REPEAT}"),
                });
            } else if count as usize >= self.longest(key).saturating_add(TOKEN) {
                // Nothing is ever that long.
                fields.shift_remove(key);
            } else {
                fields.insert(key.to_owned(), json!(MAX_REPEAT));
            }
        }
        Ok(())
    }

    /// What holds where a count is left out.
    fn longest(&self, key: &str) -> usize {
        match key {
            "maxLength" => self.bounds.string_bytes,
            _ => self.bounds.items,
        }
    }

    /// Holds formats and patterns to a length, unless the schema does.
    fn strings(&self, fields: &mut Map<String, Value>) {
        let format = fields.get("format").and_then(Value::as_str);
        let known = FORMATS.iter().find(|(known, _)| format == Some(known));
        let mut length = known.and_then(|(_, length)| *length);
        if let Some(Value::String(pattern)) = fields.get("pattern") {
            let longest = match is_text(pattern) {
                true => self.bounds.pattern_chars.saturating_mul(TEXT),
                false => self.bounds.pattern_chars,
            } as u64;
            let bounded = bound_digits(pattern, self.bounds.number_chars);
            if self.patterns == Patterns::Bounded {
                length = Some(length.map_or(longest, |length| length.min(longest)));
            }
            fields.insert("pattern".to_owned(), json!(bounded));
        }
        let Some(length) = length else { return };
        if fields.contains_key("maxLength") {
            return;
        }
        let least = fields.get("minLength").and_then(Value::as_u64).unwrap_or(0);
        fields.insert("maxLength".to_owned(), json!(length.max(least)));
    }
}

/// Has `properties`, requires no others and says nothing of further ones.
fn is_declared_object(fields: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = fields.get("properties") else {
        return false;
    };
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

/// Leaves out a `maxProperties` that a closed object cannot exceed, and a `minProperties` that it reaches anyway: the
/// compiler does not take them beside optional properties.
fn drop_idle_count(fields: &mut Map<String, Value>) {
    let declared = match fields.get("properties") {
        Some(Value::Object(properties)) => properties.len() as u64,
        _ => 0,
    };
    let closed = fields.get("additionalProperties") == Some(&Value::Bool(false))
        && !fields.contains_key("patternProperties");
    let count = |key: &str| fields.get(key).and_then(Value::as_u64);
    let required = fields.get("required").and_then(Value::as_array);
    let required = required.map_or(0, Vec::len) as u64;
    let idle_most = closed && count("maxProperties").is_some_and(|most| most >= declared);
    let idle_least = count("minProperties").is_some_and(|least| least <= required);
    if idle_most {
        fields.shift_remove("maxProperties");
    }
    if idle_least {
        fields.shift_remove("minProperties");
    }
}

#[cfg(test)]
mod tests;
