//! Ids in lists that people read, as the names of what they stand for. Programs get the ids.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields::encoded;
use super::view::picked;
use crate::cli::client::ApiClient;

/// Ids that are asked for at once.
const AT_ONCE: usize = 200;
/// What ids begin with of kinds that have names.
const NAMED: [&str; 11] = [
    "dep", "usr", "key", "art", "dst", "dsv", "mdl", "mdv", "trg", "evl", "dpl",
];

/// Replaces the ids in these columns. A record's own id stays, and so does what the server does not tell: an older one
/// tells nothing.
pub(super) async fn instead_of_ids(
    client: &ApiClient,
    columns: &[(&str, &str)],
    items: &mut [Value],
) {
    let columns: Vec<&str> = columns
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| *field != "id")
        .collect();
    let mut ids = BTreeSet::new();
    for item in items.iter() {
        for field in &columns {
            gather(picked(item, field), &mut ids);
        }
    }
    let ids: Vec<String> = ids.into_iter().collect();
    let mut names = BTreeMap::new();
    for part in ids.chunks(AT_ONCE) {
        let path = format!("/api/v1/names?ids={}", encoded(&part.join(",")));
        let Ok(answer) = client.get(&path).await else {
            return;
        };
        for (id, name) in answer["names"].as_object().into_iter().flatten() {
            if let Some(name) = name.as_str() {
                names.insert(id.clone(), name.to_owned());
            }
        }
    }
    for item in items {
        for field in &columns {
            if let Some(value) = item.get_mut(*field) {
                replace(value, &names);
            }
        }
    }
}

fn is_named(text: &str) -> bool {
    text.rsplit_once('_')
        .is_some_and(|(prefix, digits)| digits.len() == 26 && NAMED.contains(&prefix))
}

fn gather(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if is_named(text) => {
            ids.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, ids)),
        _ => {}
    }
}

fn replace(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(name) = names.get(text) {
                text.clone_from(name);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_other_texts() {
        assert!(is_named("usr_01m8q3a5xqe8vre2z7fsm887hx"));
        for other in ["usr_1", "wo_01m8q3a5xqe8vre2z7fsm887hx", "file:0123", "ada"] {
            assert!(!is_named(other), "{other}");
        }
    }
}
