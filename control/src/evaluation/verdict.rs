//! Passed, failed or inconclusive: what the numbers mean under a policy.
//!
//! Three answers and not two, since missing evidence is no evidence: a metric
//! that was not measured, too few samples or an interval across the threshold
//! never pass. Each reason names the metric, its value and the threshold, so
//! that whoever is refused knows by how much.

use serde::{Deserialize, Serialize};

use super::canonical_digest;
use super::metrics::{Comparison, Measurement};

/// Which number a threshold is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The measured value.
    #[default]
    Point,
    /// The end of the interval nearer to failing: the value is beyond the threshold even so.
    Bound,
}

/// How much worse than the live version a candidate may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxRegression {
    /// In the metric's own unit; 0 allows no loss.
    pub by: f64,
    /// A loss beyond `by` fails when its one-sided p-value is below this.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
}

fn default_alpha() -> f64 {
    0.05
}

/// What one metric has to meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A [`Metric`](super::metrics::Metric)'s name, or that of scores given from outside.
    pub metric: String,
    #[serde(default)]
    pub min: Option<f64>,
    #[serde(default)]
    pub max: Option<f64>,
    #[serde(default)]
    pub on: On,
    #[serde(default)]
    pub max_regression: Option<MaxRegression>,
}

/// Thresholds, at least one, no metric twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Policy(Fields);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    rules: Vec<Rule>,
    /// Fewer scored samples than this decide nothing.
    #[serde(default = "default_min_samples")]
    min_samples: usize,
    /// The share of samples (0 to 1) that may go unscored (failed requests, for example).
    #[serde(default)]
    max_unscored: f64,
}

fn default_min_samples() -> usize {
    30
}

/// A policy that cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("rules: a policy without rules would pass anything; name at least one metric")]
    NoRules,
    #[error("rules: metric `{0}` has two rules; put both thresholds into one")]
    Twice(String),
    #[error("rules: `{0}` sets neither min, max nor max_regression")]
    Empty(String),
    #[error("rules: {field} of `{metric}` is {value}; it must be {expected}")]
    Value {
        metric: String,
        field: &'static str,
        value: f64,
        expected: &'static str,
    },
    #[error("rules: min {min} of `{metric}` is above its max {max}")]
    Crossed { metric: String, min: f64, max: f64 },
    #[error("min_samples: 0 would let no data pass; use at least 1")]
    NoSamples,
    #[error("max_unscored: {0} is not a share from 0 to 1")]
    Unscored(f64),
}

impl TryFrom<Fields> for Policy {
    type Error = InvalidPolicy;

    fn try_from(fields: Fields) -> Result<Self, InvalidPolicy> {
        Self::new(fields.rules, fields.min_samples, fields.max_unscored)
    }
}

impl From<Policy> for Fields {
    fn from(policy: Policy) -> Self {
        policy.0
    }
}

impl Policy {
    /// # Errors
    /// Names the rule and the field that cannot hold.
    pub fn new(
        mut rules: Vec<Rule>,
        min_samples: usize,
        max_unscored: f64,
    ) -> Result<Self, InvalidPolicy> {
        if rules.is_empty() {
            return Err(InvalidPolicy::NoRules);
        }
        // The order in which rules are written means nothing, so it must not change the digest.
        rules.sort_by(|a, b| a.metric.cmp(&b.metric));
        if let Some(pair) = rules
            .windows(2)
            .find(|pair| pair[0].metric == pair[1].metric)
        {
            return Err(InvalidPolicy::Twice(pair[0].metric.clone()));
        }
        rules.iter().try_for_each(check_rule)?;
        if min_samples == 0 {
            return Err(InvalidPolicy::NoSamples);
        }
        if !(0.0..=1.0).contains(&max_unscored) {
            return Err(InvalidPolicy::Unscored(max_unscored));
        }
        Ok(Self(Fields {
            rules,
            min_samples,
            max_unscored,
        }))
    }

