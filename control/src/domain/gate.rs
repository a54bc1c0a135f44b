//! What a model version must have before it may serve: asked when it is approved, and again before every rise of its
//! share and when it is promoted. A pure function of the evidence, so that a decision can be replayed from the audit log.

mod required;

pub use required::{
    Demand, Place, RequiredEvaluation, Terms, Verdicts, demands, in_force, relaxes,
};

use super::Verdict;
use super::roles::{Role, Verb};
use super::secrecy::Secrecy;
use super::words::words;
use crate::id::{ConversionRunId, DatasetVersionId, EvaluationRunId, PrincipalId};

words! {
    /// The conditions of the gate, by the names that a policy and an override use.
    pub enum Requirement ("requirement of the approval gate") {
        /// The version has an artifact with a digest.
        Digest = "digest",
        /// The model or the deployment requires an evaluation, or the department lets it do without.
        Required = "required_evaluations",
        /// A run of each required evaluation that was not withdrawn, for this very digest.
        Evidence = "evidence",
        /// The newest of them used the test set as it was required.
        TestSet = "test_set",
        /// It was judged by the thresholds as they were required.
        Thresholds = "thresholds",
        /// Its verdict is that the version passed.
        Verdict = "verdict",
        /// The conversion's output was shown to agree with the model that was trained.
        Parity = "parity",
        /// No dataset of the lineage is more secret than the deployment is cleared for.
        Secrecy = "secrecy",
        /// Somebody with the right to approve, who is not the author.
        Approver = "approver",
        /// An override takes the approver's role, a reason, and a policy that lets it be overridden.
        Override = "override",
    }
}

words! {
    /// What a department may let pass at its gates.
    pub enum Allowance ("allowance of a department's gate policy") {
        /// A version of a model for which no evaluation is required.
        NoRequiredEvaluations = "no_required_evaluations",
    }
}

impl Requirement {
    /// Whether a deployment's policy may name it as one that can be overridden. The others protect people's data
    /// and the meaning of an approval, and hold for everyone.
    pub const fn can_be_relaxed(self) -> bool {
        matches!(
            self,
            Self::Evidence | Self::TestSet | Self::Thresholds | Self::Verdict | Self::Parity
        )
    }
}

/// The version that asks to be let through.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub digest: Option<String>,
    pub author: Option<PrincipalId>,
    /// Present when the artifact came out of a conversion.
    pub conversion: Option<Parity>,
    /// Every dataset version of the lineage: trained on, tuned on, converted with.
    pub datasets: Vec<LineageDataset>,
}

#[derive(Debug, Clone)]
pub struct LineageDataset {
    pub version: DatasetVersionId,
    pub secrecy: Secrecy,
}

/// What a conversion run says about its output.
#[derive(Debug, Clone)]
pub struct Parity {
    pub run: ConversionRunId,
    pub output_digest: Option<String>,
    pub passed: Option<bool>,
}

/// What an evaluation run says, copied from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    pub run: EvaluationRunId,
    pub artifact_digest: String,
    pub test_set: DatasetVersionId,
    pub policy_digest: String,
    /// As in [`Terms`].
    pub ask_digest: String,
    pub verdict: Option<Verdict>,
    pub withdrawn: bool,
}

/// What is asked for beside the required evaluations.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What the department lets pass.
    pub allows: Vec<Allowance>,
    /// The deployment's clearance; `None` when a version is approved before it has a deployment.
    pub clearance: Option<Secrecy>,
    /// What this deployment lets an approver override, by name.
    pub relaxable: Vec<Requirement>,
}

/// Who lets it through.
#[derive(Debug, Clone)]
pub struct Approval {
    pub approver: PrincipalId,
    pub role: Role,
    pub override_reason: Option<String>,
}

