//! What the gate is asked about a version, read from its records.

use serde_json::{Value, json};

use super::{DeployError, Settings};
use crate::domain::gate::{
    self, Approval, Candidate, Evidence, Parity, Passed, Policy, Requirement,
};
use crate::domain::model_version::ModelVersionState;
use crate::domain::record::{ConversionRun, Evaluation, EvaluationRun, ModelVersion, WorkOrder};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetVersionId, EvaluationRunId, Id as _, PrincipalId};
use crate::store::{StoreError, Stored, Tx};

/// A version with everything that speaks for or against it.
pub(crate) struct Dossier {
    candidate: Candidate,
    evidence: Option<Evidence>,
    policy: Policy,
}

impl Dossier {
    /// For what would serve it, if that is known already.
    ///
    /// # Errors
    /// Only the database's own.
    pub(crate) async fn of(
        tx: &mut Tx,
        version: &Stored<ModelVersion>,
        evidence: Option<EvaluationRunId>,
        clearance: Option<Secrecy>,
        relaxable: &[Requirement],
    ) -> Result<Self, StoreError> {
        let conversion = match version.conversion_run {
            Some(id) => {
                let run = tx.get::<ConversionRun>(id).await?;
                Some(Parity {
                    run: id,
                    output_digest: run.output_digest.clone(),
                    passed: run.parity_passed,
                })
            }
            None => None,
        };
        let candidate = Candidate {
            digest: version.digest.clone(),
            author: version.author,
            conversion,
            datasets: tx.lineage_datasets(version.id).await?,
        };
        // Without a run the gate says so first, and looks at neither test set nor thresholds.
        let mut policy = Policy {
            test_set: DatasetVersionId::new(),
            policy_digest: String::new(),
            clearance,
            relaxable: relaxable.to_vec(),
        };
        let evidence = match evidence {
            Some(id) => {
                let run = tx.get::<EvaluationRun>(id).await?;
                policy.ask_as(tx, &run).await?;
                Some(Evidence {
                    run: id,
                    artifact_digest: run.artifact_digest.clone(),
                    test_set: run.test_set,
                    policy_digest: run.policy_digest.clone(),
                    verdict: run.verdict,
                    withdrawn: run.withdrawn_at.is_some(),
                })
            }
            None => None,
        };
        Ok(Self {
            candidate,
            evidence,
            policy,
        })
    }

    /// For a work order.
    ///
    /// # Errors
    /// Only the database's own.
    pub(super) async fn for_order(
        tx: &mut Tx,
        version: &Stored<ModelVersion>,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let (clearance, policy) = (Some(settings.clearance), &settings.gate_policy);
        Self::of(tx, version, version.evidence, clearance, policy).await
    }

    /// # Errors
    /// [`DeployError::Gate`], with everything that is missing.
    pub(crate) fn check(&self, approval: &Approval) -> Result<Passed, DeployError> {
        let evidence = self.evidence.as_ref();
        gate::check(&self.candidate, evidence, &self.policy, Some(approval))
            .map_err(DeployError::Gate)
    }

    /// For the record: what the gate saw.
    pub(super) fn document(&self, passed: &Passed) -> Value {
        let overridden: Vec<_> = passed.overridden.iter().map(ToString::to_string).collect();
        json!({
            "artifact_digest": self.candidate.digest,
            "conversion_run": self.candidate.conversion.as_ref().map(|parity| parity.run),
            "evaluation_run": self.evidence.as_ref().map(|evidence| evidence.run),
            "verdict": self.evidence.as_ref().and_then(|evidence| evidence.verdict),
            "test_set": self.evidence.as_ref().map(|evidence| evidence.test_set),
            "policy_digest": self.evidence.as_ref().map(|evidence| &evidence.policy_digest),
            "datasets": self.candidate.datasets.iter()
                .map(|dataset| json!({"version": dataset.version, "secrecy": dataset.secrecy}))
                .collect::<Vec<_>>(),
            "overridden": overridden,
        })
    }
}

impl Policy {
    /// What the evaluation of a run asks for now: thresholds that were raised since count. One that was put away
    /// asks for nothing, and nothing meets it.
    async fn ask_as(&mut self, tx: &mut Tx, run: &EvaluationRun) -> Result<(), StoreError> {
        self.test_set = run.test_set;
        match tx.get::<Evaluation>(run.evaluation).await {
            Ok(evaluation) => {
                self.test_set = evaluation.test_set.unwrap_or(run.test_set);
                self.policy_digest.clone_from(&evaluation.policy_digest);
                Ok(())
            }
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An approval by whom a work order names. The administrator of a process without authentication is
/// nobody in particular, and so nobody's author.
pub(super) fn approval(
    approver: Option<PrincipalId>,
    role: Role,
    override_reason: Option<String>,
) -> Approval {
    Approval {
        approver: approver.unwrap_or_else(PrincipalId::new),
        role,
        override_reason,
    }
}

/// # Errors
/// The version is not, or no longer, one that may serve, or not what the order is about.
pub(super) fn still_deployable(
    version: &Stored<ModelVersion>,
    digest: &str,
) -> Result<(), DeployError> {
    if !matches!(
        version.state,
        ModelVersionState::Approved | ModelVersionState::Live
    ) {
        return Err(DeployError::NotApproved(version.state));
    }
    match version.digest.as_deref() {
        Some(found) if found == digest => Ok(()),
        found => Err(DeployError::DigestChanged {
            expected: digest.to_owned(),
            found: found.unwrap_or("none").to_owned(),
        }),
    }
}

/// The gate once more, for an order that was approved before, by its row.
///
/// # Errors
/// As [`check_again`].
pub(crate) async fn check_order(tx: &mut Tx, order: &Stored<WorkOrder>) -> Result<(), DeployError> {
    let version = tx.get::<ModelVersion>(order.candidate).await?;
    let settings = Settings::read(&order.snapshot)?;
    check_again(tx, order, &version, &settings).await
}

/// The gate once more, for an order that was approved before.
///
/// # Errors
/// [`DeployError::Gate`] and the database's own.
pub(super) async fn check_again(
    tx: &mut Tx,
    order: &Stored<WorkOrder>,
    version: &Stored<ModelVersion>,
    settings: &Settings,
) -> Result<(), DeployError> {
    still_deployable(version, &order.candidate_digest)?;
    let dossier = Dossier::for_order(tx, version, settings).await?;
    // Who approved it had the right when he did.
    let approval = approval(
        order.approver,
        Role::Approver,
        order.override_reason.clone(),
    );
    dossier.check(&approval).map(drop)
}
