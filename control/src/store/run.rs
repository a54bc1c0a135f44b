//! Trainings with their runs, and conversion runs.

use super::column::{Column, arguments};
use super::{StoreError, Tx, mapped, stateful_run};
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
