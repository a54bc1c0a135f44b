//! What a version is asked for: the evaluations that its model or deployment requires, as they were when they were
//! required. A history that is only appended to, so that nobody relaxes what his own version has to pass: a row that
//! asks for less does not count for a version of its own author.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Evidence, Missing};
use crate::domain::Verdict;
use crate::id::{DatasetVersionId, DeploymentId, EvaluationId, PrincipalId};
use crate::time::Timestamp;

/// One row of the history of an evaluation at a model or a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RequiredEvaluation {
    pub evaluation: EvaluationId,
    /// The evaluation's name, for people.
    pub name: String,
    /// `None` where the model itself asks.
    pub deployment: Option<DeploymentId>,
    /// 1, 2, … for this evaluation and place.
    pub number: i64,
    /// `false`: from here on it is not required any more.
    pub required: bool,
    /// Asks for less than what its author had to meet before.
    pub relaxes: bool,
    pub author: Option<PrincipalId>,
    /// The author's name, for people.
    pub author_name: Option<String>,
    pub at: Timestamp,
    #[serde(flatten)]
    pub terms: Terms,
}

/// What an evaluation asks for at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Terms {
    pub test_set: Option<DatasetVersionId>,
    /// Who does not see the test set does not learn what is in it.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub test_set_digest: Option<String>,
    pub metrics: Value,
    pub thresholds: Value,
    pub policy_digest: String,
    /// Of what else decides what is asked: prompts, deployment, engine options. Empty where nobody wrote it down.
    pub ask_digest: String,
}

/// One evaluation that has to be passed, with the newest that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    pub requirement: RequiredEvaluation,
    /// Who has since asked for less, whom it does not count for: he is the version's author.
    pub lowered_by: Option<String>,
    pub evidence: Option<Evidence>,
}

/// An evaluation at a model (`None`) or at one of its deployments.
pub type Place = (EvaluationId, Option<DeploymentId>);

/// The newest that is known of each evaluation of a version.
pub type Verdicts = HashMap<EvaluationId, Evidence>;

/// What is demanded of a version of `author` that `deployment` would serve: the model's own list and the deployment's hold
/// together.
pub fn demands(
    required: &HashMap<Place, Vec<RequiredEvaluation>>,
    verdicts: &Verdicts,
    author: Option<PrincipalId>,
    deployment: Option<DeploymentId>,
) -> Vec<Demand> {
    let mut demands: Vec<Demand> = required
        .iter()
        .filter(|((_, at), _)| at.is_none() || *at == deployment)
        .filter_map(|((evaluation, _), history)| {
            RequiredEvaluation::demand(history, author, verdicts.get(evaluation).cloned())
        })
        .collect();
    demands.sort_by_key(|it| (it.requirement.evaluation, it.requirement.deployment));
    demands
}

/// What counts for a version of `author`. `history` is of one evaluation at one place, newest first.
pub fn in_force(
    history: &[RequiredEvaluation],
    author: Option<PrincipalId>,
) -> Option<&RequiredEvaluation> {
    counts_for(history, author).filter(|row| row.required)
}

fn counts_for(
    history: &[RequiredEvaluation],
    author: Option<PrincipalId>,
) -> Option<&RequiredEvaluation> {
    history
        .iter()
        .find(|row| !(row.relaxes && author.is_some() && row.author == author))
}

/// Whether `next` asks for less than what its author had to meet: `None` stands for no longer being required.
pub fn relaxes(
    history: &[RequiredEvaluation],
    author: Option<PrincipalId>,
    next: Option<&Terms>,
) -> bool {
    match (in_force(history, author), next) {
        // What nobody could run nobody has failed.
        (None, _) => false,
        (Some(before), _) if !before.terms.can_be_run() => false,
        (Some(_), None) => true,
        (Some(before), Some(next)) => !next.ask_no_less_than(&before.terms),
    }
}

impl RequiredEvaluation {
    /// The demand on a version of `author`, by the history of its evaluation and place.
    pub fn demand(
        history: &[Self],
        author: Option<PrincipalId>,
        evidence: Option<Evidence>,
    ) -> Option<Demand> {
        let requirement = in_force(history, author)?.clone();
        let newest = history.first().filter(|it| it.number != requirement.number);
        let lowered_by = newest.map(|it| {
            it.author_name
                .clone()
                .unwrap_or_else(|| "its author".into())
        });
        Some(Demand {
            requirement,
            lowered_by,
            evidence,
        })
    }
}

