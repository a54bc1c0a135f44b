//! What the gate is asked about a version, read from its records.

use serde_json::{Value, json};

use super::{DeployError, Settings};
use crate::domain::gate::{
    self, Approval, Candidate, Demand, Missing, Parity, Passed, Policy, Requirement,
};
use crate::domain::model_version::ModelVersionState;
use crate::domain::record::{ConversionRun, Model, ModelVersion, WorkOrder};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::domain::work_order::WorkOrderState;
use crate::id::{DeploymentId, EvaluationRunId, Id as _, PrincipalId};
use crate::store::{StoreError, Stored, Tx};

/// A version with everything that speaks for or against it.
pub(crate) struct Dossier {
    candidate: Candidate,
    demands: Vec<Demand>,
    policy: Policy,
}

impl Dossier {
    /// For what would serve it, if that is known already: what the model requires and what the deployment does hold
    /// together.
    ///
    /// # Errors
    /// Only the database's own.
    pub(crate) async fn of(
        tx: &mut Tx,
        version: &Stored<ModelVersion>,
        deployment: Option<DeploymentId>,
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
        let required = tx.required_of(version.model).await?;
        let verdicts = tx.verdicts_on(version.id).await?;
        let department = tx.get::<Model>(version.model).await?.department;
        let policy = Policy {
            allows: tx.gate_policy(department).await?,
            clearance,
            relaxable: relaxable.to_vec(),
        };
        Ok(Self {
            demands: gate::demands(&required, &verdicts, version.author, deployment),
            candidate,
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
        deployment: DeploymentId,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let (clearance, policy) = (Some(settings.clearance), &settings.gate_policy);
        Self::of(tx, version, Some(deployment), clearance, policy).await
    }

    /// The newest run among those that the required evaluations rest on.
    pub(crate) fn newest_run(&self) -> Option<EvaluationRunId> {
        let runs = self.demands.iter().filter_map(|it| it.evidence.as_ref());
        runs.map(|evidence| evidence.run).max()
    }

    /// What is demanded, and the newest verdict of each.
    pub(crate) fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// What the required evaluations do not say, whoever approves.
    pub(crate) fn missing_evidence(&self) -> Vec<Missing> {
        let digest = self.candidate.digest.as_deref().unwrap_or_default();
        let mut missing = gate::about_evidence(digest, &self.demands);
        missing.retain(|it| !self.policy.lets_pass(it));
        missing
    }

    /// # Errors
    /// [`DeployError::Gate`], with everything that is missing.
    pub(crate) fn check(&self, approval: &Approval) -> Result<Passed, DeployError> {
        gate::check(&self.candidate, &self.demands, &self.policy, Some(approval))
            .map_err(DeployError::Gate)
    }

    /// For the record: what the gate saw.
    pub(super) fn document(&self, passed: &Passed) -> Value {
        let overridden: Vec<_> = passed.overridden.iter().map(ToString::to_string).collect();
        json!({
            "artifact_digest": self.candidate.digest,
            "conversion_run": self.candidate.conversion.as_ref().map(|parity| parity.run),
            "evaluation_run": self.newest_run(),
            "evaluations": self.demands.iter().map(evaluated).collect::<Vec<_>>(),
            "datasets": self.candidate.datasets.iter()
                .map(|dataset| json!({"version": dataset.version, "secrecy": dataset.secrecy}))
                .collect::<Vec<_>>(),
            "overridden": overridden,
        })
    }
}

fn evaluated(demand: &Demand) -> Value {
    let evidence = demand.evidence.as_ref();
    json!({
        "evaluation": demand.requirement.evaluation,
        "name": demand.requirement.name,
        "deployment": demand.requirement.deployment,
        "run": evidence.map(|it| it.run),
        "verdict": evidence.and_then(|it| it.verdict),
        "test_set": evidence.map(|it| it.test_set),
        "policy_digest": evidence.map(|it| &it.policy_digest),
    })
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
    same_content(version, digest)
}

fn same_content(version: &ModelVersion, digest: &str) -> Result<(), DeployError> {
    match version.digest.as_deref() {
        Some(found) if found == digest => Ok(()),
        found => Err(DeployError::DigestChanged {
            expected: digest.to_owned(),
            found: found.unwrap_or("none").to_owned(),
        }),
    }
}

/// All that a return asks: `target` was live at this deployment, and its version is still the same content. What was
/// let through once needs no new evidence to be taken back to, whatever has become of thresholds, evidence or quotas.
///
/// # Errors
/// [`DeployError::NothingEarlier`] and [`DeployError::DigestChanged`].
pub(super) fn was_live_here(
    target: &WorkOrder,
    deployment: DeploymentId,
    version: &ModelVersion,
) -> Result<(), DeployError> {
    if target.deployment != deployment || target.state != WorkOrderState::Promoted {
        return Err(DeployError::NothingEarlier);
    }
    same_content(version, &target.candidate_digest)
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

/// The gate once more, for an order that was approved before; a return is not asked.
///
/// # Errors
/// [`DeployError::Gate`] and the database's own.
pub(super) async fn check_again(
    tx: &mut Tx,
    order: &Stored<WorkOrder>,
    version: &Stored<ModelVersion>,
    settings: &Settings,
) -> Result<(), DeployError> {
    if order.restores.is_some() {
        return same_content(version, &order.candidate_digest);
    }
    still_deployable(version, &order.candidate_digest)?;
    let dossier = Dossier::for_order(tx, version, order.deployment, settings).await?;
    // Who approved it had the right when he did.
    let approval = approval(
        order.approver,
        Role::Approver,
        order.override_reason.clone(),
    );
    dossier.check(&approval).map(drop)
}
