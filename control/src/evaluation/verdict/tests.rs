#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::evaluation::metrics::Direction;
use crate::evaluation::statistics::{Interval, Paired, Test};

fn policy(rules: &Value) -> Policy {
    serde_json::from_value(json!({"rules": rules})).unwrap()
}

fn fault(policy: &Value) -> String {
    serde_json::from_value::<Policy>(policy.clone())
        .unwrap_err()
        .to_string()
}

fn measured(metric: &str, value: f64, low: f64, high: f64) -> Measurement {
    Measurement {
        metric: metric.into(),
        direction: Direction::Higher,
        value: Some(value),
        interval: Some(Interval {
            low,
            high,
            confidence: 0.95,
        }),
        scored: 200,
        unscored: BTreeMap::new(),
    }
}

fn compared(metric: &str, direction: Direction, difference: f64, p_worse: f64) -> Comparison {
    let (lower, higher) = match direction {
        Direction::Higher => (p_worse, 1.0),
        Direction::Lower => (1.0, p_worse),
    };
    let paired = Paired {
        difference,
        interval: None,
        test: Test::Permutation,
        two_sided: 1.0,
        lower,
        higher,
        samples: 200,
    };
    Comparison {
        metric: metric.into(),
        direction,
        paired: Some(paired),
        unpaired: 0,
    }
}

fn judge(policy: &Policy, measurement: Measurement) -> (Verdict, String) {
    let judged = policy.judge(&[measurement], &Baseline::NothingLive);
    (judged.verdict, judged.reasons[0].text.clone())
}

#[test]
fn a_point_passes_at_the_threshold_and_fails_below_with_all_numbers_named() {
    let policy = policy(&json!([{"metric": "f1", "min": 0.9}]));
    assert_eq!(
        judge(&policy, measured("f1", 0.9, 0.85, 0.95)).0,
        Verdict::Passed
    );
    let (verdict, text) = judge(&policy, measured("f1", 0.8999, 0.85, 0.95));
    assert_eq!(verdict, Verdict::Failed);
    assert_eq!(
        text,
        "f1 is 0.8999 [0.85, 0.95] at 95% confidence, below min 0.9 (200 samples)"
    );
}

#[test]
fn a_bound_decides_only_when_the_whole_interval_is_on_one_side() {
    let policy = policy(&json!([{"metric": "f1", "min": 0.9, "on": "bound"}]));
    assert_eq!(
        judge(&policy, measured("f1", 0.95, 0.91, 0.97)).0,
        Verdict::Passed
    );
    assert_eq!(
        judge(&policy, measured("f1", 0.95, 0.89, 0.97)).0,
        Verdict::Inconclusive
    );
    assert_eq!(
        judge(&policy, measured("f1", 0.85, 0.80, 0.89)).0,
        Verdict::Failed
    );
    let no_interval = Measurement {
        interval: None,
        ..measured("f1", 0.95, 0.0, 0.0)
    };
    assert_eq!(judge(&policy, no_interval).0, Verdict::Inconclusive);
}

#[test]
fn a_maximum_is_held_the_other_way_around() {
    let policy = policy(&json!([{"metric": "latency_us/p95", "max": 250_000.0, "on": "bound"}]));
    let of = |value, low, high| judge(&policy, measured("latency_us/p95", value, low, high));
    assert_eq!(of(200_000.0, 190_000.0, 240_000.0).0, Verdict::Passed);
    assert_eq!(of(240_000.0, 190_000.0, 260_000.0).0, Verdict::Inconclusive);
    let (verdict, text) = of(310_000.4, 290_000.0, 330_000.0);
    assert_eq!(verdict, Verdict::Failed);
    assert!(
        text.contains("is 310000 [290000, 330000]") && text.contains("above max 250000"),
        "{text}"
    );
}

#[test]
fn no_data_never_passes() {
    let policy = policy(&json!([{"metric": "f1", "min": 0.0}]));
    let judged = policy.judge(&[], &Baseline::NothingLive);
    assert_eq!(judged.verdict, Verdict::Inconclusive);
    assert_eq!(judged.reasons[0].text, "f1 was not measured");

    let few = Measurement {
        scored: 29,
        ..measured("f1", 1.0, 1.0, 1.0)
    };
    let (verdict, text) = judge(&policy, few);
    assert_eq!(verdict, Verdict::Inconclusive);
    assert_eq!(text, "f1 has 29 scored samples, fewer than min_samples 30");

    let unscored = BTreeMap::from([("the request failed: HTTP 503".to_owned(), 7)]);
    let failing = Measurement {
        unscored: unscored.clone(),
        ..measured("f1", 1.0, 1.0, 1.0)
    };
    let (verdict, text) = judge(&policy, failing);
    assert_eq!(verdict, Verdict::Inconclusive);
    assert!(
        text.contains("7 of 207 samples (7 × the request failed: HTTP 503)"),
        "{text}"
    );

    let nothing = Measurement {
        value: None,
        scored: 0,
        unscored,
        ..measured("f1", 0.0, 0.0, 0.0)
    };
    assert_eq!(judge(&policy, nothing).0, Verdict::Inconclusive);
}

