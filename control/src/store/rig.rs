//! Fresh databases for tests: a new SQLite file each time, and a new PostgreSQL database on the server
//! that `SLUICE_TEST_POSTGRES` names. `scripts/test.sh` starts one; without it only SQLite is tested, and
//! `SLUICE_TEST_REQUIRE_POSTGRES` (set by that script) makes its absence a failure.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use uuid::Uuid;

use super::{Actor, DatabaseUrl, Dialect, Store, StoreSettings};
use crate::domain::record::{Department, Principal};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, PrincipalId};

/// A database that a test has for itself, and that is gone after it.
pub(crate) struct Fresh {
    pub store: Store,
    pub url: DatabaseUrl,
    // Deleted when dropped.
    _folder: Option<tempfile::TempDir>,
}

impl Fresh {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(folder.path().join("a database?#%41.db"));
        Self {
            store: Store::open(&url, &StoreSettings::default()).await.unwrap(),
            url,
            _folder: Some(folder),
        }
    }

    pub(crate) async fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("SLUICE_TEST_POSTGRES") else {
            assert!(
                std::env::var_os("SLUICE_TEST_REQUIRE_POSTGRES").is_none(),
                "SLUICE_TEST_POSTGRES names no server"
            );
            return None;
        };
        sqlx::any::install_default_drivers();
        let name = format!("sluice_{}", Uuid::now_v7().simple());
        let mut admin = AnyConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        let url: DatabaseUrl = format!("{base}/{name}").parse().unwrap();
        let settings = StoreSettings {
            connections: 4,
            ..StoreSettings::default()
        };
        Some(Self {
            store: Store::open(&url, &settings).await.unwrap(),
            url,
            _folder: None,
        })
    }

    /// Another connection to the same database, as a second process would have.
    pub(crate) async fn again(&self) -> Store {
        Store::open(
            &self.url,
            &StoreSettings {
                connections: 4,
                ..StoreSettings::default()
            },
        )
        .await
        .unwrap()
    }

    /// Drops a PostgreSQL database; SQLite's folder goes by itself.
    pub(crate) async fn discard(self) {
        self.store.close().await;
        if self.store.dialect() == Dialect::Postgres {
            let (Ok(server), DatabaseUrl::Postgres(url)) =
                (std::env::var("SLUICE_TEST_POSTGRES"), &self.url)
            else {
                return;
            };
            let (_, name) = url.rsplit_once('/').unwrap();
            let mut admin = AnyConnection::connect(&server).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .execute(&mut admin)
                .await
                .unwrap();
        }
    }
}

/// Runs a test on SQLite, then on PostgreSQL.
pub(crate) async fn on_both<F: Future<Output = ()>>(test: impl Fn(std::sync::Arc<Fresh>) -> F) {
    on_one(Fresh::sqlite().await, &test).await;
    if let Some(fresh) = Fresh::postgres().await {
        on_one(fresh, &test).await;
    }
}

async fn on_one<F: Future<Output = ()>>(fresh: Fresh, test: &impl Fn(std::sync::Arc<Fresh>) -> F) {
    let shared = std::sync::Arc::new(fresh);
    // Boxed: a test that holds a server and models is large.
    Box::pin(test(shared.clone())).await;
    if let Some(fresh) = std::sync::Arc::into_inner(shared) {
        fresh.discard().await;
    }
}

/// Somebody to act as.
pub(crate) struct Somebody {
    pub department: DepartmentId,
    pub principal: PrincipalId,
    pub actor: Actor,
}

pub(crate) fn system() -> Actor {
    Actor::system("test")
}

/// A new department with one person in it.
pub(crate) async fn somebody(store: &Store, role: Role) -> Somebody {
    let mark = Uuid::now_v7().simple();
    let department = store
        .create(
            &system(),
            Department {
                name: format!("department {mark}"),
                description: String::new(),
            },
        )
        .await
        .unwrap();
    let principal = store
        .create(
            &system(),
            Principal {
                department: department.id,
                name: format!("person {mark}"),
                email: None,
                role,
                clearance: Secrecy::Internal,
                disabled: false,
            },
        )
        .await
        .unwrap();
    let actor = Actor::person(principal.id, principal.name.clone());
    Somebody {
        department: department.id,
        principal: principal.id,
        actor,
    }
}
