//! The steps of a work order, each recorded when it begins, how far it is, and when it ends.

use std::time::Instant;

use serde_json::{Value, json};
use sluice_engine::backend::builds::{Build, builds};

use super::driver::{Driver, StopReason};
use crate::domain::record::{StepStatus, WorkOrder, WorkOrderStep};
use crate::id::WorkOrderId;
use crate::store::{Json, Lease, Stored};

/// What a step came to, and what is worth writing down about it.
pub(super) struct Done<T>(pub(super) T, pub(super) Value);

/// The steps of one order, each recorded when it begins and when it ends.
pub(super) struct Steps<'a> {
    pub(super) driver: &'a Driver,
    pub(super) order: WorkOrderId,
    pub(super) lease: &'a Lease,
}

impl Steps<'_> {
    /// Runs a step, and keeps the lease meanwhile. Given up when the order was ended or changed hands.
    pub(super) async fn run<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<Done<T>, String>> + Send,
    ) -> Result<T, StopReason> {
        let began = Instant::now();
        let row = self.open(name).await?;
        let result = {
            tokio::pin!(work);
            let mut beat = tokio::time::interval(self.driver.settings.lease / 3);
            beat.tick().await;
            loop {
                tokio::select! {
                    result = &mut work => break result,
                    _ = beat.tick() => if let Err(gone) = self.still_ours(&row).await {
                        // Refused where another process has it, whose row it is by now.
                        _ = self.close(&row, StepStatus::Failed, json!({"error": "given up"})).await;
                        return Err(gone);
                    },
                }
            }
        };
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (status, mut detail, result) = match result {
            Ok(Done(value, detail)) => (StepStatus::Succeeded, detail, Ok(value)),
            Err(why) => {
                let detail = json!({"error": why});
                (StepStatus::Failed, detail, Err(format!("{name}: {why}")))
            }
        };
        detail["ms"] = ms.into();
        self.close(&row, status, detail).await?;
        result.map_err(StopReason::Failed)
    }

    /// Records that a step was not needed.
    pub(super) async fn skip(&self, name: &str, why: &str) -> Result<(), StopReason> {
        let row = self.open(name).await?;
        self.close(&row, StepStatus::Skipped, json!({"because": why}))
            .await
    }

    async fn open(&self, name: &str) -> Result<Stored<WorkOrderStep>, StopReason> {
        let mut tx = self.driver.begin(self.lease).await?;
        if tx.get::<WorkOrder>(self.order).await?.finished_at.is_some() {
            return Err(StopReason::Gone);
        }
        let step = WorkOrderStep {
            work_order: self.order,
            name: name.to_owned(),
            status: StepStatus::Running,
            actor: self.lease.holder.clone(),
            detail: Json(json!({})),
            started_at: tx.now(),
            finished_at: None,
        };
        let row = tx.create(&self.driver.actor(), step).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn close(
        &self,
        row: &Stored<WorkOrderStep>,
        status: StepStatus,
        detail: Value,
    ) -> Result<(), StopReason> {
        let mut tx = self.driver.begin(self.lease).await?;
        let now = tx.now();
        tx.update::<WorkOrderStep>(&self.driver.actor(), row.id, None, |it| {
            it.status = status;
            it.detail = Json(detail);
            it.finished_at = Some(now);
        })
        .await?;
        Ok(tx.commit().await?)
    }

    /// Keeps the lease, and writes down how far engines are that are built meanwhile. A database that does not answer is
    /// no reason to give a step up: the work is done here.
    async fn still_ours(&self, row: &Stored<WorkOrderStep>) -> Result<(), StopReason> {
        let look = async {
            let mut tx = self.driver.begin(self.lease).await?;
            let order = tx.get::<WorkOrder>(self.order).await?;
            if let Some(progress) = progress(&builds()) {
                let detail = json!({"progress": progress});
                tx.update::<WorkOrderStep>(&self.driver.actor(), row.id, None, |it| {
                    it.detail = Json(detail);
                })
                .await?;
            }
            tx.commit().await?;
            match order.finished_at {
                Some(_) => Err(StopReason::Gone),
                None => Ok(()),
            }
        };
        match look.await {
            Err(StopReason::Store(error)) => {
                tracing::warn!(work_order = %self.order, %error, "the lease could not be prolonged");
                Ok(())
            }
            other => other,
        }
    }

    /// Steps of a process that ended in the middle of them.
    pub(super) async fn close_interrupted(&self) -> Result<(), StopReason> {
        let store = &self.driver.store;
        for row in store.work_order_steps(self.order).await? {
            if row.status == StepStatus::Running {
                let detail = json!({"error": "the process that ran it ended", "holder": row.actor});
                self.close(&row, StepStatus::Failed, detail).await?;
            }
        }
        Ok(())
    }
}

/// Which engines are built now, and how far they are.
fn progress(builds: &[Build]) -> Option<String> {
    let each = builds
        .iter()
        .map(|build| format!("{}: {build}", build.model));
    let all = each.collect::<Vec<_>>().join("; ");
    (!all.is_empty()).then_some(all)
}
