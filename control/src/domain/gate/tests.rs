#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::id::{EvaluationId, Id as _};
use crate::time::Timestamp;

struct Case {
    candidate: Candidate,
    demands: Vec<Demand>,
    policy: Policy,
    approval: Option<Approval>,
}

/// An evaluation that was required once, by somebody.
fn required(name: &str, test_set: DatasetVersionId, least: f64) -> RequiredEvaluation {
    RequiredEvaluation {
        evaluation: EvaluationId::new(),
        name: name.into(),
        deployment: None,
        number: 1,
        required: true,
        relaxes: false,
        author: None,
        author_name: None,
        at: Timestamp::from_micros(0),
        terms: Terms {
            test_set: Some(test_set),
            test_set_digest: Some("sha256:tt".into()),
            metrics: json!({ "measure": [{ "kind": "token_f1" }] }),
            thresholds: json!({ "rules": [{ "metric": "token_f1", "min": least }] }),
            policy_digest: format!("sha256:{least}"),
            ask_digest: "sha256:ask".into(),
        },
    }
}

/// It, and a run that has passed it.
fn demand(name: &str, test_set: DatasetVersionId) -> Demand {
    let requirement = required(name, test_set, 0.9);
    Demand {
        evidence: Some(Evidence {
            run: EvaluationRunId::new(),
            artifact_digest: "sha256:aa".into(),
            test_set,
            policy_digest: requirement.terms.policy_digest.clone(),
            ask_digest: requirement.terms.ask_digest.clone(),
            verdict: Some(Verdict::Passed),
            withdrawn: false,
        }),
        lowered_by: None,
        requirement,
    }
}

/// A version that has all it needs.
fn case() -> Case {
    let test_set = DatasetVersionId::new();
    Case {
        candidate: Candidate {
            digest: Some("sha256:aa".into()),
            author: Some(PrincipalId::new()),
            conversion: Some(Parity {
                run: ConversionRunId::new(),
                output_digest: Some("sha256:aa".into()),
                passed: Some(true),
            }),
            datasets: vec![LineageDataset {
                version: DatasetVersionId::new(),
                secrecy: Secrecy::Internal,
            }],
        },
        demands: vec![demand("quality", test_set), demand("safety", test_set)],
        policy: Policy {
            allows: Vec::new(),
            clearance: Some(Secrecy::Internal),
            relaxable: Vec::new(),
        },
        approval: Some(Approval {
            approver: PrincipalId::new(),
            role: Role::Approver,
            override_reason: None,
        }),
    }
}

impl Case {
    fn check(&self) -> Result<Passed, Vec<Missing>> {
        check(
            &self.candidate,
            &self.demands,
            &self.policy,
            self.approval.as_ref(),
        )
    }

    fn missing(&self) -> Vec<Requirement> {
        self.check()
            .unwrap_err()
            .iter()
            .map(Missing::requirement)
            .collect()
    }

    /// What the second of two evaluations says.
    fn evidence(&mut self) -> &mut Evidence {
        self.demands[1].evidence.as_mut().unwrap()
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = case();
        change(&mut changed);
        changed
    }
}

/// One way to violate each requirement, alone.
fn violations() -> Vec<(Requirement, Case)> {
    vec![
        (
            Requirement::Digest,
            Case::with(|c| c.candidate.digest = None),
        ),
        (
            Requirement::Evidence,
            Case::with(|c| c.demands[1].evidence = None),
        ),
        (
            Requirement::Evidence,
            Case::with(|c| c.evidence().withdrawn = true),
        ),
        (
            Requirement::Evidence,
            Case::with(|c| c.evidence().artifact_digest = "sha256:cc".into()),
        ),
        (
            Requirement::TestSet,
            Case::with(|c| c.evidence().test_set = DatasetVersionId::new()),
        ),
        (
            Requirement::Thresholds,
            Case::with(|c| c.evidence().policy_digest = "sha256:dd".into()),
        ),
        (
            Requirement::Thresholds,
            Case::with(|c| c.evidence().ask_digest = "sha256:easy prompts".into()),
        ),
        (
            Requirement::Thresholds,
            Case::with(|c| {
                c.demands[1].lowered_by = Some("ada".into());
                c.evidence().policy_digest = "sha256:dd".into();
            }),
        ),
        (Requirement::Required, Case::with(|c| c.demands.clear())),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence().verdict = Some(Verdict::Failed)),
        ),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence().verdict = Some(Verdict::Inconclusive)),
        ),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence().verdict = None),
        ),
        (
            Requirement::Parity,
            Case::with(|c| c.candidate.conversion.as_mut().unwrap().passed = Some(false)),
        ),
        (
            Requirement::Parity,
            Case::with(|c| c.candidate.conversion.as_mut().unwrap().passed = None),
        ),
        (
            Requirement::Parity,
            Case::with(|c| {
                c.candidate.conversion.as_mut().unwrap().output_digest = Some("sha256:ee".into())
            }),
        ),
        (
            Requirement::Secrecy,
            Case::with(|c| c.policy.clearance = Some(Secrecy::Public)),
        ),
        (Requirement::Approver, Case::with(|c| c.approval = None)),
        (
            Requirement::Approver,
            Case::with(|c| c.candidate.author = Some(c.approval.as_ref().unwrap().approver)),
        ),
        (
            Requirement::Approver,
            Case::with(|c| c.approval.as_mut().unwrap().role = Role::Developer),
        ),
    ]
}

