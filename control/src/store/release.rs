//! Releases under way, and what is kept warm to be taken back to.

use super::deployment::{LiveRevision, REVISION};
use super::record::columns;
use super::{Column as _, Document, Store, StoreError, Stored, Tx, arguments, read};
use crate::deploy::Return;
use crate::domain::record::WorkOrder;
use crate::id::{DeploymentId, EvaluationRunId, ModelVersionId, WorkOrderId};
use crate::time::Timestamp;

/// The candidate of a release, and where the release stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleasedRevision {
    pub revision: LiveRevision,
    pub state: Document,
}

/// A revision that was live before the one that is, and when it ceased to be.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmRevision {
    pub revision: LiveRevision,
    pub since: Timestamp,
    /// The settings of the order that took its place.
    pub replaced_by: Document,
}

/// As `REVISION`, of what the live revision of a deployment took the place of.
const WARM: &str = "SELECT d.id AS deployment, d.department AS department, d.owner AS owner, \
    w.id AS work_order, w.restores AS restores, w.candidate AS version, v.number AS number, v.artifact AS artifact, \
    w.candidate_digest AS digest, w.snapshot AS snapshot, l.finished_at AS since, l.snapshot AS replaced_by \
    FROM deployments d JOIN work_orders l ON l.id = d.live_work_order JOIN work_orders w ON w.id = l.replaced \
    JOIN model_versions v ON v.id = w.candidate \
    WHERE l.release_state IS NOT NULL AND d.deleted_at IS NULL AND v.deleted_at IS NULL \
    ORDER BY d.id";

impl Store {
    /// Every release that is not over, with its candidate.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn releases_under_way(&self) -> Result<Vec<ReleasedRevision>, StoreError> {
        let sql = REVISION.replace("SELECT ", "SELECT w.release_state AS release_state, ")
            + " AND w.release_state IS NOT NULL AND w.finished_at IS NULL AND w.deleted_at IS NULL ORDER BY d.id";
        // Safe: constants of the program.
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ReleasedRevision {
                    revision: LiveRevision::from_row(row)?,
                    state: read(row, "release_state")?,
                })
            })
            .collect()
    }

    /// What promoted releases took the place of, where they are still live.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn warm_revisions(&self) -> Result<Vec<WarmRevision>, StoreError> {
        let rows = sqlx::query(WARM)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(WarmRevision {
                    revision: LiveRevision::from_row(row)?,
                    since: read(row, "since")?,
                    replaced_by: read(row, "replaced_by")?,
                })
            })
            .collect()
    }

    /// The orders of releases that are not over, oldest first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn release_orders(&self) -> Result<Vec<Stored<WorkOrder>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM work_orders WHERE release_state IS NOT NULL AND finished_at IS NULL \
             AND deleted_at IS NULL ORDER BY id",
            columns::<WorkOrder>()
        );
        // Safe: the columns are constants of the program.
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(Stored::from_row).collect()
    }
}

/// As `REVISION`, of orders that made a revision which was live: not of those that brought one back.
fn was_live() -> String {
    REVISION.replace("SELECT ", "SELECT w.finished_at AS since, ")
        + " AND w.state = 'promoted' AND w.restores IS NULL AND w.finished_at IS NOT NULL AND w.deleted_at IS NULL"
}

impl Store {
    /// What was live at a deployment, the latest first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn returns(
        &self,
        deployment: DeploymentId,
        limit: u32,
    ) -> Result<Vec<Return>, StoreError> {
        let sql = was_live()
            + &format!(
                " AND w.deployment = $1 ORDER BY w.finished_at DESC, w.id DESC LIMIT {limit}"
            );
        // Safe: constants of the program and a number.
        let rows = sqlx::query_with(
            sqlx::AssertSqlSafe(sql),
            arguments([deployment.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(returned).collect()
    }

    /// The latest of what was live, `limit` of each deployment that serves something.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn latest_returns(&self, limit: u32) -> Result<Vec<Return>, StoreError> {
        let ranked = was_live().replace(
            "SELECT ",
            "SELECT ROW_NUMBER() OVER (PARTITION BY w.deployment ORDER BY w.finished_at DESC, w.id DESC) AS place, ",
        );
        let sql = format!(
            "SELECT * FROM ({ranked} AND d.live_work_order IS NOT NULL) ranked WHERE place <= {limit} \
             ORDER BY deployment, place"
        );
        // Safe: constants of the program and a number.
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(returned).collect()
    }

    /// When a release was last taken back, or given up, that was made after what is live; of deployments that had one.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn taken_back_beside_live(
        &self,
    ) -> Result<Vec<(DeploymentId, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id AS deployment, MAX(w.finished_at) AS at FROM work_orders w \
             JOIN deployments d ON d.id = w.deployment WHERE w.release_state IS NOT NULL \
             AND w.state IN ('rolled_back', 'aborted') AND w.id > d.live_work_order \
             AND w.deleted_at IS NULL AND d.deleted_at IS NULL GROUP BY d.id ORDER BY d.id",
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| Ok((read(row, "deployment")?, read(row, "at")?)))
            .collect()
    }

    /// The newest run of an evaluation, by its name, that has scored a version.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn newest_scored_run(
        &self,
        evaluation: &str,
        version: ModelVersionId,
    ) -> Result<Option<EvaluationRunId>, StoreError> {
        let row = sqlx::query_with(
            "SELECT r.id AS id FROM evaluation_runs r JOIN evaluations e ON e.id = r.evaluation \
             JOIN model_versions v ON v.id = r.model_version \
             WHERE e.name = $1 AND e.model = v.model AND r.model_version = $2 AND r.status = 'succeeded' \
             AND r.artifact_digest = v.digest AND r.withdrawn_at IS NULL AND r.deleted_at IS NULL \
             ORDER BY r.id DESC LIMIT 1",
            arguments([evaluation.to_owned().to_value(), version.to_value()])?,
        )
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(|row| read(&row, "id")).transpose()
    }

    /// How much better a run's leading metric is than another's, on average over the items that both have. `None` if
    /// there are none.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn mean_difference(
        &self,
        run: EvaluationRunId,
        other: EvaluationRunId,
    ) -> Result<Option<f64>, StoreError> {
        let row = sqlx::query_with(
            "SELECT AVG(a.score - b.score) AS delta FROM evaluation_samples a JOIN evaluation_samples b \
             ON b.item = a.item AND b.prompt_version = a.prompt_version \
             WHERE a.run = $1 AND b.run = $2 AND a.score IS NOT NULL AND b.score IS NOT NULL",
            arguments([run.to_value(), other.to_value()])?,
        )
        .fetch_one(&mut *self.reader().await?)
        .await?;
        read(&row, "delta")
    }
}

fn returned(row: &sqlx::any::AnyRow) -> Result<Return, StoreError> {
    Ok(Return {
        revision: LiveRevision::from_row(row)?,
        since: read(row, "since")?,
    })
}

impl Tx {
    /// Takes a work order's row until the transaction ends: what is decided about a release is decided in one order.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn lock_work_order(&mut self, id: WorkOrderId) -> Result<(), StoreError> {
        self.lock("work_orders", id.to_value()).await
    }
}
