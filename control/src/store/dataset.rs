//! Datasets, their versions, and what is linked to them.

use super::column::{Column, Value};
use super::{Actor, StoreError, Stored, Tx, mapped};
use crate::domain::record::{Dataset, DatasetVersion};
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetId, DatasetVersionId, DepartmentId, PrincipalId};

/// Somebody who looks at records that datasets stand behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    pub principal: PrincipalId,
    /// Whose grants it shares; `None` sees only what was granted to itself.
    pub department: Option<DepartmentId>,
    pub clearance: Secrecy,
    /// An administrator needs no grant; a clearance it does need.
    pub admin: bool,
}

impl Viewer {
    /// A SELECT of the ids of the datasets that the viewer may know of, with `?` for the values: within its
    /// clearance, and its own, granted to it or its department, or any for an administrator.
    pub(crate) const DATASETS: &'static str = "SELECT d.id FROM datasets d WHERE d.secrecy IN (?, ?, ?, ?) AND (d.owner = ? OR ? = 1 \
        OR EXISTS (SELECT 1 FROM grants g WHERE g.object_kind = 'dataset' AND g.object_id = d.id \
        AND g.deleted_at IS NULL AND (g.principal = ? OR g.department = ?)))";

    /// The values of [`DATASETS`](Self::DATASETS).
    pub(crate) fn values(&self) -> Vec<Value> {
        // A level that is out of reach is replaced by the lowest, which is always in reach.
        let level = |level: Secrecy| {
            let seen = if level.within(self.clearance) {
                level
            } else {
                Secrecy::Public
            };
            seen.to_value()
        };
        let mut values: Vec<Value> = Secrecy::ALL.iter().map(|it| level(*it)).collect();
        values.extend([
            self.principal.to_value(),
            i64::from(self.admin).to_value(),
            self.principal.to_value(),
            self.department.to_value(),
        ]);
        values
    }

    /// The same for dataset versions.
    pub(crate) fn dataset_versions() -> String {
        format!(
            "SELECT v.id FROM dataset_versions v WHERE v.dataset IN ({})",
            Self::DATASETS
        )
    }
}

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
