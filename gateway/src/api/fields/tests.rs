#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::{Fields, integer};

fn fields(value: &Value) -> Fields {
    Fields::parse(value.to_string().as_bytes()).unwrap()
}

#[test]
fn what_is_not_an_object_is_refused_without_a_field() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{\"a\":1e999}",
        "{\"a\":NaN}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\u{0}\"}",
        "{} {}",
    ] {
        let error = Fields::parse(body.as_bytes()).unwrap_err();
        assert_eq!(error.status().as_u16(), 400, "{body}");
        assert_eq!(error.param(), None, "{body}");
    }
    assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let error = Fields::parse(deep.as_bytes()).unwrap_err();
    assert!(error.message().contains("recursion"), "{error}");
}

#[test]
fn messages_name_the_path_the_found_and_the_expected() {
    let mut top = fields(&json!({"temperature": "hot", "inner": {"n": 9}}));
    let error = top.number("temperature", 0.0..=2.0).unwrap_err();
    assert_eq!(error.param(), Some("temperature"));
    assert_eq!(
        error.message(),
        "Invalid type for 'temperature': expected a number between 0 and 2, \
         but got a string instead."
    );
    let error = top
        .object("inner")
        .unwrap()
        .unwrap()
        .integer("n", 1..=8)
        .unwrap_err();
    assert_eq!(error.param(), Some("inner.n"));
    assert_eq!(
        error.message(),
        "Invalid 'inner.n': integer above maximum value. \
         Expected a value <= 8, but got 9 instead."
    );
}

#[test]
fn null_is_absent_and_the_last_duplicate_wins() {
    let mut top = Fields::parse(br#"{"a":null,"b":1,"b":2}"#).unwrap();
    assert_eq!(top.string("a").unwrap(), None);
    assert_eq!(top.integer("b", 0..=9).unwrap(), Some(2));
}

#[test]
fn whole_floats_are_integers_and_huge_ones_out_of_range() {
    let read = |value: Value| integer(&value, String::new, 0..=10);
    assert_eq!(read(json!(3.0)).unwrap(), 3);
    assert!(read(json!(3.5)).is_err());
    for huge in [
        json!(1e300),
        json!(-1e300),
        json!(u64::MAX),
        json!(i64::MIN),
    ] {
        assert!(read(huge).is_err());
    }
}

#[test]
fn words_are_listed() {
    let mut top = fields(&json!({"role": "wizard"}));
    let error = top
        .choice("role", &[("user", 1), ("system", 2)])
        .unwrap_err();
    assert_eq!(
        error.message(),
        "Invalid value: 'wizard'. Supported values are: 'user', 'system'."
    );
}