impl Terms {
    /// Whether a run by these terms is possible at all.
    pub fn can_be_run(&self) -> bool {
        self.test_set.is_some() && !rules(&self.thresholds).is_empty()
    }

    /// Whether whoever meets these terms would have met `before`. What cannot be compared asks for less.
    pub fn ask_no_less_than(&self, before: &Self) -> bool {
        self.test_set == before.test_set
            && self.metrics == before.metrics
            && self.asks_as(&before.ask_digest)
            && no_less(&self.thresholds, &before.thresholds)
    }

    /// Whether a run by these terms says nothing about those: what was passed has to be passed again.
    pub fn differ_from(&self, other: &Self) -> bool {
        self.policy_digest != other.policy_digest || !other.asks_as(&self.ask_digest)
    }

    fn asks_as(&self, digest: &str) -> bool {
        self.ask_digest == digest || digest.is_empty()
    }
}

fn rules(thresholds: &Value) -> &[Value] {
    thresholds["rules"].as_array().map_or(&[], Vec::as_slice)
}

/// Thresholds as `evaluation::verdict` reads them: more rules, higher minima, lower maxima ask for more.
fn no_less(next: &Value, before: &Value) -> bool {
    let number = |of: &Value, field: &str, default: f64| of[field].as_f64().unwrap_or(default);
    let samples = |of: &Value| number(of, "min_samples", 30.0);
    let unscored = |of: &Value| number(of, "max_unscored", 0.0);
    samples(next) >= samples(before)
        && unscored(next) <= unscored(before)
        && rules(before).iter().all(|rule| {
            let same = |it: &&Value| it["metric"] == rule["metric"];
            rules(next)
                .iter()
                .find(same)
                .is_some_and(|it| rule_no_less(it, rule))
        })
}

fn rule_no_less(next: &Value, before: &Value) -> bool {
    let on = |rule: &Value| rule["on"].as_str().unwrap_or("point").to_owned();
    let beyond = |field: &str, sign: f64| match (before[field].as_f64(), next[field].as_f64()) {
        (None, _) => true,
        (Some(before), Some(next)) => sign * next >= sign * before,
        (Some(_), None) => false,
    };
    let regression = &before["max_regression"];
    on(next) == on(before)
        && beyond("min", 1.0)
        && beyond("max", -1.0)
        && (regression.is_null() || next["max_regression"] == *regression)
}

impl Demand {
    /// What is missing of it for a version with this digest.
    pub fn missing(&self, digest: &str) -> Vec<Missing> {
        let evaluation = self.requirement.name.clone();
        let Some(evidence) = &self.evidence else {
            return vec![Missing::NoEvidence { evaluation }];
        };
        let (run, terms) = (evidence.run, &self.requirement.terms);
        let mut missing = Vec::new();
        if evidence.withdrawn {
            missing.push(Missing::Withdrawn {
                run,
                evaluation: evaluation.clone(),
            });
        }
        if evidence.artifact_digest != digest {
            missing.push(Missing::OtherArtifact {
                run,
                found: evidence.artifact_digest.clone(),
                expected: digest.to_owned(),
            });
        }
        if let Some(expected) = terms.test_set.filter(|it| *it != evidence.test_set) {
            missing.push(Missing::OtherTestSet {
                run,
                evaluation: evaluation.clone(),
                found: evidence.test_set,
                expected,
            });
        }
        let same_terms = evidence.policy_digest == terms.policy_digest
            && (terms.asks_as(&evidence.ask_digest) || terms.ask_digest.is_empty());
        if !same_terms {
            missing.push(match &self.lowered_by {
                Some(by) => Missing::LoweredByAuthor {
                    evaluation: evaluation.clone(),
                    by: by.clone(),
                },
                None => Missing::OtherThresholds {
                    run,
                    evaluation: evaluation.clone(),
                    found: evidence.policy_digest.clone(),
                    expected: terms.policy_digest.clone(),
                },
            });
        }
        if evidence.verdict != Some(Verdict::Passed) {
            missing.push(Missing::NotPassed {
                run,
                evaluation,
                verdict: evidence.verdict,
            });
        }
        missing
    }
}
