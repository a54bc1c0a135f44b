#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use serde_json::{Map, json};

use super::*;

const DOCS: &str = include_str!("../../../../docs/fields.md");

const ALL: [(&str, &[&[Refused]]); 9] = [
    ("", CHAT),
    ("", COMPLETIONS),
    ("messages[].", MESSAGE),
    ("stream_options.", STREAM_OPTIONS),
    ("structured_outputs.", STRUCTURED_OUTPUTS),
    ("", EMBEDDINGS),
    ("", RERANK),
    ("", CLASSIFY),
    ("", TOKENIZE),
];

fn rows(tables: &[&[Refused]]) -> Vec<Refused> {
    tables.iter().copied().flatten().copied().collect()
}

#[test]
fn every_refused_field_is_documented_once() {
    for (within, tables) in ALL {
        let mut seen = HashSet::new();
        for row in rows(tables) {
            let cell = format!("| `{within}{}` |", row.name);
            assert!(DOCS.contains(&cell), "docs/fields.md lacks {cell}");
            assert!(seen.insert(row.name), "{} stands there twice", row.name);
            assert!(
                !row.why.ends_with('.'),
                "{}: the full stop is added",
                row.name
            );
        }
    }
}

#[test]
fn a_field_is_refused_unless_it_asks_for_nothing() {
    for (_, tables) in ALL {
        for row in rows(tables) {
            let neutral = match row.neutral {
                Neutral::Null => json!(null),
                Neutral::False => json!(false),
                Neutral::True => json!(true),
                Neutral::Number(number) => json!(number),
                Neutral::Words(words) => json!(words[0]),
                Neutral::Empty => json!({}),
            };
            let checked = |value: Value| {
                let body = Map::from_iter([(row.name.to_owned(), value)]);
                let fields = Fields::nested(Value::Object(body), String::new()).unwrap();
                check(&fields, tables)
            };
            checked(json!(null)).unwrap();
            checked(neutral).unwrap();
            let refused = checked(json!(["something else"])).unwrap_err();
            assert_eq!(refused.param(), Some(row.name));
            assert_eq!(refused.status(), 400);
        }
    }
}

#[test]
fn what_nobody_documents_is_left_alone() {
    let fields = Fields::parse(br#"{"whatever": [1], "top_k": 3}"#).unwrap();
    check(&fields, CHAT).unwrap();
}
