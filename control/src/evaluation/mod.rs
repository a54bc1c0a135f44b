//! Whether a version is good enough: pure functions of stored samples, and what collects those.
//!
//! A version goes live on evidence, so the numbers must be the ones that others
//! would compute: each metric equals its reference implementation (test vectors
//! in `tests/fixtures/evaluation`), each comes with an interval, and a verdict
//! says which number met or missed which threshold. Nothing in this module but
//! [`run`] reads a clock, a database or a socket: that one renders [`prompt`]s,
//! asks the model, stores [`sample`]s and passes them to the rest.

pub mod diff;
pub mod metrics;
pub mod prompt;
pub mod run;
pub mod sample;
pub mod statistics;
pub mod verdict;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// `sha256:…` of a value's canonical JSON: keys sorted, no white space, absent options left out
/// (so that an option added later does not change the digest of what was approved without it).
///
/// Two values that mean the same have the same digest however they were written down,
/// which is what lets a gate compare the policy it was given with the policy that was used.
fn canonical_digest(value: &impl Serialize) -> String {
    // Serialising plain structs with string keys cannot fail; a failure would digest as null.
    let value = serde_json::to_value(value).unwrap_or_default();
    let mut text = String::new();
    write_canonical(&value, &mut text);
    format!("sha256:{:x}", Sha256::digest(text))
}

fn write_canonical(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    let mut list = |open, close, items: Vec<(Option<&str>, &Value)>| {
        out.push(open);
        for (index, (key, item)) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            if let Some(key) = key {
                out.push_str(&Value::from(key).to_string());
                out.push(':');
            }
            write_canonical(item, out);
        }
        out.push(close);
    };
    match value {
        Value::Object(members) => {
            let present = members.iter().filter(|(_, value)| !value.is_null());
            let mut members: Vec<_> = present.map(|(k, v)| (Some(k.as_str()), v)).collect();
            members.sort_by_key(|(key, _)| *key);
            list('{', '}', members);
        }
        Value::Array(items) => list('[', ']', items.iter().map(|item| (None, item)).collect()),
        plain => out.push_str(&plain.to_string()),
    }
}
