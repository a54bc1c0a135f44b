#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn count(form: Form, bytes: &[u8], piece: usize) -> Option<Rows> {
    let mut counter = Counter::new(form, None);
    for piece in bytes.chunks(piece) {
        counter.feed(piece).unwrap();
    }
    counter.finish().unwrap()
}

fn rows(rows: u64, headers: u64) -> Option<Rows> {
    Some(Rows { rows, headers })
}

#[test]
fn rows_are_counted_however_the_bytes_come() {
    let lines = b"{\"a\": 1}\n\n  \r\n{\"a\": 2}\n{\"a\": 3}";
    let records = b"a,b\n1,\"two\nlines, and a \"\"quote\"\"\"\n\n2,3\n";
    for piece in 1..lines.len() {
        assert_eq!(count(Form::JsonLines, lines, piece), rows(3, 0));
        assert_eq!(count(Form::Separated, records, piece), rows(2, 1));
    }
    assert_eq!(count(Form::JsonLines, b"", 1), rows(0, 0));
    assert_eq!(count(Form::Separated, b"", 1), rows(0, 0));
    assert!(rows(2, 1).unwrap().may_be(3) && !rows(2, 1).unwrap().may_be(4));
}

/// A footer as writers make it: version, a schema of two elements, 60 rows, then what is never read.
fn parquet(footer: &[u8]) -> Vec<u8> {
    let mut file = b"PAR1 pages".to_vec();
    file.extend_from_slice(footer);
    file.extend_from_slice(&u32::try_from(footer.len()).unwrap().to_le_bytes());
    file.extend_from_slice(b"PAR1");
    file
}

const FOOTER: &[u8] = &[
    0x15, 0x02, // 1: i32, version 1
    0x19, 0x2c, // 2: a list of two structures
    0x48, 6, b's', b'c', b'h', b'e', b'm', b'a', 0x15, 0x02, 0x00, // name, children
    0x15, 0x0c, 0x25, 0x02, 0x18, 1, b'a', 0x00, // type, repetition, name
    0x16, 0x78, // 3: i64, 60 rows
    0x19, 0x0c, 0x00, // 4: no row groups
];

#[test]
fn a_parquet_file_says_its_rows_in_its_footer() {
    let file = parquet(FOOTER);
    for piece in [1, 7, file.len()] {
        assert_eq!(count(Form::Parquet, &file, piece), rows(60, 0));
    }
    for cut in 0..file.len() {
        assert_eq!(count(Form::Parquet, &file[..cut], 16), None, "{cut}");
    }
}

proptest! {
    #[test]
    fn no_footer_does_harm(footer in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = count(Form::Parquet, &parquet(&footer), 64);
    }
}

#[test]
fn a_corpus_beside_rows_is_no_rows() {
    let paths = |files: &[&'static str]| -> Vec<&'static str> {
        holding_rows(files, |it| it)
            .into_iter()
            .map(|(file, _)| *file)
            .collect()
    };
    assert_eq!(
        paths(&["README.md", "corpus.jsonl", "rows.jsonl", "more.CSV"]),
        ["rows.jsonl", "more.CSV"]
    );
    assert_eq!(paths(&["corpus.jsonl"]), ["corpus.jsonl"]);
    assert!(paths(&["a.png", "b"]).is_empty());
}

fn looked(schema: &Value, lines: &str) -> Result<(), String> {
    let mut schema = RowSchema::read(schema).unwrap().unwrap();
    let mut counter = Counter::new(Form::JsonLines, Some(&mut schema));
    counter.feed(lines.as_bytes())?;
    counter.finish()?;
    schema.finish()
}

#[test]
fn rows_are_as_the_schema_says() {
    let lines = "{\"text\": \"a\", \"n\": 1}\n{\"text\": null, \"n\": 2.5}\n";
    let schema = |text: Value, n: &str| json!({ "properties": { "text": { "type": text }, "n": { "type": n } }, "required": ["text"] });
    assert_eq!(
        looked(&schema(json!(["string", "null"]), "number"), lines),
        Ok(())
    );
    for (schema, said) in [
        (
            schema(json!("string"), "number"),
            "properties.text.type is string, and row 2 has null",
        ),
        (
            schema(json!(["string", "null"]), "integer"),
            "properties.n.type is integer, and row 2 has number",
        ),
        (
            json!({ "required": ["frage"] }),
            "required names frage, which row 1 has not",
        ),
        (
            json!({ "properties": { "frage": {} } }),
            "properties names frage, which no row has",
        ),
    ] {
        assert_eq!(looked(&schema, lines), Err(said.to_owned()));
    }
    for (schema, path) in [
        (json!({ "columns": ["text"] }), ""),
        (json!({ "required": "text" }), "required"),
        (json!({ "properties": ["text"] }), "properties"),
        (
            json!({ "properties": { "a": { "type": "text" } } }),
            "properties.a.type",
        ),
    ] {
        assert_eq!(RowSchema::read(&schema).unwrap_err().0, path);
    }
    assert!(RowSchema::read(&json!({})).unwrap().is_none());
}
