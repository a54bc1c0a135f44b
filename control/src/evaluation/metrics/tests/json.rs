use super::close;
use crate::evaluation::metrics::json_fields;

#[test]
fn json_fields_tell_missing_wrong_and_extra_apart() {
    let reference =
        r#"{"name":"Ada","age":36,"tags":["a","b"],"address":{"city":"Paris","zip":"75001"}}"#;
    let output =
        r#"{"tags":["b","a"],"age":"36","name":"Ada","address":{"city":"Paris"},"note":1}"#;
    let report = json_fields::compare(output, reference, &[]).unwrap();
    assert_eq!(report.correct, ["/address/city", "/name"]);
    assert_eq!(report.missing, ["/address/zip"]);
    assert_eq!(report.wrong, ["/age", "/tags"]);
    assert_eq!(report.extra, ["/note"]);
    close(report.accuracy(), 2.0 / 6.0, "accuracy");

    let declared = ["name".to_owned(), "/address/city".to_owned()];
    let report = json_fields::compare(output, reference, &declared).unwrap();
    close(report.accuracy(), 1.0, "declared fields only");
    let fault = json_fields::compare(output, reference, &["phone".into()]).unwrap_err();
    assert!(fault.contains("`phone`"), "{fault}");
}

#[test]
fn json_numbers_compare_by_value_and_types_strictly() {
    let right = |output: &str, reference: &str| {
        json_fields::compare(output, reference, &[])
            .unwrap()
            .accuracy()
            == 1.0
    };
    assert!(right(r#"{"n":5.0}"#, r#"{"n":5}"#));
    assert!(right(r#"{"n":[1e2]}"#, r#"{"n":[100]}"#));
    assert!(!right(r#"{"n":"5"}"#, r#"{"n":5}"#));
    assert!(!right(r#"{"n":null}"#, r#"{"n":0}"#));
    assert!(!right(
        r#"{"n":9007199254740993}"#,
        r#"{"n":9007199254740992}"#
    ));
    assert!(right("{}", "{}"));
    assert!(!right("[]", "{}"));
    assert!(!right(r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1}}"#));
}

#[test]
fn invalid_json_is_all_wrong_with_the_reason() {
    let report = json_fields::compare("Sure! {\"a\":1}", r#"{"a":1,"b":2}"#, &[]).unwrap();
    assert_eq!(report.wrong, ["/a", "/b"]);
    close(report.accuracy(), 0.0, "accuracy");
    assert!(report.invalid.unwrap().contains("line 1 column 1"));
    close(
        json_fields::compare("no", "{}", &[]).unwrap().accuracy(),
        0.0,
        "nothing expected",
    );
}