#[test]
fn a_regression_fails_only_when_it_is_large_and_real() {
    let policy = policy(&json!([{"metric": "f1", "max_regression": {"by": 0.01}}]));
    let of = |difference, p| {
        let live = Baseline::Live(vec![compared("f1", Direction::Higher, difference, p)]);
        policy.judge(&[measured("f1", 0.9, 0.85, 0.95)], &live)
    };
    assert_eq!(of(0.05, 0.99).verdict, Verdict::Passed);
    assert_eq!(of(-0.005, 0.001).verdict, Verdict::Passed);
    assert_eq!(of(-0.05, 0.2).verdict, Verdict::Inconclusive);
    let failed = of(-0.05, 0.001);
    assert_eq!(failed.verdict, Verdict::Failed);
    assert_eq!(
        failed.reasons[0].text,
        "f1 differs from the live version by -0.05 (max_regression 0.01, one-sided p = 1.00e-3, alpha 0.05, 200 samples)"
    );
}

#[test]
fn slower_is_a_regression_too() {
    let policy = policy(
        &json!([{"metric": "latency_us/p95", "max_regression": {"by": 1000.0, "alpha": 0.01}}]),
    );
    let of = |difference, p| {
        let live = Baseline::Live(vec![compared(
            "latency_us/p95",
            Direction::Lower,
            difference,
            p,
        )]);
        policy
            .judge(&[measured("latency_us/p95", 9e4, 8e4, 1e5)], &live)
            .verdict
    };
    assert_eq!(of(5000.0, 0.001), Verdict::Failed);
    assert_eq!(of(5000.0, 0.02), Verdict::Inconclusive);
    assert_eq!(of(-5000.0, 1.0), Verdict::Passed);
}

#[test]
fn a_live_version_that_was_not_compared_is_no_data_and_none_live_is_no_regression() {
    let policy = policy(&json!([{"metric": "f1", "max_regression": {"by": 0.0}}]));
    let run = [measured("f1", 0.9, 0.85, 0.95)];
    assert_eq!(
        policy.judge(&run, &Baseline::Live(vec![])).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        policy.judge(&run, &Baseline::NothingLive).verdict,
        Verdict::Passed
    );
}

#[test]
fn the_worst_reason_is_the_verdict() {
    let policy = policy(&json!([
        {"metric": "a", "min": 0.5}, {"metric": "b", "min": 0.5}, {"metric": "c", "min": 0.5, "on": "bound"},
    ]));
    let (good, open) = (measured("a", 0.9, 0.8, 1.0), measured("c", 0.6, 0.4, 0.7));
    let of = |b: f64| {
        policy.judge(
            &[good.clone(), measured("b", b, b, b), open.clone()],
            &Baseline::NothingLive,
        )
    };
    assert_eq!(of(0.6).verdict, Verdict::Inconclusive);
    assert_eq!(of(0.4).verdict, Verdict::Failed);
    assert_eq!(of(0.4).reasons.len(), 3);
}

#[test]
fn the_digest_is_stable_and_changes_with_every_field() {
    let text = r#"{"rules":[{"metric":"b","min":0.5},{"metric":"a","max":2,"on":"point"}]}"#;
    let reordered = r#"{"max_unscored":0,"min_samples":30,
        "rules":[{"on":"point","max":2.0,"metric":"a","min":null},{"min":5e-1,"metric":"b"}]}"#;
    let of = |text: &str| serde_json::from_str::<Policy>(text).unwrap().digest();
    assert_eq!(of(text), of(reordered));
    // Fixed for good: a change here would void every approval that was given.
    assert_eq!(
        of(text),
        "sha256:32d894b3efae4084313a178c6e94e397672e86b5c7b7cd42db07dd2da7692806"
    );
    for (from, to) in [
        ("0.5", "0.51"),
        ("\"min\"", "\"max\""),
        ("point", "bound"),
        ("\"b\"", "\"c\""),
    ] {
        assert_ne!(of(text), of(&text.replace(from, to)), "{from} → {to}");
    }
    let back: Policy = serde_json::from_value(
        serde_json::to_value(policy(&json!([{"metric": "a", "min": 1}]))).unwrap(),
    )
    .unwrap();
    assert_eq!(
        back.digest(),
        policy(&json!([{"metric": "a", "min": 1}])).digest()
    );
}

#[test]
fn policies_that_cannot_hold_are_refused_by_name() {
    assert!(fault(&json!({"rules": []})).contains("without rules"));
    assert!(fault(&json!({"rules": [{"metric": "a"}]})).contains("`a` sets neither"));
    let twice = json!({"rules": [{"metric": "a", "min": 1}, {"metric": "a", "max": 2}]});
    assert!(fault(&twice).contains("`a` has two rules"));
    assert!(
        fault(&json!({"rules": [{"metric": "a", "min": 3, "max": 2}]})).contains("above its max")
    );
    let alpha = json!({"rules": [{"metric": "a", "max_regression": {"by": 0, "alpha": 0.7}}]});
    assert!(fault(&alpha).contains("max_regression.alpha of `a` is 0.7"));
    let by = json!({"rules": [{"metric": "a", "max_regression": {"by": -1}}]});
    assert!(fault(&by).contains("max_regression.by of `a` is -1"));
    assert!(
        fault(&json!({"rules": [{"metric": "a", "min": 1}], "min_samples": 0}))
            .contains("min_samples")
    );
    assert!(
        fault(&json!({"rules": [{"metric": "a", "min": 1}], "max_unscored": 2}))
            .contains("max_unscored: 2")
    );
    assert!(fault(&json!({"rules": [{"metric": "a", "minimum": 1}]})).contains("minimum"));
}