    /// `sha256:…`, the same for policies that mean the same; an approval gate compares it.
    #[must_use]
    pub fn digest(&self) -> String {
        canonical_digest(&self.0)
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// Judges a run.
    #[must_use]
    pub fn judge(&self, measurements: &[Measurement], against: &Baseline) -> Judgement {
        let reasons: Vec<Reason> = self
            .0
            .rules
            .iter()
            .flat_map(|rule| self.judge_rule(rule, measurements, against))
            .collect();
        let verdict = reasons.iter().map(|reason| reason.verdict).max();
        Judgement {
            verdict: verdict.unwrap_or(Verdict::Inconclusive),
            reasons,
            policy: self.digest(),
        }
    }

    fn judge_rule(
        &self,
        rule: &Rule,
        measurements: &[Measurement],
        against: &Baseline,
    ) -> Vec<Reason> {
        let measured = measurements
            .iter()
            .find(|found| found.metric == rule.metric);
        let measured = match measured.map(|measured| (measured, measured.value)) {
            None => return vec![rule.inconclusive("was not measured".into())],
            Some((measured, Some(value))) => match self.shortage(measured) {
                Some(shortage) => return vec![rule.inconclusive(shortage)],
                None => (measured, value),
            },
            Some((measured, None)) => return vec![rule.inconclusive(no_value(measured))],
        };
        let (measured, value) = measured;
        let mut reasons = Vec::new();
        for (side, threshold) in [(Side::Min, rule.min), (Side::Max, rule.max)] {
            if let Some(threshold) = threshold {
                reasons.push(rule.hold(side, threshold, measured, value));
            }
        }
        if let Some(limit) = rule.max_regression {
            reasons.push(self.regression(rule, limit, against));
        }
        reasons
    }

    /// Why there are too few samples to decide, if so.
    fn shortage(&self, measured: &Measurement) -> Option<String> {
        let unscored: usize = measured.unscored.values().sum();
        let share = unscored as f64 / (unscored + measured.scored).max(1) as f64;
        if measured.scored < self.0.min_samples {
            let (scored, min) = (measured.scored, self.0.min_samples);
            return Some(format!(
                "has {scored} scored samples, fewer than min_samples {min}"
            ));
        }
        (share > self.0.max_unscored).then(|| {
            format!(
                "could not score {unscored} of {} samples ({}), more than max_unscored {}",
                unscored + measured.scored,
                first_reason(measured),
                self.0.max_unscored
            )
        })
    }

    fn regression(&self, rule: &Rule, limit: MaxRegression, against: &Baseline) -> Reason {
        let comparisons = match against {
            Baseline::NothingLive => {
                return rule.passed(
                    "no other version is live, so there is nothing to regress from".into(),
                );
            }
            Baseline::Live(comparisons) => comparisons,
        };
        let found = comparisons.iter().find(|found| found.metric == rule.metric);
        let paired =
            found.and_then(|found| Some((found.regression()?, found.p_worse()?, found.paired?)));
        let Some((loss, p, paired)) = paired else {
            return rule.inconclusive("was not compared with the live version".into());
        };
        if paired.samples < self.0.min_samples {
            return rule.inconclusive(format!(
                "has {} samples in common with the live version, fewer than min_samples {}",
                paired.samples, self.0.min_samples
            ));
        }
        let text = format!(
            "differs from the live version by {} (max_regression {}, one-sided p = {p:.2e}, alpha {}, {} samples)",
            signed(paired.difference),
            limit.by,
            limit.alpha,
            paired.samples
        );
        match (loss > limit.by, p < limit.alpha) {
            (false, _) => rule.passed(text),
            (true, true) => rule.failed(text),
            (true, false) => rule.inconclusive(text),
        }
    }
}

fn check_rule(rule: &Rule) -> Result<(), InvalidPolicy> {
    let check = |field, value: Option<f64>, right: fn(f64) -> bool, expected| match value {
        Some(value) if !right(value) => {
            let metric = rule.metric.clone();
            Err(InvalidPolicy::Value {
                metric,
                field,
                value,
                expected,
            })
        }
        _ => Ok(()),
    };
    check("min", rule.min, f64::is_finite, "a finite number")?;
    check("max", rule.max, f64::is_finite, "a finite number")?;
    let limit = rule.max_regression;
    let (by, alpha) = (limit.map(|limit| limit.by), limit.map(|limit| limit.alpha));
    check(
        "max_regression.by",
        by,
        |by| by.is_finite() && by >= 0.0,
        "0 or more",
    )?;
    check(
        "max_regression.alpha",
        alpha,
        |alpha| alpha > 0.0 && alpha < 0.5,
        "above 0 and below 0.5",
    )?;
    match (rule.min, rule.max) {
        (Some(min), Some(max)) if min > max => Err(InvalidPolicy::Crossed {
            metric: rule.metric.clone(),
            min,
            max,
        }),
        (None, None) if limit.is_none() => Err(InvalidPolicy::Empty(rule.metric.clone())),
        _ => Ok(()),
    }
}

/// What a candidate is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Baseline {
    /// The first version of a deployment has nothing to regress from, and the live one only itself.
    NothingLive,
    Live(Vec<Comparison>),
}

