#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn read(text: &str, ask: &Value) -> Result<Vec<Row>, String> {
    let ask = serde_json::from_value(ask.clone()).unwrap();
    let limits = RowLimits { rows: 3, bytes: 0 };
    parse("t.jsonl", text, &ask, limits).map_err(|error| error.to_string())
}

#[test]
fn rows_have_ids_tags_and_places() {
    let text =
        "{\"id\": 7, \"tags\": \"a\"}\n\n{\"id\": \"x\", \"tags\": [\"a\", \"b\"], \"q\": 1}\n";
    let rows = read(text, &json!({})).unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.ordinal, &*row.item, row.tags.join("+")))
        .collect();
    assert_eq!(
        shown,
        [(0, "7", "a".to_owned()), (1, "x", "a+b".to_owned())]
    );
    let numbered = read("{}\n{}\n", &json!({})).unwrap();
    assert_eq!(numbered[1].item, "2");
}

#[test]
fn what_is_wrong_with_a_row_is_said_by_line() {
    let by_key = json!({"columns": {"id": "key"}});
    for (text, ask, said) in [
        ("", json!({}), "t.jsonl has no rows"),
        (
            "{}\n[]\n",
            json!({}),
            "t.jsonl, line 2: should be a JSON object",
        ),
        ("{}\n{}\n{}\n{}\n", json!({}), "more than 3 rows"),
        (
            "{\"id\": 1}\n{\"id\": \"1\"}\n",
            json!({}),
            "line 2: has the id 1, as line 1 has",
        ),
        (
            "{\"id\": 1}\n",
            by_key.clone(),
            "line 1: has no column `key`; it has id",
        ),
        (
            "{\"key\": []}\n",
            by_key,
            "line 1: `key` should be a text or a number",
        ),
        (
            "{\"tags\": [1]}\n",
            json!({}),
            "line 1: `tags` should be a text or a list of texts",
        ),
    ] {
        let fault = read(text, &ask).unwrap_err();
        assert!(fault.contains(said), "{fault}");
    }
}

#[test]
fn the_file_is_the_only_one_or_the_named_one() {
    let files = |names: &[&str]| -> Vec<File> {
        let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let file = |path: &&str| File {
            path: (*path).to_owned(),
            digest,
            bytes: 1,
        };
        names.iter().map(file).collect()
    };
    let chosen = |names: &[&str], ask: Value| {
        let ask: Ask = serde_json::from_value(ask).unwrap();
        choose(&files(names), &ask)
            .map(|file| file.path)
            .map_err(|error| error.to_string())
    };
    let plain = json!({});
    assert_eq!(
        chosen(&["a.md", "b.jsonl", "corpus.jsonl"], plain.clone()).unwrap(),
        "b.jsonl"
    );
    let fault = chosen(&["a.jsonl", "b.jsonl"], plain.clone()).unwrap_err();
    assert!(
        fault.contains("name one as metrics.ask.file: a.jsonl, b.jsonl"),
        "{fault}"
    );
    assert!(
        chosen(&["a.md"], plain)
            .unwrap_err()
            .contains("has no .jsonl file; it has a.md")
    );
    assert_eq!(
        chosen(&["a.jsonl", "b.jsonl"], json!({"file": "a.jsonl"})).unwrap(),
        "a.jsonl"
    );
    assert!(
        chosen(&["a.jsonl"], json!({"file": "c"}))
            .unwrap_err()
            .contains("has no file c")
    );
}
