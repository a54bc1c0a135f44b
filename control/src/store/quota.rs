//! Limits. They are published to the gateway as a snapshot; nothing asks for them by request.

use sqlx::AnyConnection;

use super::{Actor, Store, StoreError, Stored, Tx, mapped};
use crate::domain::record::Quota;
use crate::id::{DepartmentId, PrincipalId, QuotaId};

mapped! {
    Quota(QuotaId) in "quotas":
    fixed [department, principal],
    editable [
        requests_per_minute, tokens_per_minute, requests_per_month, tokens_per_month, cpu_millis, gpus,
        memory_bytes, storage_bytes, cost_micros_per_month,
    ]
}

impl Store {
    /// Limits a department or a person, one of the two.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if both or neither are named or a limit is negative,
    /// [`StoreError::Conflict`] if there is a quota for it.
    pub async fn create_quota(
        &self,
        actor: &Actor,
        quota: Quota,
    ) -> Result<Stored<Quota>, StoreError> {
        if quota.principal.is_some() == quota.department.is_some() {
            return Err(StoreError::invalid(
                "principal",
                "name either a principal or a department",
            ));
        }
        quota.check()?;
        self.create(actor, quota).await
    }

    /// The quota of a department or a person.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn quota_of(
        &self,
        department: Option<DepartmentId>,
        principal: Option<PrincipalId>,
    ) -> Result<Option<Stored<Quota>>, StoreError> {
        let quotas = self.all_quotas().await?;
        Ok(quotas
            .into_iter()
            .find(|quota| quota.department == department && quota.principal == principal))
    }

    /// Every quota, for the snapshot that the gateway enforces.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn all_quotas(&self) -> Result<Vec<Stored<Quota>>, StoreError> {
        all(&mut *self.reader().await?).await
    }
}

impl Tx {
    /// Every quota, as this transaction sees them.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn quotas(&mut self) -> Result<Vec<Stored<Quota>>, StoreError> {
        all(self.connection()).await
    }
}

async fn all(connection: &mut AnyConnection) -> Result<Vec<Stored<Quota>>, StoreError> {
    let sql = format!(
        "SELECT {} FROM quotas WHERE deleted_at IS NULL ORDER BY id",
        super::columns::<Quota>()
    );
    // Safe: the columns are constants of the program.
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(connection)
        .await?;
    rows.iter().map(Stored::from_row).collect()
}

impl Quota {
    /// Its limits by their names.
    fn limits(&self) -> [(&'static str, Option<i64>); 9] {
        [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("requests_per_month", self.requests_per_month),
            ("tokens_per_month", self.tokens_per_month),
            ("cpu_millis", self.cpu_millis),
            ("gpus", self.gpus),
            ("memory_bytes", self.memory_bytes),
            ("storage_bytes", self.storage_bytes),
            ("cost_micros_per_month", self.cost_micros_per_month),
        ]
    }

    /// Whether it is as good as none.
    pub fn limits_nothing(&self) -> bool {
        self.limits().iter().all(|(_, limit)| limit.is_none())
    }

    /// # Errors
    /// [`StoreError::Invalid`], naming the first limit that is negative.
    pub fn check(&self) -> Result<(), StoreError> {
        match self
            .limits()
            .into_iter()
            .find(|(_, limit)| limit.is_some_and(|limit| limit < 0))
        {
            Some((field, limit)) => Err(StoreError::invalid(
                field,
                format!(
                    "is {}, should be 0 or more, or absent for no limit",
                    limit.unwrap_or_default()
                ),
            )),
            None => Ok(()),
        }
    }
}
