//! Deployments, work orders and their steps.

use super::column::Column;
use super::record::columns;
use super::{Stateful, Store, StoreError, Stored, arguments, mapped};
use crate::domain::machine::Machine as _;
use crate::domain::record::{Deployment, WorkOrder, WorkOrderStep};
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState, next_step};
use crate::id::{DeploymentId, WorkOrderId, WorkOrderStepId};
use crate::time::Timestamp;

mapped! {
    Deployment(DeploymentId) in "deployments":
    fixed [department, model],
    editable [
        owner, endpoint, clearance, cpu_millis, gpus, memory_bytes, zone, replicas, engine_options, strategy,
        gate_policy, live_version, live_digest, live_work_order,
    ]
}
mapped! {
    WorkOrder(WorkOrderId) in "work_orders":
    fixed [deployment, candidate, candidate_digest, previous, author, state, step, snapshot, reason],
    editable [approver, evidence, override_reason, ended_because, finished_at]
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

impl Store {
    /// The unfinished work order of a deployment; there is at most one.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn active_work_order(
        &self,
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
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.as_ref().map(Stored::from_row).transpose()
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
