//! Fresh databases for tests: a new SQLite file each time, and a new PostgreSQL database on the server
//! that `SLUICE_TEST_POSTGRES` names. `scripts/test.sh` starts one; without it only SQLite is tested, and
//! `SLUICE_TEST_REQUIRE_POSTGRES` (set by that script) makes its absence a failure.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::Rng as _;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use uuid::Uuid;

use super::model::tests::{deployment, work_order};
use super::{Actor, DatabaseUrl, Dialect, Store, StoreSettings, tests};
use crate::domain::gate::RequiredEvaluation;
use crate::domain::record::{Department, Evaluation, Principal};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, EvaluationId, PrincipalId, WorkOrderId};

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
                file_key: None,
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

/// Requires an evaluation of its model, as it stands.
pub(crate) async fn require(store: &Store, evaluation: EvaluationId) {
    let mut tx = store.begin().await.unwrap();
    let evaluation = tx.get::<Evaluation>(evaluation).await.unwrap();
    let terms = tx.terms_of(&evaluation).await.unwrap();
    let row = RequiredEvaluation {
        evaluation: evaluation.id,
        name: evaluation.name.clone(),
        deployment: None,
        number: 0,
        required: true,
        relaxes: false,
        author: None,
        author_name: None,
        at: tx.now(),
        terms,
    };
    tx.require(&system(), None, row).await.unwrap();
    tx.commit().await.unwrap();
}

/// A work order of a deployment that nothing was done for.
pub(crate) async fn order(store: &Store, endpoint: &str) -> WorkOrderId {
    let who = somebody(store, Role::Operator).await;
    let model = tests::model(who.department, endpoint);
    let model = store.create(&who.actor, model).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let version = tests::version(model.id, None);
    let version = tx.add_model_version(&who.actor, version).await.unwrap();
    let at = tx
        .create(&who.actor, deployment(&who, model.id, endpoint))
        .await
        .unwrap();
    let order = tx
        .create(&who.actor, work_order(at.id, version.id))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    order.id
}

/// Names the database to a test that is run as a process of its own, see [`start_process`].
const PROCESS_DATABASE: &str = "SLUICE_TEST_PROCESS_DATABASE";

/// How often the crash tests kill a process, on each database: `SLUICE_TEST_KILLS`, or few.
pub(crate) fn kills() -> u32 {
    match std::env::var("SLUICE_TEST_KILLS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => 96,
    }
}

/// Runs an ignored test as a process on this database, and returns when it calls [`process_is_ready`].
pub(crate) fn start_process(test: &str, url: &DatabaseUrl) -> Child {
    start_process_with(test, url, &[])
}

/// The same with variables in its environment.
pub(crate) fn start_process_with(
    test: &str,
    url: &DatabaseUrl,
    variables: &[(&str, &str)],
) -> Child {
    let url = match url {
        DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        DatabaseUrl::Postgres(url) => url.clone(),
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(PROCESS_DATABASE, url)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    let ready = child.stderr.as_mut().unwrap().read_exact(&mut byte);
    ready.expect("the process ended before it was ready");
    child
}

/// The database of such a process; none if the ignored test was run by hand.
pub(crate) async fn process_store() -> Option<Store> {
    let url: DatabaseUrl = std::env::var(PROCESS_DATABASE).ok()?.parse().unwrap();
    let settings = StoreSettings {
        connections: 4,
        patience: Duration::from_secs(60),
        ..StoreSettings::default()
    };
    Some(Store::connect(&url, &settings).await.unwrap())
}

pub(crate) fn process_is_ready() {
    std::io::Write::write_all(&mut std::io::stderr(), b"!").unwrap();
}

/// Starts a process and kills it (SIGKILL) within `at_most` of its being ready, `times` times.
pub(crate) fn start_and_kill(test: &str, url: &DatabaseUrl, times: u32, at_most: Duration) {
    for _ in 0..times {
        let mut child = start_process(test, url);
        std::thread::sleep(rand::rng().random_range(Duration::ZERO..at_most));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The one number that a statement gives as `n`.
pub(crate) async fn count(store: &Store, sql: &'static str) -> i64 {
    let row = sqlx::query(sql)
        .fetch_one(&mut *store.reader().await.unwrap())
        .await
        .unwrap();
    super::read(&row, "n").unwrap()
}
