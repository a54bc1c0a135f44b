//! Models and versions, and the page that a model's owner lives in: every version with the state of its
//! training, evaluation and deployment, by a number of queries that does not depend on how many there are.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::column::{Column, Document, arguments, placed, read};
use super::record::{columns, find, get};
use super::required::{gate_policy, histories, verdicts};
use super::{Actor, Json, Record, Store, StoreError, Stored, Tx, Viewer, mapped, stateful};
use crate::domain::Verdict;
use crate::domain::gate::{self, Allowance, Place, RequiredEvaluation, Verdicts};
use crate::domain::model_version::ModelVersionState;
use crate::domain::record::{ConversionRun, Model, ModelVersion, TrainingRun};
use crate::domain::run::RunStatus;
use crate::domain::secrecy::Secrecy;
use crate::domain::work_order::WorkOrderState;
use crate::id::{
    DatasetVersionId, DeploymentId, EvaluationId, EvaluationRunId, ModelId, ModelVersionId,
    WorkOrderId,
};
use crate::time::Timestamp;

mapped! {
    Model(ModelId) in "models":
    fixed [department],
    editable [owner, name, description, train_framework, inference_framework, code_url, dashboard_url]
}
mapped! {
    ModelVersion(ModelVersionId) in "model_versions":
    fixed [model, number, author, state],
    editable [artifact, digest, training_run, conversion_run, evidence, approver, approved_at, note]
}
stateful! { ModelVersion: ModelVersionState as state }

