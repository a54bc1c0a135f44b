//! Trainings with their runs, and conversion runs.

use sqlx::{AnyConnection, AssertSqlSafe};

use super::column::{Column, arguments, placed, read};
use super::{Store, StoreError, Tx, Viewer, mapped, stateful_run};
use crate::domain::record::{ConversionRun, Training, TrainingRun};
use crate::id::{ConversionRunId, DatasetVersionId, TrainingId, TrainingRunId};

mapped! {
    Training(TrainingId) in "trainings":
    fixed [model],
    editable [owner, name, base_version, recipe, hyperparameters, resources]
}
mapped! {
    TrainingRun(TrainingRunId) in "training_runs":
    fixed [training, author, status, params, inputs],
    editable [task, metrics, artifact, error, started_at, finished_at]
}
mapped! {
    ConversionRun(ConversionRunId) in "conversion_runs":
    fixed [model, author, status, source_artifact, source_framework, exporter, number_format, params],
    editable [task, opset, parity, parity_passed, output_artifact, output_digest, error, started_at, finished_at]
}
stateful_run!(TrainingRun);
stateful_run!(ConversionRun);

impl Tx {
    /// Says that a training uses a dataset version. Saying it twice is no error.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if one of them does not exist.
    pub async fn train_on(
        &mut self,
        training: TrainingId,
        data: DatasetVersionId,
    ) -> Result<(), StoreError> {
        sqlx::query_with(
            "INSERT INTO training_datasets (training, dataset_version) VALUES ($1, $2) \
             ON CONFLICT (training, dataset_version) DO NOTHING",
            arguments([training.to_value(), data.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The dataset versions of a training that `viewer` may know of.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn training_data(
        &self,
        training: TrainingId,
        viewer: Viewer,
    ) -> Result<Vec<DatasetVersionId>, StoreError> {
        let visible = placed(&Viewer::dataset_versions(), 1);
        let sql = format!(
            "SELECT dataset_version FROM training_datasets WHERE training = $1 AND dataset_version IN ({visible}) \
             ORDER BY dataset_version"
        );
        let values = [training.to_value()].into_iter().chain(viewer.values());
        // Safe: made of constants and places.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter()
            .map(|row| read(row, "dataset_version"))
            .collect()
    }

    /// Whether a training uses data that `viewer` may not know of.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn training_is_hidden(
        &self,
        training: TrainingId,
        viewer: Viewer,
    ) -> Result<bool, StoreError> {
        is_hidden(&mut *self.reader().await?, training, viewer).await
    }
}

pub(super) async fn is_hidden(
    connection: &mut AnyConnection,
    training: TrainingId,
    viewer: Viewer,
) -> Result<bool, StoreError> {
    let visible = placed(&Viewer::dataset_versions(), 1);
    let sql = format!(
        "SELECT COUNT(*) AS hidden FROM training_datasets WHERE training = $1 AND dataset_version NOT IN ({visible})"
    );
    let values = [training.to_value()].into_iter().chain(viewer.values());
    // Safe: made of constants and places.
    let row = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
        .fetch_one(connection)
        .await?;
    Ok(read::<i64>(&row, "hidden")? > 0)
}
