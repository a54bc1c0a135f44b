//! Bounds, identity, symmetry, and independence of order and names.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{answered, read, sample};
use crate::evaluation::metrics::Metric;
use crate::evaluation::metrics::retrieval::Ranking;
use crate::evaluation::metrics::rouge::RougeKind;
use crate::evaluation::sample::{Output, Reference, Sample};
use crate::evaluation::statistics::Bootstrap;

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-e]{1,2}|[重启路由]|\\.|\n", 1..14).prop_map(|words| words.join(" "))
}

fn text_metrics() -> Vec<Metric> {
    [
        json!({"kind": "exact_match"}),
        json!({"kind": "token_f1", "cjk": true}),
        json!({"kind": "chrf"}),
        json!({"kind": "bleu"}),
        json!({"kind": "bleu", "tokenizer": "char"}),
        json!({"kind": "rouge", "variant": "1", "words": "cjk"}),
        json!({"kind": "rouge", "variant": "2", "words": "cjk"}),
        json!({"kind": "rouge", "variant": "l", "words": "cjk"}),
        json!({"kind": "rouge", "variant": "lsum", "words": "cjk"}),
    ]
    .iter()
    .map(read)
    .collect()
}

fn of(metric: &Metric, output: &str, references: &[String]) -> f64 {
    let sample = sample(
        0,
        Ok(Output::Text(output.into())),
        Reference::Texts(references.to_vec()),
    );
    metric.score(&sample).value().unwrap()
}

proptest! {
    #[test]
    fn text_scores_are_bounded_and_more_references_never_hurt(output in words(), one in words(), two in words()) {
        for metric in text_metrics() {
            let most = if matches!(metric, Metric::Bleu { .. } | Metric::Chrf) { 100.0 } else { 1.0 };
            let alone = of(&metric, &output, std::slice::from_ref(&one));
            prop_assert!((0.0..=most + 1e-9).contains(&alone), "{} {alone}", metric.name());
            // BLEU's brevity penalty may rise with a closer but longer reference.
            if !matches!(metric, Metric::Bleu { .. }) {
                let both = of(&metric, &output, &[two.clone(), one.clone()]);
                prop_assert!(both >= alone - 1e-12, "{} {both} < {alone}", metric.name());
            }
        }
    }

    #[test]
    fn identity_is_the_best_score(text in "[a-e重启]{2,9}( [a-e重启]{2,9}){4,9}") {
        for metric in text_metrics() {
            let most = if matches!(metric, Metric::Bleu { .. } | Metric::Chrf) { 100.0 } else { 1.0 };
            let score = of(&metric, &text, std::slice::from_ref(&text));
            prop_assert!((score - most).abs() < 1e-9, "{} {score} of {text}", metric.name());
        }
    }

    #[test]
    fn f_measures_are_symmetric(a in words(), b in words()) {
        for metric in text_metrics() {
            if matches!(metric, Metric::Bleu { .. } | Metric::Chrf | Metric::Rouge { variant: RougeKind::Lsum, .. }) {
                continue;
            }
            let (there, back) = (of(&metric, &a, std::slice::from_ref(&b)), of(&metric, &b, std::slice::from_ref(&a)));
            prop_assert!((there - back).abs() < 1e-12, "{} {there} {back}", metric.name());
        }
    }

    #[test]
    fn corpus_scores_do_not_depend_on_order(texts in prop::collection::vec((words(), words()), 2..12)) {
        let quick = Bootstrap::new(100, 0.9, 1).unwrap();
        let samples: Vec<Sample> = texts.iter().enumerate().map(|(row, (a, b))| answered(row, a, b)).collect();
        let reversed: Vec<Sample> = samples.iter().rev().cloned().collect();
        for metric in text_metrics() {
            let (one, two) = (metric.measure(&samples, &quick).value.unwrap(), metric.measure(&reversed, &quick).value.unwrap());
            prop_assert!((one - two).abs() < 1e-9, "{}", metric.name());
        }
    }

    #[test]
    fn retrieval_is_bounded_and_blind_to_names(scores in prop::collection::vec((0_u8..4, 0_u8..3), 1..12), k in 1_usize..8) {
        let by_name = |name: &dyn Fn(usize) -> String| {
            let retrieved: BTreeMap<_, _> = scores.iter().enumerate().map(|(i, (s, _))| (name(i), f64::from(*s))).collect();
            let relevant: BTreeMap<_, _> = scores.iter().enumerate().map(|(i, (_, g))| (name(i), f64::from(*g))).collect();
            Ranking::new(&retrieved, &relevant).ok()
        };
        let Some(ranking) = by_name(&|i| format!("a{i:03}")) else { return Ok(()) };
        let renamed = by_name(&|i| format!("b{:03}", 999 - i)).unwrap();
        for (one, two) in [
            (ranking.ndcg(k), renamed.ndcg(k)), (ranking.recall(k), renamed.recall(k)),
            (ranking.reciprocal_rank(), renamed.reciprocal_rank()), (ranking.average_precision(), renamed.average_precision()),
        ] {
            prop_assert!((-1e-12..=1.0 + 1e-12).contains(&one));
            prop_assert!((one - two).abs() < 1e-12);
        }
    }
}
