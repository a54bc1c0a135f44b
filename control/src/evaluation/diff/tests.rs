#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scores(values: &[(&str, f64)]) -> Vec<(String, Score)> {
    values
        .iter()
        .map(|(row, value)| ((*row).to_owned(), Score::Value(*value)))
        .collect()
}

#[test]
fn rows_come_worst_first_and_unknown_last() {
    let before = scores(&[
        ("a", 0.5),
        ("b", 0.5),
        ("c", 0.5),
        ("d", 0.5),
        ("gone", 1.0),
    ]);
    let mut after = scores(&[("d", 0.9), ("c", 0.5), ("b", 0.1), ("new", 1.0)]);
    after.push((
        "a".into(),
        Score::NotApplicable("the request failed".into()),
    ));
    let diff = compare_runs(&before, &after, Direction::Higher, 1e-9);
    let order: Vec<_> = diff
        .rows
        .iter()
        .map(|row| (row.row.as_str(), row.change))
        .collect();
    assert_eq!(
        order[..3],
        [
            ("b", Change::Worse),
            ("c", Change::Same),
            ("d", Change::Better)
        ]
    );
    assert!(
        order[3..]
            .iter()
            .all(|(_, change)| *change == Change::Unknown)
    );
    assert_eq!(
        (diff.worse, diff.same, diff.better, diff.unknown),
        (1, 1, 1, 3)
    );
    assert_eq!(diff.rows[5].before, None);
}

#[test]
fn slower_is_worse() {
    let diff = compare_runs(
        &scores(&[("a", 10.0)]),
        &scores(&[("a", 12.0)]),
        Direction::Lower,
        0.5,
    );
    assert_eq!(
        (diff.rows[0].change, diff.rows[0].gain),
        (Change::Worse, Some(-2.0))
    );
}

#[test]
fn texts_are_compared_by_word_in_any_script() {
    let piece = |side, text: &str| Piece {
        side,
        text: text.to_owned(),
    };
    assert_eq!(
        compare_texts("wait 30 seconds", "wait 60 seconds"),
        [
            piece(Side::Both, "wait "),
            piece(Side::Before, "30"),
            piece(Side::After, "60"),
            piece(Side::Both, " seconds"),
        ]
    );
    let chinese = compare_texts("请重启路由器", "请关闭路由器");
    assert_eq!(chinese.first(), Some(&piece(Side::Both, "请")));
    assert_eq!(chinese.last(), Some(&piece(Side::Both, "路由器")));
}

#[test]
fn huge_texts_are_compared_coarsely() {
    let lines = |word: &str| {
        (0..1_500)
            .map(|n| format!("{word} {n}\n"))
            .collect::<String>()
    };
    let by_line = compare_texts(&lines("a"), &lines("b"));
    assert_eq!(by_line.len(), 2);
    let pages = "a b\n".repeat(5_000);
    assert_eq!(
        compare_texts(&pages, &pages),
        [Piece {
            side: Side::Both,
            text: pages.clone()
        }]
    );
    assert_eq!(compare_texts(&pages, "b").len(), 2);
}

#[test]
fn json_is_compared_by_field() {
    let before = r#"{"a":1,"b":{"c":"x","d":[1,2]},"gone":true}"#;
    let after = r#"{"b":{"d":[2,1],"c":"x"},"a":1.0,"new":null}"#;
    let changed = |field: &str, before, after| FieldChange {
        field: field.into(),
        before,
        after,
    };
    assert_eq!(
        compare_json(before, after).unwrap(),
        [
            changed("/b/d", Some(json!([1, 2])), Some(json!([2, 1]))),
            changed("/gone", Some(json!(true)), None),
            changed("/new", None, Some(json!(null))),
        ]
    );
    assert!(
        compare_json("{}", "nope")
            .unwrap_err()
            .starts_with("after is not JSON")
    );
}

proptest! {
    #[test]
    fn pieces_make_up_both_texts(before in "[ab重启 \n]{0,40}", after in "[ab重启 \n]{0,40}") {
        let pieces = compare_texts(&before, &after);
        let of = |other: Side| -> String {
            pieces.iter().filter(|piece| piece.side != other).map(|piece| piece.text.as_str()).collect()
        };
        prop_assert_eq!(of(Side::After), before);
        prop_assert_eq!(of(Side::Before), after);
    }
}
