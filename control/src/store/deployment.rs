//! Deployments, work orders and their steps, and what is live because of them.

use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::column::Column;
use super::record::columns;
use super::{Document, Stateful, Store, StoreError, Stored, Tx, arguments, mapped, read};
use crate::domain::machine::Machine as _;
use crate::domain::record::{Deployment, ReleaseDecision, WorkOrder, WorkOrderStep};
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState, next_step};
use crate::id::{
    ArtifactId, DepartmentId, DeploymentId, ModelVersionId, PrincipalId, ReleaseDecisionId,
    WorkOrderId, WorkOrderStepId,
};
use crate::time::Timestamp;

mapped! {
    Deployment(DeploymentId) in "deployments":
    fixed [department, model],
    editable [
        owner, endpoint, clearance, cpu_millis, gpus, memory_bytes, zone, replicas, engine_options, strategy,
        gate_policy, open_to_all, adopted, live_version, live_digest, live_work_order,
    ]
}
mapped! {
    WorkOrder(WorkOrderId) in "work_orders":
    fixed [deployment, candidate, candidate_digest, previous, author, state, step, snapshot, reason, restores],
    editable [approver, evidence, override_reason, release_state, replaced, ended_because, finished_at]
}
mapped! {
    ReleaseDecision(ReleaseDecisionId) in "release_decisions":
    fixed [work_order, at, actor, kind, action, reason, state, evidence], editable []
}
mapped! {
    WorkOrderStep(WorkOrderStepId) in "work_order_steps":
    fixed [work_order, name, actor, started_at],
    editable [status, detail, finished_at]
}

impl Stateful for WorkOrder {
    type State = WorkOrderState;
    fn state(&self) -> WorkOrderState {
        self.state
    }
    fn set_state(&mut self, state: WorkOrderState) {
        self.state = state;
    }
    fn stepped(&mut self, event: WorkOrderEvent, now: Timestamp) {
        self.step = next_step(self.step, event);
        if self.state.is_final() {
            self.finished_at = Some(now);
        }
    }
}

/// What traffic of a deployment reaches: a version, by the settings of the work order that brought it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveRevision {
    pub deployment: DeploymentId,
    pub department: DepartmentId,
    pub owner: Option<PrincipalId>,
    pub work_order: WorkOrderId,
    /// The order that it was first brought by, where `work_order` brings it back.
    #[serde(default)]
    pub restores: Option<WorkOrderId>,
    pub version: ModelVersionId,
    /// The version's number within its model.
    pub number: i64,
    pub artifact: Option<ArtifactId>,
    pub digest: String,
    /// The deployment's settings as they were when the order was made.
    pub snapshot: Document,
}

impl LiveRevision {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            deployment: read(row, "deployment")?,
            department: read(row, "department")?,
            owner: read(row, "owner")?,
            work_order: read(row, "work_order")?,
            restores: read(row, "restores")?,
            version: read(row, "version")?,
            number: read(row, "number")?,
            artifact: read(row, "artifact")?,
            digest: read(row, "digest")?,
            snapshot: read(row, "snapshot")?,
        })
    }
}

/// A revision by its work order. `live_digest` is checked against the order's, so that a row that was
/// changed by hand serves nothing.
pub(super) const REVISION: &str = "SELECT d.id AS deployment, d.department AS department, d.owner AS owner, \
    w.id AS work_order, w.restores AS restores, w.candidate AS version, v.number AS number, v.artifact AS artifact, \
    w.candidate_digest AS digest, w.snapshot AS snapshot \
    FROM work_orders w JOIN deployments d ON d.id = w.deployment JOIN model_versions v ON v.id = w.candidate \
    WHERE d.deleted_at IS NULL AND v.deleted_at IS NULL";

impl LiveRevision {
    /// The order that the revision is known by, however often it was brought back since.
    pub fn origin(&self) -> WorkOrderId {
        self.restores.unwrap_or(self.work_order)
    }
}

/// Settings that take, or will take, resources: of what is live, and of what was approved.
#[derive(Debug, Clone, PartialEq)]
pub struct Commitment {
    pub deployment: DeploymentId,
    pub department: DepartmentId,
    pub owner: Option<PrincipalId>,
    pub snapshot: Document,
}

async fn active(
    connection: &mut AnyConnection,
    deployment: DeploymentId,
) -> Result<Option<Stored<WorkOrder>>, StoreError> {
    let sql = format!(
        "SELECT {} FROM work_orders WHERE deployment = $1 AND finished_at IS NULL AND deleted_at IS NULL",
        columns::<WorkOrder>()
    );
    // Safe: the columns are constants of the program.
    let row = sqlx::query_with(
        sqlx::AssertSqlSafe(sql),
        arguments([deployment.to_value()])?,
    )
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(Stored::from_row).transpose()
}

impl Tx {
    /// As [`Store::active_work_order`].
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn active_work_order(
        &mut self,
        deployment: DeploymentId,
    ) -> Result<Option<Stored<WorkOrder>>, StoreError> {
        active(self.connection(), deployment).await
    }
}

