//! Datasets, their versions, and what is linked to them.

use super::column::Column;
use super::{Actor, StoreError, Stored, Tx, mapped};
use crate::domain::record::{Dataset, DatasetVersion};
use crate::id::{DatasetId, DatasetVersionId};

mapped! {
    Dataset(DatasetId) in "datasets":
    fixed [department],
    editable [owner, name, description, source, modality, secrecy]
}
mapped! {
    DatasetVersion(DatasetVersionId) in "dataset_versions":
    fixed [dataset, number, author, artifact, digest, row_count, bytes, schema_json, statistics, parent],
    editable [note]
}

impl Tx {
    /// Registers the next version of a dataset; `number` is set here.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the dataset does not exist.
    pub async fn add_dataset_version(
        &mut self,
        actor: &Actor,
        mut version: DatasetVersion,
    ) -> Result<Stored<DatasetVersion>, StoreError> {
        self.get::<Dataset>(version.dataset).await?;
        self.lock("datasets", version.dataset.to_value()).await?;
        version.number = self
            .next_number("dataset_versions", "dataset", version.dataset.to_value())
            .await?;
        self.create(actor, version).await
    }
}
