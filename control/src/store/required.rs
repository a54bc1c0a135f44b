//! Which evaluations are required of models and deployments, and the newest verdict of each: what the gate asks for.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use super::audit::{Actor, Audit};
use super::column::{Column, Json, arguments, read};
use super::{Document, Store, StoreError, Tx};
use crate::domain::gate::{Allowance, Evidence, Place, RequiredEvaluation, Terms, Verdicts};
use crate::domain::record::{DatasetVersion, Evaluation};
use crate::evaluation::run::asked_as;
use crate::id::{
    DepartmentId, DeploymentId, EvaluationRunId, ModelId, ModelVersionId, PrincipalId,
};

impl Tx {
    /// What `evaluation` asks for as it stands.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn terms_of(&mut self, evaluation: &Evaluation) -> Result<Terms, StoreError> {
        let test_set_digest = match evaluation.test_set {
            Some(id) => Some(self.get::<DatasetVersion>(id).await?.record.digest),
            None => None,
        };
        Ok(Terms {
            test_set: evaluation.test_set,
            test_set_digest,
            metrics: evaluation.metrics.0.clone(),
            thresholds: evaluation.thresholds.0.clone(),
            policy_digest: evaluation.policy_digest.clone(),
            ask_digest: asked_as(&evaluation.settings.0),
        })
    }

    /// The histories of what is required of a model and its deployments, each newest first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn required_of(
        &mut self,
        model: ModelId,
    ) -> Result<HashMap<Place, Vec<RequiredEvaluation>>, StoreError> {
        histories(self.connection(), model).await
    }

    /// Appends to the history of an evaluation at a place, and to the audit log. `number`, `name`, `author` and `at` are
    /// set here.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn require(
        &mut self,
        actor: &Actor,
        before: Option<&RequiredEvaluation>,
        mut row: RequiredEvaluation,
    ) -> Result<RequiredEvaluation, StoreError> {
        // Whoever changes what is required at once comes one after the other.
        self.lock("evaluations", row.evaluation.to_value()).await?;
        let deployment = deployment_text(row.deployment);
        let next = sqlx::query_with(
            "SELECT COALESCE(MAX(number), 0) + 1 AS next FROM required_evaluations WHERE evaluation = $1 AND deployment = $2",
            arguments([row.evaluation.to_value(), deployment.to_value()])?,
        )
        .fetch_one(self.connection())
        .await?;
        row.number = read(&next, "next")?;
        row.at = self.now();
        let values = [
            row.evaluation.to_value(),
            deployment.to_value(),
            row.number.to_value(),
            row.required.to_value(),
            row.relaxes.to_value(),
            row.author.to_value(),
            row.terms.test_set.to_value(),
            row.terms.test_set_digest.to_value(),
            Json(row.terms.metrics.clone()).to_value(),
            Json(row.terms.thresholds.clone()).to_value(),
            row.terms.policy_digest.to_value(),
            row.terms.ask_digest.to_value(),
            row.at.to_value(),
        ];
        sqlx::query_with(
            "INSERT INTO required_evaluations (evaluation, deployment, number, required, relaxes, author, test_set, \
             test_set_digest, metrics, thresholds, policy_digest, ask_digest, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            arguments(values)?,
        )
        .execute(self.connection())
        .await?;
        let verb = match row.required {
            true => "require_evaluation",
            false => "unrequire_evaluation",
        };
        let detail = serde_json::json!({ "before": before, "now": row });
        self.audit(&Audit::of(actor, verb, row.evaluation).detail(&detail))
            .await?;
        Ok(row)
    }

    /// Whether a model has an evaluation of this name.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn has_evaluation(&mut self, model: ModelId, name: &str) -> Result<bool, StoreError> {
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS n FROM evaluations WHERE model = $1 AND name = $2 AND deleted_at IS NULL",
            arguments([model.to_value(), name.to_owned().to_value()])?,
        )
        .fetch_one(self.connection())
        .await?;
        Ok(read::<i64>(&row, "n")? > 0)
    }

    /// Whether somebody is the author of a version of the model about which nothing is decided yet.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn has_undecided_versions(
        &mut self,
        model: ModelId,
        author: PrincipalId,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS n FROM model_versions WHERE model = $1 AND author = $2 AND deleted_at IS NULL \
             AND state NOT IN ('approved', 'live', 'archived', 'rejected')",
            arguments([model.to_value(), author.to_value()])?,
        )
        .fetch_one(self.connection())
        .await?;
        Ok(read::<i64>(&row, "n")? > 0)
    }

    /// Versions of a model whose evaluation is over and that are not approved yet.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn evaluated_versions(
        &mut self,
        model: ModelId,
    ) -> Result<Vec<ModelVersionId>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT id FROM model_versions WHERE model = $1 AND deleted_at IS NULL \
             AND state IN ('eval_passed', 'pending_approval') ORDER BY id",
            arguments([model.to_value()])?,
        )
        .fetch_all(self.connection())
        .await?;
        rows.iter().map(|row| read(row, "id")).collect()
    }

    /// The newest verdict of each evaluation about a version; one that was withdrawn only where there is no other.
    /// Runs whose asker chose the prompts are trials, and no evidence.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn verdicts_on(&mut self, version: ModelVersionId) -> Result<Verdicts, StoreError> {
        let sql = format!("{VERDICTS} AND r.model_version = $1 ORDER BY r.id DESC");
        // Safe: a constant of the program.
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments([version.to_value()])?)
            .fetch_all(self.connection())
            .await?;
        let mut all = newest(&rows)?;
        Ok(all.remove(&version).unwrap_or_default())
    }

    /// What a department lets pass at its gates.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn gate_policy(
        &mut self,
        department: DepartmentId,
    ) -> Result<Vec<Allowance>, StoreError> {
        gate_policy(self.connection(), department).await
    }

    /// Changes what a department lets pass, and says so in the audit log.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if there is no such department.
    pub async fn set_gate_policy(
        &mut self,
        actor: &Actor,
        department: DepartmentId,
        allows: Vec<Allowance>,
    ) -> Result<(), StoreError> {
        let before = self.gate_policy(department).await?;
        let now = self.now();
        sqlx::query_with(
            "INSERT INTO gate_policies (department, allows, at) VALUES ($1, $2, $3) \
             ON CONFLICT (department) DO UPDATE SET allows = $2, at = $3",
            arguments([
                department.to_value(),
                Json(allows.clone()).to_value(),
                now.to_value(),
            ])?,
        )
        .execute(self.connection())
        .await?;
        let detail = serde_json::json!({ "before": before, "now": allows });
        self.audit(&Audit::of(actor, "set_gate_policy", department).detail(&detail))
            .await
    }
}