impl Tx {
    /// Every commitment but those of one deployment. The department's row is held until the transaction ends, so
    /// that two approvals in it do not both take the last of a quota.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn commitments(
        &mut self,
        department: DepartmentId,
        except: DeploymentId,
    ) -> Result<Vec<Commitment>, StoreError> {
        self.lock("departments", department.to_value()).await?;
        let rows = sqlx::query_with(
            "SELECT d.id AS deployment, d.department AS department, d.owner AS owner, w.snapshot AS snapshot \
             FROM deployments d JOIN work_orders w ON w.deployment = d.id \
             WHERE d.deleted_at IS NULL AND d.id <> $1 AND (w.id = d.live_work_order OR (w.finished_at IS NULL \
             AND w.state <> 'pending' AND w.deleted_at IS NULL))",
            arguments([except.to_value()])?,
        )
        .fetch_all(self.connection())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Commitment {
                    deployment: read(row, "deployment")?,
                    department: read(row, "department")?,
                    owner: read(row, "owner")?,
                    snapshot: read(row, "snapshot")?,
                })
            })
            .collect()
    }

    /// How many deployments other than `except` serve a version.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn serving(
        &mut self,
        version: ModelVersionId,
        except: DeploymentId,
    ) -> Result<i64, StoreError> {
        let row = sqlx::query_with(
            "SELECT COUNT(*) AS n FROM deployments WHERE live_version = $1 AND id <> $2 AND deleted_at IS NULL",
            arguments([version.to_value(), except.to_value()])?,
        )
        .fetch_one(self.connection())
        .await?;
        read(&row, "n")
    }

    /// Takes a deployment's row until the transaction ends, so that what it serves changes in one order.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn lock_deployment(&mut self, id: DeploymentId) -> Result<(), StoreError> {
        self.lock("deployments", id.to_value()).await
    }
}

impl Store {
    /// Everything that is live, for the route table.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn live_revisions(&self) -> Result<Vec<LiveRevision>, StoreError> {
        let sql = format!(
            "{REVISION} AND d.live_work_order = w.id AND d.live_digest = w.candidate_digest ORDER BY d.id"
        );
        // Safe: a constant of the program.
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(LiveRevision::from_row).collect()
    }

    /// The revision that a work order is about, live or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revision_of(&self, order: WorkOrderId) -> Result<LiveRevision, StoreError> {
        let sql = format!("{REVISION} AND w.id = $1");
        // Safe: a constant of the program.
        let row = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments([order.to_value()])?)
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        match row {
            Some(row) => LiveRevision::from_row(&row),
            None => Err(super::record::not_found::<WorkOrder>(order)),
        }
    }

    /// The work orders that something has to be done for, oldest first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn work_orders_under_way(&self) -> Result<Vec<Stored<WorkOrder>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM work_orders WHERE state IN ('approved', 'preparing', 'promoting', 'rolling_back') \
             AND release_state IS NULL AND finished_at IS NULL AND deleted_at IS NULL ORDER BY id",
            columns::<WorkOrder>()
        );
        // Safe: the columns are constants of the program.
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(Stored::from_row).collect()
    }

    /// A deployment's promoted work orders, newest first: what a roll-back chooses from.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn promoted_work_orders(
        &self,
        deployment: DeploymentId,
        limit: u32,
    ) -> Result<Vec<Stored<WorkOrder>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM work_orders WHERE deployment = $1 AND state = 'promoted' AND deleted_at IS NULL \
             ORDER BY finished_at DESC, id DESC LIMIT {limit}",
            columns::<WorkOrder>()
        );
        // Safe: constants of the program and a number.
        let rows = sqlx::query_with(
            sqlx::AssertSqlSafe(sql),
            arguments([deployment.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(Stored::from_row).collect()
    }

    /// What was done for a work order, in order.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn work_order_steps(
        &self,
        order: WorkOrderId,
    ) -> Result<Vec<Stored<WorkOrderStep>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM work_order_steps WHERE work_order = $1 AND deleted_at IS NULL ORDER BY id",
            columns::<WorkOrderStep>()
        );
        // Safe: the columns are constants of the program.
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments([order.to_value()])?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(Stored::from_row).collect()
    }

    /// The unfinished work order of a deployment; there is at most one.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn active_work_order(
        &self,
        deployment: DeploymentId,
    ) -> Result<Option<Stored<WorkOrder>>, StoreError> {
        active(&mut *self.reader().await?, deployment).await
    }

    /// A deployment's work order under way, or else the newest that was promoted.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn promoted_or_active(
        &self,
        deployment: DeploymentId,
    ) -> Result<Option<Stored<WorkOrder>>, StoreError> {
        if let Some(active) = self.active_work_order(deployment).await? {
            return Ok(Some(active));
        }
        Ok(self.promoted_work_orders(deployment, 1).await?.pop())
    }

    /// The deployment that answers to `endpoint`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn deployment_at(
        &self,
        endpoint: &str,
    ) -> Result<Option<Stored<Deployment>>, StoreError> {
        super::record::find(
            &mut *self.reader().await?,
            "endpoint",
            endpoint.to_owned().to_value(),
        )
        .await
    }
}

#[cfg(test)]
mod tests;
