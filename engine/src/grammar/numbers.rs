//! Bounds for numbers that a schema leaves open.
//!
//! Integers are held to what every JSON reader can represent (RFC 8259, section 6: ±(2⁵³ − 1)). A number with a limit on
//! one side or both is held to eight decimals: `0.000…` is below every `exclusiveMinimum` of 0 for as long as one likes.
//! A number without any limit needs nothing: it may end after each digit, and [`growth`](super::growth) sees to it.

use serde_json::{Map, Value, json};

use super::GrammarError;

/// Largest magnitude of an integer that JSON's readers agree on.
pub(super) const INTEROPERABLE: i64 = (1 << 53) - 1;

/// Limits beyond this are no limits: no number that is written has so many digits.
const FAR: f64 = 1e18;

/// Decimals of a number with a limit. The compiler computes remainders in 32 bits.
const DECIMALS: f64 = 1e-8;

/// The narrowest range that surely holds a number of so many decimals.
const RANGE: f64 = 1e-6;

/// Coefficient of a `multipleOf` with which remainders fit into 32 bits.
const MAX_COEFFICIENT: f64 = 300_000_000.0;

/// Decimals of a `multipleOf`.
const MAX_DECIMALS: u32 = 8;

const LOW: [&str; 2] = ["minimum", "exclusiveMinimum"];
const HIGH: [&str; 2] = ["maximum", "exclusiveMaximum"];

/// Adds the bounds. `composed`: others may describe the same number.
pub(super) fn bound(fields: &mut Map<String, Value>, composed: bool) -> Result<(), GrammarError> {
    check_multiple(fields)?;
    if fields.contains_key("const") || fields.contains_key("enum") {
        return Ok(());
    }
    let (integer, number) = kinds(fields);
    if !integer && !number {
        return Ok(());
    }
    drop_far(fields);
    let (low, high) = (limit(fields, LOW), limit(fields, HIGH));
    let multiple = fields.contains_key("multipleOf");
    if integer && !number || multiple {
        let inside = |limit: Option<f64>| limit.is_none_or(|v| v.abs() < INTEROPERABLE as f64);
        if low.is_none() && inside(high) {
            fields.insert("minimum".to_owned(), json!(-INTEROPERABLE));
        }
        if high.is_none() && inside(low) {
            fields.insert("maximum".to_owned(), json!(INTEROPERABLE));
        }
    }
    let limited = low.is_some() || high.is_some();
    let wide = match (low, high) {
        (Some(low), Some(high)) => high - low >= RANGE,
        _ => true,
    };
    if number && limited && !multiple && wide && !composed {
        fields.insert("multipleOf".to_owned(), json!(DECIMALS));
    }
    Ok(())
}

