//! Arbitrary JSON near to valid requests, for property tests of the parsers.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Number, Value};

/// Any JSON value, a few levels deep, with the values that parsers stumble over.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3i64..30).prop_map(Value::from),
        any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
        any::<String>().prop_map(Value::String),
        prop_oneof![
            Just(""),
            Just("\u{0}"),
            Just("function"),
            Just("json_schema"),
            Just("tool"),
            Just("🙂"),
            Just("{"),
            Just("auto"),
        ]
        .prop_map(|text| Value::String(text.to_owned())),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("type".to_owned()),
            Just("function".to_owned()),
            Just("name".to_owned()),
            Just("content".to_owned()),
            Just("role".to_owned()),
            any::<String>(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

/// `base` with one to four of its values, anywhere, replaced or removed.
pub(crate) fn mutated(base: Value) -> impl Strategy<Value = Value> {
    let change = (any::<Index>(), prop::option::of(value()));
    prop::collection::vec(change, 1..5).prop_map(move |changes| {
        let mut body = base.clone();
        for (at, replacement) in changes {
            let mut left = at.index(count(&body));
            apply(&mut body, &mut left, &replacement);
        }
        body
    })
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// Walks in order; at the node where `left` is 0, replaces (or makes null).
fn apply(value: &mut Value, left: &mut usize, replacement: &Option<Value>) -> bool {
    if *left == 0 {
        *value = replacement.clone().unwrap_or(Value::Null);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| apply(item, left, replacement)),
        Value::Object(map) => map.values_mut().any(|item| apply(item, left, replacement)),
        _ => false,
    }
}
