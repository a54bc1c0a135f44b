//! What something was made from, to the last source: data, its parents, trainings, base versions, conversions, and
//! whatever else is known by the same digest. Secrecy and the right of use hang on the content, so that they do not end at a
//! record that leaves its sources out.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use super::column::{Column, arguments, read};
use super::{StoreError, Tx};
use crate::domain::gate::LineageDataset;
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetId, DatasetVersionId, ModelVersionId};

/// One thing that was found on the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Data(DatasetVersionId),
    Version(ModelVersionId),
    /// Of an artifact, wherever it is named.
    Digest(String),
}

const OF_DATA: &str = "SELECT 'data' AS kind, parent AS id FROM dataset_versions WHERE id = $1 AND parent IS NOT NULL \
    UNION ALL SELECT 'digest', digest FROM dataset_versions WHERE id = $1";

const OF_VERSION: &str = "SELECT 'data' AS kind, dataset_version AS id FROM model_version_datasets WHERE model_version = $1 \
    UNION ALL SELECT 'data', t.dataset_version FROM training_datasets t JOIN training_runs r ON r.training = t.training \
    JOIN model_versions m ON m.training_run = r.id WHERE m.id = $1 \
    UNION ALL SELECT 'version', t.base_version FROM trainings t JOIN training_runs r ON r.training = t.id \
    JOIN model_versions m ON m.training_run = r.id WHERE m.id = $1 AND t.base_version IS NOT NULL \
    UNION ALL SELECT 'digest', a.digest FROM artifacts a JOIN conversion_runs c ON c.source_artifact = a.id \
    JOIN model_versions m ON m.conversion_run = c.id WHERE m.id = $1 \
    UNION ALL SELECT 'digest', digest FROM model_versions WHERE id = $1 AND digest IS NOT NULL";

const OF_DIGEST: &str = "SELECT 'data' AS kind, id FROM dataset_versions WHERE digest = $1 \
    UNION ALL SELECT 'version', id FROM model_versions WHERE digest = $1 \
    UNION ALL SELECT 'digest', a.digest FROM artifacts a JOIN conversion_runs c ON c.source_artifact = a.id WHERE c.output_digest = $1 \
    UNION ALL SELECT 'data', t.dataset_version FROM training_datasets t JOIN training_runs r ON r.training = t.training \
    JOIN artifacts a ON a.id = r.artifact WHERE a.digest = $1 \
    UNION ALL SELECT 'version', t.base_version FROM trainings t JOIN training_runs r ON r.training = t.id \
    JOIN artifacts a ON a.id = r.artifact WHERE a.digest = $1 AND t.base_version IS NOT NULL";

/// What is made from a dataset version, directly, by record or by content.
const MADE_OF: &str = "SELECT c.id FROM dataset_versions c WHERE c.parent IN \
    (SELECT s.id FROM dataset_versions s JOIN dataset_versions o ON o.digest = s.digest WHERE o.id = $1)";

impl Tx {
    /// Every dataset version that a model version was made from, with how secret it is. For the gate, which must know
    /// them all.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn lineage_datasets(
        &mut self,
        version: ModelVersionId,
    ) -> Result<Vec<LineageDataset>, StoreError> {
        self.sources(Node::Version(version)).await
    }

    /// The most secret data that a dataset version was made from, itself included.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn secrecy_of_data(
        &mut self,
        version: DatasetVersionId,
    ) -> Result<Option<Secrecy>, StoreError> {
        Ok(most(&self.sources(Node::Data(version)).await?))
    }

    /// The most secret data that content was made from, or is; `None` where nothing is known of it.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn secrecy_of_content(
        &mut self,
        digest: &str,
    ) -> Result<Option<Secrecy>, StoreError> {
        Ok(most(&self.sources(Node::Digest(digest.to_owned())).await?))
    }

    /// How secret a dataset has to be at least: as the most secret of other datasets that its versions were made from.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn least_secrecy(
        &mut self,
        dataset: DatasetId,
    ) -> Result<Option<Secrecy>, StoreError> {
        let versions = self.versions_of(dataset).await?;
        let own: BTreeSet<DatasetVersionId> = versions.iter().copied().collect();
        let mut others = Vec::new();
        for version in versions {
            let sources = self.sources(Node::Data(version)).await?;
            others.extend(sources.into_iter().filter(|it| !own.contains(&it.version)));
        }
        Ok(most(&others))
    }

    /// The datasets with versions that were made from this one's, however far, that are less secret than `secrecy`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn derived_below(
        &mut self,
        dataset: DatasetId,
        secrecy: Secrecy,
    ) -> Result<Vec<DatasetId>, StoreError> {
        let mut open = self.versions_of(dataset).await?;
        let mut seen: BTreeSet<DatasetVersionId> = open.iter().copied().collect();
        while let Some(version) = open.pop() {
            let rows = sqlx::query_with(MADE_OF, arguments([version.to_value()])?)
                .fetch_all(self.connection())
                .await?;
            for row in &rows {
                let made: DatasetVersionId = read(row, "id")?;
                if seen.insert(made) {
                    open.push(made);
                }
            }
        }
        let mut below = BTreeSet::new();
        for version in seen {
            let row = sqlx::query_with(
                "SELECT d.id, d.secrecy FROM dataset_versions v JOIN datasets d ON d.id = v.dataset WHERE v.id = $1",
                arguments([version.to_value()])?,
            )
            .fetch_one(self.connection())
            .await?;
            let (id, level): (DatasetId, Secrecy) = (read(&row, "id")?, read(&row, "secrecy")?);
            if id != dataset && level < secrecy {
                below.insert(id);
            }
        }
        Ok(below.into_iter().collect())
    }

    async fn versions_of(
        &mut self,
        dataset: DatasetId,
    ) -> Result<Vec<DatasetVersionId>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT id FROM dataset_versions WHERE dataset = $1 ORDER BY id",
            arguments([dataset.to_value()])?,
        )
        .fetch_all(self.connection())
        .await?;
        rows.iter().map(|row| read(row, "id")).collect()
    }

    /// Every dataset version behind `start`, itself included.
    async fn sources(&mut self, start: Node) -> Result<Vec<LineageDataset>, StoreError> {
        let mut seen = BTreeSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            for found in self.next(&node).await? {
                if seen.insert(found.clone()) {
                    open.push(found);
                }
            }
        }
        let mut sources = Vec::new();
        for node in seen {
            let Node::Data(version) = node else { continue };
            let row = sqlx::query_with(
                "SELECT d.secrecy FROM dataset_versions v JOIN datasets d ON d.id = v.dataset WHERE v.id = $1",
                arguments([version.to_value()])?,
            )
            .fetch_one(self.connection())
            .await?;
            let secrecy = read(&row, "secrecy")?;
            sources.push(LineageDataset { version, secrecy });
        }
        Ok(sources)
    }

    async fn next(&mut self, node: &Node) -> Result<Vec<Node>, StoreError> {
        let (sql, value) = match node {
            Node::Data(id) => (OF_DATA, id.to_value()),
            Node::Version(id) => (OF_VERSION, id.to_value()),
            Node::Digest(digest) => (OF_DIGEST, digest.to_value()),
        };
        // Safe: constants of the program.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments([value])?)
            .fetch_all(self.connection())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(match read::<String>(row, "kind")?.as_str() {
                    "data" => Node::Data(read(row, "id")?),
                    "version" => Node::Version(read(row, "id")?),
                    _ => Node::Digest(read(row, "id")?),
                })
            })
            .collect()
    }
}

fn most(sources: &[LineageDataset]) -> Option<Secrecy> {
    sources.iter().map(|it| it.secrecy).max()
}