/// One thing that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("the version has no artifact digest; register it first")]
    Digest,
    #[error(
        "no evaluation is required of it, so nothing says what it is worth: require one (sluice model require MODEL \
         EVALUATION), or an approver of its department allows \"no_required_evaluations\" (sluice department gate-policy)"
    )]
    NoneRequired,
    #[error("evaluation {evaluation} is required and has no run about this version; run it")]
    NoEvidence { evaluation: String },
    #[error("evaluation run {run} of {evaluation} was withdrawn; run it again")]
    Withdrawn {
        run: EvaluationRunId,
        evaluation: String,
    },
    #[error("evaluation run {run} is about artifact {found}, the version's is {expected}")]
    OtherArtifact {
        run: EvaluationRunId,
        found: String,
        expected: String,
    },
    #[error(
        "evaluation run {run} of {evaluation} used test set {found}, what is required asks for {expected}; run it again"
    )]
    OtherTestSet {
        run: EvaluationRunId,
        evaluation: String,
        found: DatasetVersionId,
        expected: DatasetVersionId,
    },
    #[error(
        "evaluation run {run} of {evaluation} was judged by {found}, what is required asks for {expected}; run it again"
    )]
    OtherThresholds {
        run: EvaluationRunId,
        evaluation: String,
        found: String,
        expected: String,
    },
    #[error(
        "{by}, who made this version, has lowered what {evaluation} asks for; for it the earlier terms hold until \
         somebody else confirms the change (sluice model require MODEL {evaluation})"
    )]
    LoweredByAuthor { evaluation: String, by: String },
    #[error("evaluation run {run} of {evaluation} ended with verdict {}", verdict.map_or("none", Verdict::word))]
    NotPassed {
        run: EvaluationRunId,
        evaluation: String,
        verdict: Option<Verdict>,
    },
    #[error("conversion run {0} has no passed parity report for the version's artifact")]
    Parity(ConversionRunId),
    #[error("dataset version {dataset} is {secrecy}, the deployment is cleared for {clearance}")]
    Secrecy {
        dataset: DatasetVersionId,
        secrecy: Secrecy,
        clearance: Secrecy,
    },
    #[error("nobody approved it")]
    NoApprover,
    #[error("the role {0} may not approve")]
    ApproverRole(Role),
    #[error("its author cannot approve it")]
    ApproverIsAuthor,
    #[error("the role {0} may not override the gate")]
    OverrideRole(Role),
    #[error("an override takes a reason")]
    OverrideReason,
    #[error("the deployment's policy does not let \"{0}\" be overridden")]
    NotRelaxable(Requirement),
}

impl Missing {
    /// The requirement it belongs to.
    pub const fn requirement(&self) -> Requirement {
        match self {
            Self::Digest => Requirement::Digest,
            Self::NoneRequired => Requirement::Required,
            Self::NoEvidence { .. } | Self::Withdrawn { .. } | Self::OtherArtifact { .. } => {
                Requirement::Evidence
            }
            Self::OtherTestSet { .. } => Requirement::TestSet,
            Self::OtherThresholds { .. } | Self::LoweredByAuthor { .. } => Requirement::Thresholds,
            Self::NotPassed { .. } => Requirement::Verdict,
            Self::Parity(_) => Requirement::Parity,
            Self::Secrecy { .. } => Requirement::Secrecy,
            Self::NoApprover | Self::ApproverRole(_) | Self::ApproverIsAuthor => {
                Requirement::Approver
            }
            Self::OverrideRole(_) | Self::OverrideReason | Self::NotRelaxable(_) => {
                Requirement::Override
            }
        }
    }
}

/// The gate is open. What had to be overridden for it belongs into the audit log.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub overridden: Vec<Missing>,
}

