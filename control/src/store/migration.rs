//! The steps of the schema, built into the binary. Their rules are in `migrations/README.md`.

use std::time::Duration;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::{Dialect, Store, StoreError, read};

macro_rules! steps {
    ($($version:literal $file:literal $what:literal,)*) => {
        /// Version, what it is about, SQL.
        pub(super) const STEPS: &[(i64, &str, &str)] =
            &[$(($version, $what, include_str!(concat!("../../../migrations/", $file)))),*];
    };
}

steps! {
    1 "0001_access.sql" "access",
    2 "0002_artifacts.sql" "artifacts",
    3 "0003_tasks.sql" "tasks",
    4 "0004_catalogue.sql" "catalogue",
    5 "0005_evaluations.sql" "evaluations",
    6 "0006_deployments.sql" "deployments",
    7 "0007_accounting.sql" "accounting",
    10 "0010_leases.sql" "leases",
    12 "0012_plans.sql" "plans",
    20 "0020_large_lists.sql" "large_lists",
    21 "0021_releases.sql" "releases",
    22 "0022_release_pairs.sql" "release_pairs",
    23 "0023_webhooks.sql" "webhooks",
    30 "0030_access.sql" "access",
    32 "0032_required_evaluations.sql" "required_evaluations",
    38 "0038_idempotency_leases.sql" "idempotency_leases",
    39 "0039_artifact_owners.sql" "artifact_owners",
}

fn migrator() -> Migrator {
    migrator_to(i64::MAX)
}

/// The steps up to a version: for a backup that was made then.
pub(super) fn migrator_to(newest: i64) -> Migrator {
    let steps = STEPS
        .iter()
        .filter(|step| step.0 <= newest)
        .map(|&(version, what, sql)| {
            Migration::new(
                version,
                what.into(),
                MigrationType::Simple,
                sql.into_sql_str(),
                false,
            )
        });
    Migrator::with_migrations(steps.collect())
}

/// Processes that open the same new SQLite file at once may meet in the middle of a step; the step of
/// one of them is undone, and finds itself applied the next time.
const SQLITE_TRIES: u32 = 10;

impl Store {
    /// Applies the steps that this database has not seen yet; none on most starts.
    ///
    /// # Errors
    /// [`StoreError::Migration`] if a step was changed after it was applied, [`StoreError::NewerSchema`] if the database
    /// has steps that this binary does not know.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.check_schema().await?;
        let mut tries = if self.dialect == Dialect::Sqlite {
            SQLITE_TRIES
        } else {
            1
        };
        loop {
            tries -= 1;
            match migrator().run(&self.writers).await {
                Ok(()) => return Ok(()),
                Err(
                    sqlx::migrate::MigrateError::Execute(_)
                    | sqlx::migrate::MigrateError::ExecuteMigration(..),
                ) if tries > 0 => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(StoreError::Migration(error)),
            }
        }
    }

    /// The newest step that this binary knows.
    pub const fn latest_schema() -> i64 {
        STEPS[STEPS.len() - 1].0
    }

    /// Refuses a database with steps that this binary does not know: what they hold would be left out of a backup, or
    /// broken by a write.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`]
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let applied = sqlx::query("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(&mut *self.reader().await?)
            .await;
        let applied = match applied {
            Ok(rows) => rows,
            // There is no such table before the first step.
            Err(sqlx::Error::Database(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut newest_unknown = None;
        for row in applied {
            let version = read::<i64>(&row, "version")?;
            if STEPS.iter().all(|step| step.0 != version) {
                newest_unknown = newest_unknown.max(Some(version));
            }
        }
        match newest_unknown {
            Some(found) => Err(StoreError::NewerSchema {
                found,
                known: Self::latest_schema(),
            }),
            None => Ok(()),
        }
    }

    /// The newest step that was applied; 0 for a new database.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn schema(&self) -> Result<i64, StoreError> {
        let applied = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(&mut *self.reader().await?)
            .await;
        match applied {
            Ok(version) => Ok(version),
            // There is no such table before the first step.
            Err(sqlx::Error::Database(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