/// The outcome; ordered by how much it weighs against the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Inconclusive,
    Failed,
}

/// One threshold's outcome, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub metric: String,
    pub verdict: Verdict,
    /// Begins with the metric's name.
    pub text: String,
}

/// The verdict on a run with one reason for each threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
    /// Digest of the policy that was applied.
    pub policy: String,
}

#[derive(Clone, Copy)]
enum Side {
    Min,
    Max,
}

impl Rule {
    fn hold(&self, side: Side, threshold: f64, measured: &Measurement, value: f64) -> Reason {
        let interval = measured.interval;
        let shown = match interval {
            Some(found) => format!(
                "{} [{}, {}] at {}% confidence",
                number(value),
                number(found.low),
                number(found.high),
                number(found.confidence * 100.0)
            ),
            None => format!("{} (no interval)", number(value)),
        };
        let (name, word, text_of) = match side {
            Side::Min => ("min", "below", "at least"),
            Side::Max => ("max", "above", "at most"),
        };
        let meets = |value: f64| match side {
            Side::Min => value >= threshold,
            Side::Max => value <= threshold,
        };
        let samples = measured.scored;
        let passed = format!("is {shown}, {text_of} {name} {threshold} ({samples} samples)");
        let failed = format!("is {shown}, {word} {name} {threshold} ({samples} samples)");
        match (self.on, interval) {
            (On::Point, _) if meets(value) => self.passed(passed),
            (On::Point, _) => self.failed(failed),
            (On::Bound, None) => {
                self.inconclusive(format!("is {shown}, but the policy asks for the interval's bound"))
            }
            (On::Bound, Some(found)) => match (meets(found.low), meets(found.high)) {
                (true, true) => self.passed(passed),
                (false, false) => self.failed(failed),
                _ => self.inconclusive(format!(
                    "is {shown}, whose interval spans {name} {threshold} ({samples} samples; more would narrow it)"
                )),
            },
        }
    }

    fn passed(&self, text: String) -> Reason {
        self.reason(Verdict::Passed, text)
    }

    fn failed(&self, text: String) -> Reason {
        self.reason(Verdict::Failed, text)
    }

    fn inconclusive(&self, text: String) -> Reason {
        self.reason(Verdict::Inconclusive, text)
    }

    fn reason(&self, verdict: Verdict, mut text: String) -> Reason {
        text.insert_str(0, &format!("{} ", self.metric));
        Reason {
            metric: self.metric.clone(),
            verdict,
            text,
        }
    }
}

fn no_value(measured: &Measurement) -> String {
    if measured.scored > 0 {
        return "has no finite value".into();
    }
    format!("has no scored sample ({})", first_reason(measured))
}

fn first_reason(measured: &Measurement) -> String {
    let most = measured.unscored.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(
        || "no samples".into(),
        |(reason, count)| format!("{count} × {reason}"),
    )
}

/// Six significant digits are more than any interval supports.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (5.0 - value.abs().log10().floor()).clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn signed(value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", number(value))
}

#[cfg(test)]
mod tests;