/// A model with all there is to say about it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ModelView {
    pub model: Stored<Model>,
    /// Newest first.
    pub versions: Vec<VersionView>,
    /// Deployments of the model, whatever version they serve.
    pub deployments: Vec<DeploymentSummary>,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct VersionView {
    pub version: Stored<ModelVersion>,
    pub training: Option<Stored<TrainingRun>>,
    pub conversion: Option<Stored<ConversionRun>>,
    /// Newest first.
    pub evaluations: Vec<EvaluationSummary>,
    /// Deployments that serve it, or have a work order for it.
    pub deployments: Vec<DeploymentSummary>,
    /// The dataset versions of its lineage that the viewer may see.
    pub datasets: Vec<DatasetSummary>,
    /// It is approved or live, and what let it through does not hold any more: it stays live, and rises no further.
    pub evidence_outdated: bool,
    /// What is missing then.
    pub evidence_missing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EvaluationSummary {
    pub run: EvaluationRunId,
    pub evaluation: EvaluationId,
    pub name: String,
    pub status: RunStatus,
    pub verdict: Option<Verdict>,
    pub scores: Document,
    pub withdrawn_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct DeploymentSummary {
    pub deployment: DeploymentId,
    pub endpoint: String,
    pub live_version: Option<ModelVersionId>,
    /// The unfinished work order, if there is one.
    pub work_order: Option<WorkOrderId>,
    pub candidate: Option<ModelVersionId>,
    pub work_order_state: Option<WorkOrderState>,
    pub step: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct DatasetSummary {
    pub version: DatasetVersionId,
    pub name: String,
    pub number: i64,
    pub secrecy: Secrecy,
    /// What it was used for: `train`, `tune`, `calibrate`.
    pub use_of: String,
}

impl Tx {
    /// Adds the next version to a model; `number` is set here.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the model does not exist.
    pub async fn add_model_version(
        &mut self,
        actor: &Actor,
        mut version: ModelVersion,
    ) -> Result<Stored<ModelVersion>, StoreError> {
        self.get::<Model>(version.model).await?;
        self.lock("models", version.model.to_value()).await?;
        version.number = self
            .next_number("model_versions", "model", version.model.to_value())
            .await?;
        self.create(actor, version).await
    }

    /// Puts a dataset version into a model version's lineage. Saying it twice is no error.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if one of them does not exist.
    pub async fn link_dataset(
        &mut self,
        version: ModelVersionId,
        dataset: DatasetVersionId,
        use_of: &str,
    ) -> Result<(), StoreError> {
        sqlx::query_with(
            "INSERT INTO model_version_datasets (model_version, dataset_version, use_of) VALUES ($1, $2, $3) \
             ON CONFLICT (model_version, dataset_version) DO NOTHING",
            arguments([version.to_value(), dataset.to_value(), use_of.to_owned().to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The model of this name.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn model_named(&self, name: &str) -> Result<Option<Stored<Model>>, StoreError> {
        find(
            &mut *self.reader().await?,
            "name",
            name.to_owned().to_value(),
        )
        .await
    }

    /// A model with its versions and the state of each, as `viewer` may see it; `None` sees every dataset.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn model_view(
        &self,
        model: ModelId,
        viewer: Option<Viewer>,
    ) -> Result<ModelView, StoreError> {
        let mut reader = self.reader().await?;
        let record = get::<Model>(&mut reader, model).await?;
        let versions = of_model::<ModelVersion>(&mut reader, "model = $1", model).await?;
        let mut trainings =
            of_model::<TrainingRun>(&mut reader, &made_by("training_run"), model).await?;
        if let Some(viewer) = viewer {
            for run in &mut trainings {
                // A run's inputs name its datasets.
                if super::run::is_hidden(&mut reader, run.training, viewer).await? {
                    run.record.inputs = Json(serde_json::Value::Null);
                }
            }
        }
        let conversions =
            of_model::<ConversionRun>(&mut reader, &made_by("conversion_run"), model).await?;
        let mut evaluations = grouped(evaluations(&mut reader, model).await?);
        let deployments = deployments(&mut reader, model).await?;
        let mut datasets = grouped(datasets(&mut reader, model, viewer).await?);
        let gates = Gates {
            required: histories(&mut reader, model).await?,
            verdicts: verdicts(&mut reader, model).await?,
            allows: gate_policy(&mut reader, record.department).await?,
        };
        let trainings = by_id(trainings);
        let conversions = by_id(conversions);
        let versions = versions
            .into_iter()
            .map(|version| VersionView {
                training: version
                    .training_run
                    .and_then(|run| trainings.get(&run).cloned()),
                conversion: version
                    .conversion_run
                    .and_then(|run| conversions.get(&run).cloned()),
                evaluations: evaluations.remove(&version.id).unwrap_or_default(),
                deployments: deployments
                    .iter()
                    .filter(|found| found.concerns(version.id))
                    .cloned()
                    .collect(),
                datasets: datasets.remove(&version.id).unwrap_or_default(),
                evidence_outdated: false,
                evidence_missing: gates.missing(&version, &deployments),
                version,
            })
            .map(|view| VersionView {
                evidence_outdated: !view.evidence_missing.is_empty(),
                ..view
            })
            .collect();
        Ok(ModelView {
            model: record,
            versions,
            deployments,
        })
    }
}

/// What the gate asks for, of all versions of a model.
struct Gates {
    required: HashMap<Place, Vec<RequiredEvaluation>>,
    verdicts: HashMap<ModelVersionId, Verdicts>,
    allows: Vec<Allowance>,
}

impl Gates {
    /// What a version that is approved or live does not meet any more, at the model and wherever it is live.
    fn missing(
        &self,
        version: &Stored<ModelVersion>,
        deployments: &[DeploymentSummary],
    ) -> Vec<String> {
        if !matches!(
            version.state,
            ModelVersionState::Approved | ModelVersionState::Live
        ) {
            return Vec::new();
        }
        let digest = version.digest.as_deref().unwrap_or_default();
        let none = Verdicts::new();
        let verdicts = self.verdicts.get(&version.id).unwrap_or(&none);
        let policy = gate::Policy {
            allows: self.allows.clone(),
            clearance: None,
            relaxable: Vec::new(),
        };
        let serving = deployments
            .iter()
            .filter(|it| it.live_version == Some(version.id))
            .map(|it| Some(it.deployment));
        let mut missing = Vec::new();
        for at in std::iter::once(None).chain(serving) {
            let demands = gate::demands(&self.required, verdicts, version.author, at);
            for lacking in gate::about_evidence(digest, &demands) {
                let said = lacking.to_string();
                if !policy.lets_pass(&lacking) && !missing.contains(&said) {
                    missing.push(said);
                }
            }
        }
        missing
    }
}

impl DeploymentSummary {
    fn concerns(&self, version: ModelVersionId) -> bool {
        self.live_version == Some(version) || self.candidate == Some(version)
    }
}

fn made_by(column: &str) -> String {
    format!("id IN (SELECT {column} FROM model_versions WHERE model = $1)")
}

fn by_id<R: Record>(records: Vec<Stored<R>>) -> HashMap<R::Id, Stored<R>>
where
    R::Id: Hash,
{
    records
        .into_iter()
        .map(|stored| (stored.id, stored))
        .collect()
}

fn grouped<T>(pairs: Vec<(ModelVersionId, T)>) -> HashMap<ModelVersionId, Vec<T>> {
    let mut groups: HashMap<ModelVersionId, Vec<T>> = HashMap::new();
    for (version, item) in pairs {
        groups.entry(version).or_default().push(item);
    }
    groups
}

/// Records for which `condition` holds of the model `$1`, newest first.
async fn of_model<R: Record>(
    connection: &mut AnyConnection,
    condition: &str,
    model: ModelId,
) -> Result<Vec<Stored<R>>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE {condition} AND deleted_at IS NULL ORDER BY id DESC",
        columns::<R>(),
        R::TABLE
    );
    // Safe: all of it are constants of the program.
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments([model.to_value()])?)
        .fetch_all(connection)
        .await?;
    rows.iter().map(Stored::from_row).collect()
}

async fn evaluations(
    connection: &mut AnyConnection,
    model: ModelId,
) -> Result<Vec<(ModelVersionId, EvaluationSummary)>, StoreError> {
    let rows = sqlx::query_with(
        "SELECT r.id, r.model_version, r.evaluation, e.name, r.status, r.verdict, r.scores, r.withdrawn_at, r.finished_at \
         FROM evaluation_runs r JOIN evaluations e ON e.id = r.evaluation \
         WHERE r.model_version IN (SELECT id FROM model_versions WHERE model = $1) AND r.deleted_at IS NULL \
         ORDER BY r.id DESC",
        arguments([model.to_value()])?,
    )
    .fetch_all(connection)
    .await?;
    let summary = |row: &AnyRow| {
        Ok((
            read(row, "model_version")?,
            EvaluationSummary {
                run: read(row, "id")?,
                evaluation: read(row, "evaluation")?,
                name: read(row, "name")?,
                status: read(row, "status")?,
                verdict: read(row, "verdict")?,
                scores: read(row, "scores")?,
                withdrawn_at: read(row, "withdrawn_at")?,
                finished_at: read(row, "finished_at")?,
            },
        ))
    };
    rows.iter().map(summary).collect()
}

async fn deployments(
    connection: &mut AnyConnection,
    model: ModelId,
) -> Result<Vec<DeploymentSummary>, StoreError> {
    let rows = sqlx::query_with(
        "SELECT d.id, d.endpoint, d.live_version, w.id AS work_order, w.candidate, w.state, w.step \
         FROM deployments d LEFT JOIN work_orders w \
           ON w.deployment = d.id AND w.finished_at IS NULL AND w.deleted_at IS NULL \
         WHERE d.model = $1 AND d.deleted_at IS NULL ORDER BY d.endpoint",
        arguments([model.to_value()])?,
    )
    .fetch_all(connection)
    .await?;
    let summary = |row: &AnyRow| {
        Ok(DeploymentSummary {
            deployment: read(row, "id")?,
            endpoint: read(row, "endpoint")?,
            live_version: read(row, "live_version")?,
            work_order: read(row, "work_order")?,
            candidate: read(row, "candidate")?,
            work_order_state: read(row, "state")?,
            step: read(row, "step")?,
        })
    };
    rows.iter().map(summary).collect()
}

/// The lineage's datasets. A viewer sees those within its clearance that it owns or has a grant for; of
/// the others not even that they exist.
async fn datasets(
    connection: &mut AnyConnection,
    model: ModelId,
    viewer: Option<Viewer>,
) -> Result<Vec<(ModelVersionId, DatasetSummary)>, StoreError> {
    let mut values = vec![model.to_value()];
    let mut sql = "SELECT l.model_version, l.use_of, v.id, v.number, d.name, d.secrecy FROM model_version_datasets l \
                   JOIN dataset_versions v ON v.id = l.dataset_version JOIN datasets d ON d.id = v.dataset \
                   WHERE l.model_version IN (SELECT id FROM model_versions WHERE model = $1)"
        .to_owned();
    if let Some(viewer) = viewer {
        let visible = placed(Viewer::DATASETS, values.len());
        values.extend(viewer.values());
        sql.push_str(&format!(" AND d.id IN ({visible})"));
    }
    sql.push_str(" ORDER BY d.name, v.number");
    // Safe: made of constants and places.
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
        .fetch_all(connection)
        .await?;
    let summary = |row: &AnyRow| {
        Ok((
            read(row, "model_version")?,
            DatasetSummary {
                version: read(row, "id")?,
                name: read(row, "name")?,
                number: read(row, "number")?,
                secrecy: read(row, "secrecy")?,
                use_of: read(row, "use_of")?,
            },
        ))
    };
    rows.iter().map(summary).collect()
}

#[cfg(test)]
pub(super) mod tests;