impl Store {
    /// As [`Tx::gate_policy`].
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn gate_policy_of(
        &self,
        department: DepartmentId,
    ) -> Result<Vec<Allowance>, StoreError> {
        gate_policy(&mut *self.reader().await?, department).await
    }
}

pub(super) async fn gate_policy(
    connection: &mut sqlx::AnyConnection,
    department: DepartmentId,
) -> Result<Vec<Allowance>, StoreError> {
    let row = sqlx::query_with(
        "SELECT allows FROM gate_policies WHERE department = $1",
        arguments([department.to_value()])?,
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) => read::<Json<Vec<Allowance>>>(&row, "allows")?.0,
        None => Vec::new(),
    })
}

const VERDICTS: &str = "SELECT r.id, r.model_version, r.evaluation, r.artifact_digest, r.test_set, r.policy_digest, r.plan, \
    r.verdict, r.withdrawn_at FROM evaluation_runs r WHERE r.status = 'succeeded' AND r.verdict IS NOT NULL AND r.deleted_at IS NULL";

/// As [`Tx::verdicts_on`], for all versions of a model.
pub(super) async fn verdicts(
    connection: &mut sqlx::AnyConnection,
    model: ModelId,
) -> Result<HashMap<ModelVersionId, Verdicts>, StoreError> {
    let sql = format!(
        "{VERDICTS} AND r.model_version IN (SELECT id FROM model_versions WHERE model = $1) ORDER BY r.id DESC"
    );
    // Safe: a constant of the program.
    let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments([model.to_value()])?)
        .fetch_all(connection)
        .await?;
    newest(&rows)
}