/// Whether `candidate` may serve.
///
/// # Errors
/// Everything that is missing, not only the first of it.
pub fn check(
    candidate: &Candidate,
    demands: &[Demand],
    policy: &Policy,
    approval: Option<&Approval>,
) -> Result<Passed, Vec<Missing>> {
    let mut missing = Vec::new();
    match &candidate.digest {
        None => missing.push(Missing::Digest),
        Some(digest) => {
            missing.extend(about_evidence(digest, demands));
            missing.extend(about_parity(digest, candidate.conversion.as_ref()));
        }
    }
    missing.extend(about_secrecy(candidate, policy.clearance));
    missing.extend(about_approver(candidate.author, approval));
    let allowed: Vec<Missing> = missing.extract_if(.., |it| policy.lets_pass(it)).collect();
    let mut passed = if missing.is_empty() {
        Passed {
            overridden: missing,
        }
    } else {
        overridden(missing, policy, approval)?
    };
    passed.overridden.extend(allowed);
    Ok(passed)
}

/// What the required evaluations do not say about a version with this digest; empty where each says that it passed.
pub fn about_evidence(digest: &str, demands: &[Demand]) -> Vec<Missing> {
    if demands.is_empty() {
        return vec![Missing::NoneRequired];
    }
    let mut missing = Vec::new();
    for lacking in demands.iter().flat_map(|it| it.missing(digest)) {
        // A model and a deployment may ask for the same.
        if !missing.contains(&lacking) {
            missing.push(lacking);
        }
    }
    missing
}

impl Policy {
    /// What the department lets pass without a word of the approver's.
    pub fn lets_pass(&self, missing: &Missing) -> bool {
        *missing == Missing::NoneRequired && self.allows.contains(&Allowance::NoRequiredEvaluations)
    }
}

fn about_parity(digest: &str, conversion: Option<&Parity>) -> Option<Missing> {
    let parity = conversion?;
    let holds = parity.passed == Some(true) && parity.output_digest.as_deref() == Some(digest);
    (!holds).then_some(Missing::Parity(parity.run))
}

fn about_secrecy(candidate: &Candidate, clearance: Option<Secrecy>) -> Vec<Missing> {
    let Some(clearance) = clearance else {
        return Vec::new();
    };
    candidate
        .datasets
        .iter()
        .filter(|dataset| !dataset.secrecy.within(clearance))
        .map(|dataset| Missing::Secrecy {
            dataset: dataset.version,
            secrecy: dataset.secrecy,
            clearance,
        })
        .collect()
}

fn about_approver(author: Option<PrincipalId>, approval: Option<&Approval>) -> Vec<Missing> {
    let Some(approval) = approval else {
        return vec![Missing::NoApprover];
    };
    let mut missing = Vec::new();
    if !approval.role.may(Verb::ApproveVersion) {
        missing.push(Missing::ApproverRole(approval.role));
    }
    if author == Some(approval.approver) {
        missing.push(Missing::ApproverIsAuthor);
    }
    missing
}

/// Lets through what is missing if it was overridden by somebody who may, and may be by this policy.
fn overridden(
    mut missing: Vec<Missing>,
    policy: &Policy,
    approval: Option<&Approval>,
) -> Result<Passed, Vec<Missing>> {
    let Some((approval, reason)) =
        approval.and_then(|approval| Some((approval, approval.override_reason.as_ref()?)))
    else {
        return Err(missing);
    };
    let mut refused: Vec<Missing> = missing
        .iter()
        .filter(|missing| !missing.requirement().can_be_relaxed())
        .cloned()
        .collect();
    missing.retain(|missing| missing.requirement().can_be_relaxed());
    for lacking in &missing {
        let requirement = lacking.requirement();
        if !policy.relaxable.contains(&requirement) {
            refused.push(lacking.clone());
            refused.push(Missing::NotRelaxable(requirement));
        }
    }
    if !approval.role.may(Verb::OverrideGate) {
        refused.push(Missing::OverrideRole(approval.role));
    }
    if reason.trim().is_empty() {
        refused.push(Missing::OverrideReason);
    }
    if refused.is_empty() {
        Ok(Passed {
            overridden: missing,
        })
    } else {
        Err(refused)
    }
}

#[cfg(test)]
mod tests;