#[test]
fn a_version_with_everything_passes() {
    assert_eq!(
        case().check(),
        Ok(Passed {
            overridden: Vec::new()
        })
    );
    assert!(
        Case::with(|c| c.candidate.conversion = None)
            .check()
            .is_ok(),
        "what was not converted needs no parity"
    );
    assert!(Case::with(|c| c.policy.clearance = None).check().is_ok());
}

#[test]
fn each_requirement_is_asked_for_by_name() {
    for (requirement, case) in violations() {
        assert_eq!(case.missing(), [requirement]);
    }
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let case = Case::with(|c| {
        c.demands[0].evidence = None;
        c.candidate.conversion.as_mut().unwrap().passed = None;
        c.policy.clearance = Some(Secrecy::Public);
        c.approval = None;
    });
    use Requirement::{Approver, Evidence, Parity, Secrecy as Secret};
    assert_eq!(case.missing(), [Evidence, Parity, Secret, Approver]);
}

#[test]
fn an_override_opens_what_the_policy_relaxes_and_nothing_else() {
    for (requirement, mut case) in violations() {
        let Some(approval) = case.approval.as_mut() else {
            continue;
        };
        approval.override_reason = Some("the old one answers nonsense since the outage".into());
        let refused = case.missing();
        assert!(
            refused.contains(&requirement),
            "without a policy that relaxes it"
        );

        case.policy.relaxable = vec![requirement];
        match case.check() {
            Ok(passed) => {
                assert!(
                    requirement.can_be_relaxed(),
                    "{requirement} must hold for everyone"
                );
                assert_eq!(passed.overridden.len(), 1);
                assert_eq!(passed.overridden[0].requirement(), requirement);
            }
            Err(_) => assert!(
                !requirement.can_be_relaxed(),
                "{requirement} was relaxed by name"
            ),
        }
    }
}

#[test]
fn an_override_takes_an_approver_and_a_reason() {
    let failed = |role, reason: &str| {
        Case::with(|c| {
            c.evidence().verdict = Some(Verdict::Failed);
            c.policy.relaxable = vec![Requirement::Verdict];
            let approval = c.approval.as_mut().unwrap();
            approval.role = role;
            approval.override_reason = Some(reason.into());
        })
    };
    assert!(
        failed(Role::Approver, "known bad item in the test set")
            .check()
            .is_ok()
    );
    assert_eq!(
        failed(Role::Approver, "  ").check(),
        Err(vec![Missing::OverrideReason])
    );
    for &role in Role::ALL {
        let opened = failed(role, "because").check().is_ok();
        assert_eq!(
            opened,
            matches!(role, Role::Approver | Role::Admin),
            "{role}"
        );
    }
}

#[test]
fn a_department_may_let_pass_what_nothing_is_required_of() {
    let mut case = Case::with(|c| c.demands.clear());
    assert_eq!(case.check(), Err(vec![Missing::NoneRequired]));
    case.policy.allows = vec![Allowance::NoRequiredEvaluations];
    let passed = case.check().unwrap();
    assert_eq!(
        passed.overridden,
        [Missing::NoneRequired],
        "it is written down"
    );
    // What is required has to be passed all the same.
    let mut case = Case::with(|c| c.demands[0].evidence = None);
    case.policy.allows = vec![Allowance::NoRequiredEvaluations];
    assert_eq!(case.missing(), [Requirement::Evidence]);
}

