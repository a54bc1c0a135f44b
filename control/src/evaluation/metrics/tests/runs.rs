//! Whole runs: what is scored, what is left out, how two runs compare.

use serde_json::{Value, json};

use super::{Cases, answered, close, read, sample, vectors};
use crate::evaluation::metrics::classification::Average;
use crate::evaluation::metrics::text::Normalisation;
use crate::evaluation::metrics::{Direction, Metric, compare_scores, measure_scores};
use crate::evaluation::sample::{Output, Reference, Sample, Score};
use crate::evaluation::statistics::{Bootstrap, Test};

fn exact() -> Metric {
    Metric::ExactMatch {
        normalisation: Normalisation::None,
    }
}

fn median(kind: &str) -> Metric {
    read(&json!({"kind": kind, "percentile": 50}))
}

#[test]
fn a_sample_without_a_score_says_why_and_is_not_a_zero() {
    let failed = sample(
        0,
        Err("HTTP 503".into()),
        Reference::Texts(vec!["a".into()]),
    );
    let unlabelled = sample(1, Ok(Output::Text("a".into())), Reference::Nothing);
    let reason = |sample: &Sample, metric: &Metric| match metric.score(sample) {
        Score::NotApplicable(reason) => reason,
        Score::Value(value) => panic!("scored {value}"),
    };
    assert_eq!(reason(&failed, &exact()), "the request failed: HTTP 503");
    assert!(reason(&failed, &median("latency")).contains("failed"));
    assert!(reason(&unlabelled, &exact()).contains("no reference"));
    assert!(reason(&unlabelled, &median("first_token")).contains("not streamed"));
    assert!(reason(&unlabelled, &Metric::Mrr).contains("not a ranking"));

    let samples = [failed, unlabelled, answered(2, "a", "a")];
    let measured = exact().measure(&samples, &Bootstrap::default());
    assert_eq!((measured.value, measured.scored), (Some(1.0), 1));
    assert_eq!(measured.unscored.values().sum::<usize>(), 2);
    assert_eq!(measured.interval, None);
    assert_eq!(
        exact().measure(&samples[..1], &Bootstrap::default()).value,
        None
    );
}

#[test]
fn every_metric_measures_what_its_parts_compute() {
    let vectors = vectors();
    let cases: Cases = read(&vectors["cases"]);
    let samples: Vec<Sample> = cases
        .into_iter()
        .enumerate()
        .map(|(row, (output, references))| {
            sample(row, Ok(Output::Text(output)), Reference::Texts(references))
        })
        .collect();
    let quick = Bootstrap::new(200, 0.9, 1).unwrap();
    let rouge: Vec<f64> = read(&vectors["rouge"]["lsum"]);
    for (metric, expected) in [
        (
            json!({"kind": "bleu", "tokenizer": "zh"}),
            read(&vectors["bleu"]["zh"]["corpus"]),
        ),
        (json!({"kind": "chrf"}), read(&vectors["chrf"]["corpus"])),
        (
            json!({"kind": "rouge", "variant": "lsum"}),
            rouge.iter().sum::<f64>() / rouge.len() as f64,
        ),
        (
            json!({"kind": "latency", "percentile": 50.0}),
            1_000.0 * (samples.len() as f64 + 1.0) / 2.0,
        ),
    ] {
        let metric: Metric = read(&metric);
        let measured = metric.measure(&samples, &quick);
        close(measured.value.unwrap(), expected, &metric.name());
        let interval = measured.interval.unwrap();
        assert!(
            interval.low < interval.high && interval.confidence == 0.9,
            "{}: {interval:?}",
            metric.name()
        );
    }
}