/// Whether integers and whether numbers of any kind fit the schema, as far as it speaks of them.
fn kinds(fields: &Map<String, Value>) -> (bool, bool) {
    let has = |name: &str| match fields.get("type") {
        Some(Value::String(kind)) => kind == name,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    let spoken_of = LOW.iter().chain(&HIGH).any(|key| fields.contains_key(*key))
        || fields.contains_key("multipleOf");
    let untyped = !fields.contains_key("type") && spoken_of;
    (has("integer"), has("number") || untyped)
}

/// The strictest of the limits on one side, as far as it is a number. Draft 4 has booleans.
fn limit(fields: &Map<String, Value>, keys: [&str; 2]) -> Option<f64> {
    let mut values = keys.iter().filter_map(|key| fields.get(*key)?.as_f64());
    let first = values.next()?;
    Some(values.fold(first, |a, b| match keys == LOW {
        true => a.max(b),
        false => a.min(b),
    }))
}

/// Leaves out limits that nothing reaches: `le=1.8e308`.
fn drop_far(fields: &mut Map<String, Value>) {
    for (keys, sign) in [(LOW, -1.0), (HIGH, 1.0)] {
        for key in keys {
            let far = |value: &Value| value.as_f64().is_some_and(|v| v * sign >= FAR);
            if fields.get(key).is_some_and(far) {
                fields.shift_remove(key);
            }
        }
    }
}

fn check_multiple(fields: &Map<String, Value>) -> Result<(), GrammarError> {
    let Some(multiple) = fields.get("multipleOf") else {
        return Ok(());
    };
    let step = multiple.as_f64().filter(|step| *step > 0.0);
    let step = step.ok_or_else(|| GrammarError::Invalid {
        reason: "`multipleOf` must be a number above 0".to_owned(),
    })?;
    match decimal(step) {
        Some(_) => Ok(()),
        None => Err(GrammarError::TooComplex {
            reason: "a `multipleOf` of over 8 digits".to_owned(),
        }),
    }
}

/// A step as whole units of `10^-decimals`; `None` where its remainders do not fit.
fn decimal(step: f64) -> Option<(u64, u32)> {
    let (mut coefficient, mut decimals) = (step, 0);
    while coefficient.fract() != 0.0 && decimals <= MAX_DECIMALS {
        coefficient *= 10.0;
        decimals += 1;
    }
    let fits = coefficient <= MAX_COEFFICIENT && decimals <= MAX_DECIMALS;
    fits.then_some((coefficient as u64, decimals))
}

/// A step in units of `10^-decimals`.
type Step = (u64, u32);

/// Alternatives that are told apart; more are taken for one.
const ALTERNATIVES: usize = 64;

/// References that are followed in a row.
const HOPS: usize = 16;

/// Refuses several `multipleOf` that describe one number where the compiler would compute their common multiple in too
/// few bits.
///
/// # Errors
/// [`GrammarError::TooComplex`]
pub(super) fn check_merged(root: &Value) -> Result<(), GrammarError> {
    check_below(root, root)
}

fn check_below(schema: &Value, root: &Value) -> Result<(), GrammarError> {
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| check_below(item, root)),
        Value::Object(fields) => {
            if !alternatives(fields, root, HOPS)
                .iter()
                .all(|steps| have_a_common_multiple(steps))
            {
                return Err(GrammarError::TooComplex {
                    reason: "several `multipleOf` of one number with a large common multiple"
                        .to_owned(),
                });
            }
            fields
                .values()
                .try_for_each(|value| check_below(value, root))
        }
        _ => Ok(()),
    }
}

/// The steps that a number has to keep at once: one list for each way through `anyOf` and `oneOf`.
fn alternatives(fields: &Map<String, Value>, root: &Value, hops: usize) -> Vec<Vec<Step>> {
    let own = fields
        .get("multipleOf")
        .and_then(Value::as_f64)
        .and_then(decimal);
    let mut all = vec![Vec::from_iter(own)];
    let below = |schema: &Value| match schema {
        Value::Object(fields) => alternatives(fields, root, hops),
        _ => vec![Vec::new()],
    };
    if let Some(Value::Array(members)) = fields.get("allOf") {
        for member in members {
            all = both(&all, &below(member));
        }
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = fields.get(key) {
            let ways: Vec<_> = branches.iter().flat_map(below).collect();
            all = both(&all, &ways);
        }
    }
    let target = fields
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|to| to.strip_prefix('#'));
    if let (Some(Value::Object(target)), true) = (target.and_then(|to| root.pointer(to)), hops > 0)
    {
        all = both(&all, &alternatives(target, root, hops - 1));
    }
    all
}

/// Each of these with each of those.
fn both(these: &[Vec<Step>], those: &[Vec<Step>]) -> Vec<Vec<Step>> {
    if those.iter().all(Vec::is_empty) {
        return these.to_vec();
    }
    if these.len() * those.len() > ALTERNATIVES {
        return vec![these.iter().chain(those).flatten().copied().collect()];
    }
    let pairs = these.iter().flat_map(|a| those.iter().map(move |b| (a, b)));
    pairs
        .map(|(a, b)| a.iter().chain(b).copied().collect())
        .collect()
}

/// Whether their least common multiple, and the product on the way to it, fit into 32 bits.
fn have_a_common_multiple(steps: &[Step]) -> bool {
    let decimals = steps
        .iter()
        .map(|(_, decimals)| *decimals)
        .max()
        .unwrap_or_default();
    let mut common = 1_u64;
    steps.len() < 2
        || steps.iter().all(|(coefficient, own)| {
            let step = coefficient * 10_u64.pow(decimals - own);
            let fits = step <= u64::from(u32::MAX) && common * step <= u64::from(u32::MAX);
            if fits {
                common = common * step / gcd(common, step);
            }
            fits
        })
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}
