#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn fault(metrics: &Value) -> String {
    Measures::read(metrics).unwrap_err().to_string()
}

#[test]
fn metrics_are_read_strictly_and_the_field_is_named() {
    let fine = json!({
        "ask": {"kind": "chat", "columns": {"reference": "ticket"}, "sampling": {"max_tokens": 90}},
        "measure": [{"kind": "json_fields"}, {"kind": "latency", "percentile": 95}],
        "leading": {"metric": "json_fields", "pass": 0.8},
    });
    let measures = Measures::read(&fine).unwrap();
    assert_eq!(measures.names(), ["json_fields", "latency_us/p95"]);
    for (change, said) in [
        (
            json!({"measure": []}),
            "metrics.measure: is empty and there is no judge",
        ),
        (
            json!({"measure": [{"kind": "ndcg", "k": 0}]}),
            "metrics.measure[0]",
        ),
        (
            json!({"measure": [{"kind": "ndcg", "k": 3}]}),
            "ndcg@3 takes ask.kind rank or retrieve",
        ),
        (
            json!({"measure": [{"kind": "chrf"}, {"kind": "chrf"}]}),
            "metrics.measure: has chrf twice",
        ),
        (
            json!({"leading": {"metric": "bleu"}}),
            "metrics.leading.metric: is bleu, which is not measured",
        ),
        (
            json!({"ask": {"sampling": {"stream": true}}}),
            "metrics.ask.sampling.stream: is set by the run itself",
        ),
        (
            json!({"ask": {"columns": {"label": "x"}}}),
            "metrics.ask.columns",
        ),
        (json!({"weights": 1}), "unknown field `weights`"),
    ] {
        let mut metrics = fine.clone();
        for (name, value) in change.as_object().unwrap() {
            metrics[name] = value.clone();
        }
        let fault = fault(&metrics);
        assert!(fault.contains(said), "{fault}");
    }
    let judge = json!({"deployment": "j", "rubric": {"criteria": "c", "lowest": 1, "highest": 5}});
    let ranked = json!({"ask": {"kind": "rank"}, "judge": judge});
    assert!(fault(&ranked).contains("metrics.judge: grades texts"));
    let judged = Measures::read(&json!({"judge": judge})).unwrap();
    assert_eq!(
        (judged.names(), judged.leading()),
        (vec![JUDGE.to_owned()], JUDGE.to_owned())
    );
}

#[test]
fn thresholds_on_what_is_not_measured_are_refused() {
    let measures = Measures::read(&json!({"measure": [{"kind": "chrf"}]})).unwrap();
    let read = |thresholds| read_policy(&thresholds, &measures).unwrap_err().to_string();
    let fault = read(json!({"rules": [{"metric": "bleu/13a", "min": 1}]}));
    assert!(
        fault.contains("bleu/13a, which is not measured; there are chrf"),
        "{fault}"
    );
    assert!(read(json!({"f1": 0.8})).contains("unknown field `f1`, expected one of `rules`"));
    assert!(read(json!({"rules": []})).contains("name at least one metric"));
}

#[test]
fn a_sample_passes_by_the_leading_metric() {
    let passes = |metrics: Value, score| Measures::read(&metrics).unwrap().passes(score);
    let exact = json!({"measure": [{"kind": "exact_match"}]});
    assert!(
        passes(exact.clone(), Some(1.0))
            && !passes(exact.clone(), Some(0.9))
            && !passes(exact, None)
    );
    let f1 =
        json!({"measure": [{"kind": "token_f1"}], "leading": {"metric": "token_f1", "pass": 0.5}});
    assert!(passes(f1.clone(), Some(0.5)) && !passes(f1, Some(0.4)));
    let time = json!({
        "measure": [{"kind": "latency", "percentile": 50}],
        "leading": {"metric": "latency_us/p50", "pass": 1000},
    });
    assert!(passes(time.clone(), Some(900.0)) && !passes(time, Some(1100.0)));
}

#[test]
fn settings_have_bounds() {
    let fault = |settings| RunSettings::read(&settings).unwrap_err().to_string();
    assert!(
        fault(json!({"concurrency": 0})).contains("settings.concurrency: is 0, should be 1 to 256")
    );
    assert!(fault(json!({"timeout_s": 0})).contains("settings.timeout_s"));
    assert!(fault(json!({"concurency": 1})).contains("unknown field"));
    assert_eq!(RunSettings::read(&json!({})).unwrap().concurrency, 4);
}
