//! Accuracy of structured answers, field by field.
//!
//! A single wrong digit makes a whole document unequal, which says little; what
//! people want to know is which fields are right, missing, wrong or invented.
//! Types are strict: `"5"` is not `5`. Numbers compare by value: `5` is `5.0`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What became of each field; fields are JSON pointers (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldReport {
    pub correct: Vec<String>,
    pub missing: Vec<String>,
    pub wrong: Vec<String>,
    /// Fields that the reference does not have; only looked for when none are declared.
    pub extra: Vec<String>,
    /// Why the output could not be read as JSON; every expected field is then wrong.
    pub invalid: Option<String>,
}

impl FieldReport {
    /// Correct fields among the expected and the invented ones, 0 to 1.
    ///
    /// An expected empty object answered by one is fully correct.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        let all = self.correct.len() + self.missing.len() + self.wrong.len() + self.extra.len();
        if all == 0 {
            return f64::from(u8::from(self.invalid.is_none()));
        }
        self.correct.len() as f64 / all as f64
    }
}

/// Compares `output` with `reference`, in the declared fields or, with none declared, in all.
///
/// A declared field is a JSON pointer (`/customer/name`) or a top-level key.
///
/// # Errors
/// When the reference is not JSON, or lacks a declared field: the test set is at
/// fault, so the sample is not scored rather than held against the model.
pub fn compare(output: &str, reference: &str, fields: &[String]) -> Result<FieldReport, String> {
    let reference: Value = serde_json::from_str(reference)
        .map_err(|error| format!("the reference is not JSON: {error}"))?;
    let expected = expected_fields(&reference, fields)?;
    let mut report = FieldReport::default();
    let output: Value = match serde_json::from_str(output) {
        Ok(value) => value,
        Err(error) => {
            report.invalid = Some(format!("the output is not JSON: {error}"));
            report.wrong = expected.into_keys().collect();
            return Ok(report);
        }
    };
    for (pointer, value) in &expected {
        let place = match output.pointer(pointer) {
            None => &mut report.missing,
            Some(found) if same(found, value) => &mut report.correct,
            Some(_) => &mut report.wrong,
        };
        place.push(pointer.clone());
    }
    if fields.is_empty() {
        report.extra = leaves(&output)
            .into_keys()
            .filter(|pointer| !covered(&expected, pointer))
            .collect();
    }
    Ok(report)
}

fn expected_fields<'a>(
    reference: &'a Value,
    fields: &[String],
) -> Result<BTreeMap<String, &'a Value>, String> {
    if fields.is_empty() {
        return Ok(leaves(reference));
    }
    let mut expected = BTreeMap::new();
    for field in fields {
        let pointer = if field.starts_with('/') {
            field.clone()
        } else {
            format!("/{}", escape(field))
        };
        let value = reference
            .pointer(&pointer)
            .ok_or_else(|| format!("the reference lacks the declared field `{field}`"))?;
        expected.insert(pointer, value);
    }
    Ok(expected)
}

/// A leaf at, above or below an expected one is that field's business, not an extra.
fn covered(expected: &BTreeMap<String, &Value>, pointer: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    expected
        .keys()
        .any(|known| within(pointer, known) || within(known, pointer))
}

/// The leaves under objects, by pointer; a list is one leaf, since its order matters.
pub(crate) fn leaves(value: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), value)];
    while let Some((pointer, value)) = open.pop() {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (key, value) in members {
                    open.push((format!("{pointer}/{}", escape(key)), value));
                }
            }
            // The root itself is a field only when it is not an object.
            Value::Object(_) if pointer.is_empty() => {}
            leaf => {
                found.insert(pointer, leaf);
            }
        }
    }
    found
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Equality that ignores the order of keys and how a number is written.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.as_f64() == b.as_f64() && !(both_integers(a, b))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}

/// Two long integers may differ and still round to one float.
fn both_integers(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    !a.is_f64() && !b.is_f64()
}
