//! Whether a threshold can be met at all: a share of 80 was meant as 0.8, and no version would ever pass. Asked when an
//! evaluation is defined; a run of what was defined earlier is judged as it is.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::plan::{InvalidPlan, JUDGE, JUDGE_WINS, Measures, invalid};
use crate::evaluation::metrics::Metric;
use crate::evaluation::metrics::likelihood::Likelihood;

/// From 0 to 1.
const SHARE: RangeInclusive<f64> = 0.0..=1.0;

impl Metric {
    /// The least and the greatest value that there can be.
    pub fn range(&self) -> RangeInclusive<f64> {
        match self {
            Self::ExactMatch { .. }
            | Self::TokenF1 { .. }
            | Self::JsonFields { .. }
            | Self::Rouge { .. }
            | Self::Accuracy { .. }
            | Self::LabelF1 { .. }
            | Self::Ndcg { .. }
            | Self::Recall { .. }
            | Self::Mrr
            | Self::Map => SHARE,
            Self::Bleu { .. } | Self::Chrf => 0.0..=100.0,
            Self::Likelihood {
                unit: Likelihood::PerToken | Likelihood::PerByte,
            } => 1.0..=f64::INFINITY,
            Self::Likelihood {
                unit: Likelihood::BitsPerByte,
            }
            | Self::Latency { .. }
            | Self::FirstToken { .. } => 0.0..=f64::INFINITY,
        }
    }
}

impl Measures {
    /// The range of what is measured under a name.
    fn range_of(&self, name: &str) -> Option<RangeInclusive<f64>> {
        if self.judge.is_some() && [JUDGE, JUDGE_WINS].contains(&name) {
            return Some(SHARE);
        }
        let metric = self.measure.iter().find(|metric| metric.name() == name);
        metric.map(Metric::range)
    }
}

/// Whether the thresholds of what is measured lie where its values do.
///
/// # Errors
/// Names the rule and the field.
pub fn check_reach(thresholds: &Value, measures: &Measures) -> Result<(), InvalidPlan> {
    let rules = thresholds["rules"].as_array().into_iter().flatten();
    for (at, rule) in rules.enumerate() {
        let Some(metric) = rule["metric"].as_str() else {
            continue;
        };
        let Some(range) = measures.range_of(metric) else {
            continue;
        };
        for field in ["min", "max"] {
            if let Some(value) = rule[field].as_f64() {
                within(
                    &format!("thresholds.rules[{at}].{field}"),
                    value,
                    metric,
                    &range,
                )?;
            }
        }
        let width = range.end() - range.start();
        if let Some(by) = rule["max_regression"]["by"]
            .as_f64()
            .filter(|by| *by > width)
        {
            return Err(invalid(
                format!("thresholds.rules[{at}].max_regression.by"),
                format!("is {by}; {metric} {}", said(&range)),
            ));
        }
    }
    Ok(())
}

/// Whether the score from which a sample passes is one that there can be.
///
/// # Errors
/// Names the field below `metrics`.
pub fn check_pass(measures: &Measures) -> Result<(), InvalidPlan> {
    let Some(leading) = &measures.leading else {
        return Ok(());
    };
    match (leading.pass, measures.range_of(&leading.metric)) {
        (Some(pass), Some(range)) => within("metrics.leading.pass", pass, &leading.metric, &range),
        _ => Ok(()),
    }
}

fn within(
    field: &str,
    value: f64,
    metric: &str,
    range: &RangeInclusive<f64>,
) -> Result<(), InvalidPlan> {
    if range.contains(&value) {
        return Ok(());
    }
    // What was meant, where it is plain.
    let meant = (*range == SHARE && (1.0..=100.0).contains(&value))
        .then(|| format!("; {value} % is {}", value / 100.0));
    Err(invalid(
        field,
        format!(
            "is {value}; {metric} {}{}",
            said(range),
            meant.unwrap_or_default()
        ),
    ))
}

fn said(range: &RangeInclusive<f64>) -> String {
    match (range.start(), range.end()) {
        (start, end) if end.is_infinite() => format!("is {start} or more"),
        _ if *range == SHARE => "is a share from 0 to 1".into(),
        (start, end) => format!("is from {start} to {end}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn told(measure: &Value, rule: &Value) -> Option<String> {
        let mut metrics = json!({ "measure": [measure] });
        if ["ndcg", "mrr"].contains(&metrics["measure"][0]["kind"].as_str().unwrap()) {
            metrics["ask"] = json!({ "kind": "rank" });
        }
        if metrics["measure"][0]["kind"] == "likelihood" {
            metrics["ask"] = json!({ "kind": "likelihood" });
        }
        let measures = Measures::read(&metrics).unwrap();
        let mut rule = rule.clone();
        rule["metric"] = json!(measures.names()[0]);
        let refused = check_reach(&json!({ "rules": [rule] }), &measures).err()?;
        Some(refused.to_string())
    }

    #[test]
    fn a_threshold_lies_where_the_values_do() {
        for (measure, rule, said) in [
            (
                json!({ "kind": "json_fields" }),
                json!({ "min": 80 }),
                "thresholds.rules[0].min: is 80; json_fields is a share from 0 to 1; 80 % is 0.8",
            ),
            (
                json!({ "kind": "token_f1" }),
                json!({ "max": -0.1 }),
                "thresholds.rules[0].max: is -0.1; token_f1 is a share from 0 to 1",
            ),
            (
                json!({ "kind": "chrf" }),
                json!({ "min": 101 }),
                "thresholds.rules[0].min: is 101; chrf is from 0 to 100",
            ),
            (
                json!({ "kind": "likelihood", "unit": "per_token" }),
                json!({ "max": 0.5 }),
                "thresholds.rules[0].max: is 0.5; perplexity is 1 or more",
            ),
            (
                json!({ "kind": "mrr" }),
                json!({ "max_regression": { "by": 2 } }),
                "thresholds.rules[0].max_regression.by: is 2; mrr is a share from 0 to 1",
            ),
        ] {
            assert_eq!(told(&measure, &rule).as_deref(), Some(said));
        }
        for (measure, rule) in [
            (
                json!({ "kind": "json_fields" }),
                json!({ "min": 0, "max": 1 }),
            ),
            (json!({ "kind": "bleu" }), json!({ "min": 80 })),
            (
                json!({ "kind": "latency", "percentile": 99 }),
                json!({ "max": 2_000_000 }),
            ),
            (
                json!({ "kind": "ndcg", "k": 10 }),
                json!({ "max_regression": { "by": 0.02 } }),
            ),
        ] {
            assert_eq!(told(&measure, &rule), None);
        }
    }

    #[test]
    fn a_sample_passes_at_a_score_that_there_can_be() {
        let measures = |pass: f64| {
            Measures::read(&json!({
                "measure": [{ "kind": "token_f1" }], "leading": { "metric": "token_f1", "pass": pass },
            }))
            .unwrap()
        };
        assert!(check_pass(&measures(0.5)).is_ok());
        let refused = check_pass(&measures(50.0)).unwrap_err();
        assert_eq!(refused.field, "metrics.leading.pass");
    }
}