/// `rows` are newest first.
fn newest(rows: &[AnyRow]) -> Result<HashMap<ModelVersionId, Verdicts>, StoreError> {
    let mut all: HashMap<ModelVersionId, Verdicts> = HashMap::new();
    for row in rows {
        let plan: Document = read(row, "plan")?;
        if plan.0["prompts_chosen"] == true {
            continue;
        }
        let evidence = Evidence {
            run: read::<EvaluationRunId>(row, "id")?,
            artifact_digest: read(row, "artifact_digest")?,
            test_set: read(row, "test_set")?,
            policy_digest: read(row, "policy_digest")?,
            ask_digest: asked_as(&plan.0["settings"]),
            verdict: read(row, "verdict")?,
            withdrawn: read::<Option<crate::time::Timestamp>>(row, "withdrawn_at")?.is_some(),
        };
        let of_version = all.entry(read(row, "model_version")?).or_default();
        let known = of_version.entry(read(row, "evaluation")?);
        known
            .and_modify(|known| {
                if known.withdrawn && !evidence.withdrawn {
                    known.clone_from(&evidence);
                }
            })
            .or_insert(evidence);
    }
    Ok(all)
}

pub(super) async fn histories(
    connection: &mut sqlx::AnyConnection,
    model: ModelId,
) -> Result<HashMap<Place, Vec<RequiredEvaluation>>, StoreError> {
    let rows = sqlx::query_with(
        "SELECT q.evaluation, q.deployment, q.number, q.required, q.relaxes, q.author, q.test_set, q.test_set_digest, \
         q.metrics, q.thresholds, q.policy_digest, q.ask_digest, q.at, e.name, p.name AS author_name \
         FROM required_evaluations q JOIN evaluations e ON e.id = q.evaluation LEFT JOIN principals p ON p.id = q.author \
         WHERE e.model = $1 ORDER BY q.evaluation, q.deployment, q.number DESC",
        arguments([model.to_value()])?,
    )
    .fetch_all(connection)
    .await?;
    let mut histories: HashMap<Place, Vec<RequiredEvaluation>> = HashMap::new();
    for row in &rows {
        let row = requirement(row)?;
        histories
            .entry((row.evaluation, row.deployment))
            .or_default()
            .push(row);
    }
    Ok(histories)
}

fn requirement(row: &AnyRow) -> Result<RequiredEvaluation, StoreError> {
    let deployment: String = read(row, "deployment")?;
    Ok(RequiredEvaluation {
        evaluation: read(row, "evaluation")?,
        name: read(row, "name")?,
        deployment: deployment.parse().ok(),
        number: read(row, "number")?,
        required: read(row, "required")?,
        relaxes: read(row, "relaxes")?,
        author: read(row, "author")?,
        author_name: read(row, "author_name")?,
        at: read(row, "at")?,
        terms: Terms {
            test_set: read(row, "test_set")?,
            test_set_digest: read(row, "test_set_digest")?,
            metrics: read::<Document>(row, "metrics")?.0,
            thresholds: read::<Document>(row, "thresholds")?.0,
            policy_digest: read(row, "policy_digest")?,
            ask_digest: read(row, "ask_digest")?,
        },
    })
}

fn deployment_text(deployment: Option<DeploymentId>) -> String {
    deployment.map_or(String::new(), |id| id.to_string())
}
