//! What was sent to whom of the decisions about releases.

use sqlx::AssertSqlSafe;

use super::record::columns;
use super::{Column as _, LiveRevision, Store, StoreError, Stored, Tx, arguments, read};
use crate::domain::record::{Deployment, ReleaseDecision, WorkOrder};
use crate::id::{ReleaseDecisionId, WorkOrderId};
use crate::time::Timestamp;

/// How a webhook stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When it was first seen: what was decided before is not sent.
    pub since: Timestamp,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// When the next attempt may be made.
    pub next_at: Timestamp,
    /// The receiver said that it is gone.
    pub disabled_at: Option<Timestamp>,
}

/// The revisions of a release, and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseRevisions {
    pub endpoint: String,
    pub candidate: LiveRevision,
    /// `None` where nothing was served before.
    pub stable: Option<LiveRevision>,
}

impl Store {
    /// # Errors
    /// Only the database's own.
    pub async fn webhook(&self, id: &str) -> Result<Option<Hook>, StoreError> {
        let row = sqlx::query_with(
            "SELECT since, failures, next_at, disabled_at FROM webhooks WHERE id = $1",
            arguments([id.to_owned().to_value()])?,
        )
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(|row| {
            Ok(Hook {
                since: read(&row, "since")?,
                failures: read(&row, "failures")?,
                next_at: read(&row, "next_at")?,
                disabled_at: read(&row, "disabled_at")?,
            })
        })
        .transpose()
    }

    /// The oldest decisions written since `floor` that are not done with for a webhook.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn decisions_to_send(
        &self,
        hook: &str,
        floor: Timestamp,
        limit: u32,
    ) -> Result<Vec<Stored<ReleaseDecision>>, StoreError> {
        let sql = format!(
            "SELECT {} FROM release_decisions r WHERE created_at >= $1 AND deleted_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM webhook_deliveries w WHERE w.hook = $2 AND w.decision = r.id) ORDER BY id LIMIT {limit}",
            columns::<ReleaseDecision>()
        );
        // Safe: constants of the program and a number.
        let values = arguments([floor.to_value(), hook.to_owned().to_value()])?;
        let rows = sqlx::query_with(AssertSqlSafe(sql), values)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(Stored::from_row).collect()
    }

    /// The revisions that a release is between.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where one of them, or the deployment, was put away.
    pub async fn release_revisions(
        &self,
        release: WorkOrderId,
    ) -> Result<ReleaseRevisions, StoreError> {
        let order = self.get::<WorkOrder>(release).await?;
        let deployment = self.get::<Deployment>(order.deployment).await?;
        // What it took the place of, or, before that, would.
        let stable = order.replaced.or(deployment.live_work_order);
        let stable = match stable.filter(|stable| *stable != release) {
            Some(stable) => Some(self.revision_of(stable).await?),
            None => None,
        };
        Ok(ReleaseRevisions {
            endpoint: deployment.endpoint.clone(),
            candidate: self.revision_of(release).await?,
            stable,
        })
    }
}

impl Tx {
    /// Begins to know a webhook, from now on; one that said that it is gone gets another chance.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn know_webhook(&mut self, id: &str) -> Result<(), StoreError> {
        let values = arguments([id.to_owned().to_value(), self.now().to_value()])?;
        sqlx::query_with(
            "INSERT INTO webhooks (id, since, failures, next_at) VALUES ($1, $2, 0, 0) \
             ON CONFLICT (id) DO UPDATE SET disabled_at = NULL",
            values,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// A webhook is done with a decision: it was taken, is of no interest, or is given up.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn decision_sent(
        &mut self,
        hook: &str,
        decision: ReleaseDecisionId,
    ) -> Result<(), StoreError> {
        let values = [
            hook.to_owned().to_value(),
            decision.to_value(),
            self.now().to_value(),
        ];
        sqlx::query_with(
            "INSERT INTO webhook_deliveries (hook, decision, at) VALUES ($1, $2, $3) \
             ON CONFLICT (hook, decision) DO NOTHING",
            arguments(values)?,
        )
        .execute(self.connection())
        .await?;
        self.set_webhook(hook, 0, Timestamp::from_micros(0)).await
    }

    /// So many attempts in a row have failed; the next is made at `next_at` or later.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn set_webhook(
        &mut self,
        hook: &str,
        failures: u32,
        next_at: Timestamp,
    ) -> Result<(), StoreError> {
        let values = [
            hook.to_owned().to_value(),
            failures.to_value(),
            next_at.to_value(),
        ];
        sqlx::query_with(
            "UPDATE webhooks SET failures = $2, next_at = $3 WHERE id = $1",
            arguments(values)?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The receiver wants no more.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn disable_webhook(&mut self, hook: &str) -> Result<(), StoreError> {
        let values = [hook.to_owned().to_value(), self.now().to_value()];
        sqlx::query_with(
            "UPDATE webhooks SET disabled_at = $2 WHERE id = $1",
            arguments(values)?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Forgets what was sent before `at`, of decisions that are no longer looked at.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn forget_deliveries(&mut self, at: Timestamp) -> Result<(), StoreError> {
        sqlx::query_with(
            "DELETE FROM webhook_deliveries WHERE at < $1",
            arguments([at.to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