#[test]
fn names_carry_the_configuration() {
    let name = |metric: Value| read::<Metric>(&metric).name();
    assert_eq!(name(json!({"kind": "bleu"})), "bleu/13a");
    assert_eq!(
        name(json!({"kind": "exact_match", "normalisation": "squad"})),
        "exact_match/squad"
    );
    assert_eq!(
        name(json!({"kind": "rouge", "variant": "l", "words": "cjk"})),
        "rouge_l/cjk"
    );
    assert_eq!(
        name(json!({"kind": "label_f1", "average": "macro"})),
        "f1_macro/none"
    );
    assert_eq!(name(json!({"kind": "ndcg", "k": 10})), "ndcg@10");
    assert_eq!(
        name(json!({"kind": "likelihood", "unit": "bits_per_byte"})),
        "bits_per_byte"
    );
    assert_eq!(
        name(json!({"kind": "latency", "percentile": 99.9})),
        "latency_us/p99.9"
    );
    assert_eq!(
        name(json!({"kind": "json_fields", "fields": ["a", "/b"]})),
        "json_fields/a,/b"
    );
    assert!(serde_json::from_value::<Metric>(json!({"kind": "ndcg", "k": 1, "cut": 2})).is_err());
}

#[test]
fn comparison_pairs_by_row_and_tests_binary_scores_exactly() {
    let run = |right: fn(usize) -> bool, rows: std::ops::Range<usize>| -> Vec<Sample> {
        rows.rev()
            .map(|row| answered(row, if right(row) { "a" } else { "b" }, "a"))
            .collect()
    };
    let candidate = run(|row| row % 10 != 0, 0..100);
    let live = run(|row| row % 10 > 1, 5..105);
    let compared = exact().compare(&candidate, &live, &Bootstrap::default());
    assert_eq!(compared.unpaired, 10);
    let paired = compared.paired.unwrap();
    assert_eq!((paired.samples, paired.test), (95, Test::McNemar));
    // Nine rows end in 1 among those shared; the candidate has them right, the live one wrong.
    close(paired.difference, 9.0 / 95.0, "difference");
    close(paired.two_sided, 2.0 / 512.0, "two-sided");
    close(compared.p_worse().unwrap(), 1.0, "p of being worse");
    close(compared.regression().unwrap(), -9.0 / 95.0, "regression");

    let f1 = Metric::LabelF1 {
        average: Average::Macro,
        normalisation: Normalisation::None,
    };
    assert_eq!(
        f1.compare(&candidate, &live, &Bootstrap::default())
            .paired
            .unwrap()
            .test,
        Test::Permutation
    );
    assert_eq!(
        exact()
            .compare(&candidate, &[], &Bootstrap::default())
            .paired,
        None
    );
}

#[test]
fn scores_from_outside_are_measured_alike() {
    let scores: Vec<(String, Score)> = (0..40)
        .map(|row| (row.to_string(), Score::Value(f64::from(row % 5) / 4.0)))
        .collect();
    let worse: Vec<_> = scores
        .iter()
        .map(|(row, score)| (row.clone(), Score::Value(score.value().unwrap() * 0.8)))
        .collect();
    let only: Vec<Score> = scores.iter().map(|(_, score)| score.clone()).collect();
    let measured = measure_scores(
        "judge/helpful",
        Direction::Higher,
        &only,
        &Bootstrap::default(),
    );
    close(measured.value.unwrap(), 0.5, "mean");
    let compared = compare_scores(
        "judge/helpful",
        Direction::Higher,
        &worse,
        &scores,
        &Bootstrap::default(),
    );
    close(compared.regression().unwrap(), 0.1, "regression");
    assert!(compared.p_worse().unwrap() < 0.01);
}

#[test]
fn metrics_that_cannot_be_computed_are_refused() {
    let fault = |metric: Value| {
        serde_json::from_value::<Metric>(metric)
            .unwrap_err()
            .to_string()
    };
    for percentile in [0.0, 100.0, -5.0] {
        let fault = fault(json!({"kind": "latency", "percentile": percentile}));
        assert!(fault.contains("not above 0 and below 100"), "{fault}");
    }
    assert!(fault(json!({"kind": "recall", "k": 0})).contains("nonzero"));
}