/// The terms of an evaluation with these thresholds.
fn terms(thresholds: serde_json::Value) -> Terms {
    let mut terms = required("e", DatasetVersionId::new(), 0.5).terms;
    terms.test_set = None;
    terms.thresholds = thresholds;
    terms
}

#[test]
fn thresholds_are_compared_by_what_they_ask() {
    let rule = |rule: serde_json::Value| terms(json!({ "rules": [rule] }));
    let before = rule(json!({ "metric": "f1", "min": 0.5 }));
    for (next, asks_no_less) in [
        (rule(json!({ "metric": "f1", "min": 0.5 })), true),
        (rule(json!({ "metric": "f1", "min": 0.6 })), true),
        (
            terms(
                json!({ "rules": [{ "metric": "f1", "min": 0.5 }, { "metric": "bleu", "min": 0.1 }] }),
            ),
            true,
        ),
        (rule(json!({ "metric": "f1", "min": 0.49 })), false),
        (rule(json!({ "metric": "f1", "max": 0.5 })), false),
        (rule(json!({ "metric": "bleu", "min": 0.9 })), false),
        (
            rule(json!({ "metric": "f1", "min": 0.6, "on": "bound" })),
            false,
        ),
        (
            terms(json!({ "rules": [{ "metric": "f1", "min": 0.5 }], "min_samples": 2 })),
            false,
        ),
        (
            terms(json!({ "rules": [{ "metric": "f1", "min": 0.5 }], "min_samples": 40 })),
            true,
        ),
        (
            terms(json!({ "rules": [{ "metric": "f1", "min": 0.5 }], "max_unscored": 0.5 })),
            false,
        ),
        (terms(json!({})), false),
    ] {
        assert_eq!(next.ask_no_less_than(&before), asks_no_less, "{next:?}");
    }
    let mut other = before.clone();
    other.ask_digest = "sha256:other prompts".into();
    assert!(!other.ask_no_less_than(&before));
    let mut other = before.clone();
    other.test_set = Some(DatasetVersionId::new());
    assert!(!other.ask_no_less_than(&before));
}

#[test]
fn what_an_author_has_lowered_does_not_count_for_his_versions() {
    let (ada, bo) = (PrincipalId::new(), PrincipalId::new());
    let set = DatasetVersionId::new();
    let first = required("safety", set, 0.95);
    let row = |number, author, least, relaxes| RequiredEvaluation {
        number,
        author: Some(author),
        author_name: Some("ada".into()),
        relaxes,
        ..required("safety", set, least)
    };
    let least = |history: &[RequiredEvaluation], author| {
        let found = in_force(history, Some(author)).unwrap();
        found.terms.thresholds["rules"][0]["min"].as_f64()
    };
    let easy = required("safety", set, 0.1).terms;
    assert!(relaxes(
        std::slice::from_ref(&first),
        Some(ada),
        Some(&easy)
    ));
    let lowered = [row(2, ada, 0.0, true), first.clone()];
    assert_eq!(
        (least(&lowered, ada), least(&lowered, bo)),
        (Some(0.95), Some(0.0))
    );
    let demand = RequiredEvaluation::demand(&lowered, Some(ada), None).unwrap();
    assert_eq!(demand.lowered_by.as_deref(), Some("ada"));
    // A little more than nothing is still less than what she had to meet.
    assert!(relaxes(&lowered, Some(ada), Some(&easy)));
    assert!(!relaxes(&lowered, Some(bo), Some(&easy)));
    // Confirmed by somebody else it counts.
    let confirmed = [row(3, bo, 0.0, true), lowered[0].clone(), first.clone()];
    assert_eq!(least(&confirmed, ada), Some(0.0));
    // Nor may she do without it.
    assert!(relaxes(std::slice::from_ref(&first), Some(ada), None));
    let mut gone = row(2, ada, 0.95, true);
    gone.required = false;
    let gone = [gone, first];
    assert!(in_force(&gone, Some(ada)).is_some());
    assert!(in_force(&gone, Some(bo)).is_none());
}
