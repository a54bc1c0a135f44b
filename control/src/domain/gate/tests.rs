#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::id::Id as _;

struct Case {
    candidate: Candidate,
    evidence: Option<Evidence>,
    policy: Policy,
    approval: Option<Approval>,
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
        evidence: Some(Evidence {
            run: EvaluationRunId::new(),
            artifact_digest: "sha256:aa".into(),
            test_set,
            policy_digest: "sha256:bb".into(),
            verdict: Some(Verdict::Passed),
            withdrawn: false,
        }),
        policy: Policy {
            test_set,
            policy_digest: "sha256:bb".into(),
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
            self.evidence.as_ref(),
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
        (Requirement::Evidence, Case::with(|c| c.evidence = None)),
        (
            Requirement::Evidence,
            Case::with(|c| c.evidence.as_mut().unwrap().withdrawn = true),
        ),
        (
            Requirement::Evidence,
            Case::with(|c| c.evidence.as_mut().unwrap().artifact_digest = "sha256:cc".into()),
        ),
        (
            Requirement::TestSet,
            Case::with(|c| c.policy.test_set = DatasetVersionId::new()),
        ),
        (
            Requirement::Thresholds,
            Case::with(|c| c.policy.policy_digest = "sha256:dd".into()),
        ),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence.as_mut().unwrap().verdict = Some(Verdict::Failed)),
        ),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence.as_mut().unwrap().verdict = Some(Verdict::Inconclusive)),
        ),
        (
            Requirement::Verdict,
            Case::with(|c| c.evidence.as_mut().unwrap().verdict = None),
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
        c.evidence = None;
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
            c.evidence.as_mut().unwrap().verdict = Some(Verdict::Failed);
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
