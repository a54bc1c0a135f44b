//! Processes that make, judge, approve and carry out work orders, killed by `kill -9` at random moments: at no moment
//! is a version live without evidence for what it is, and every order ends, once. A hundred kills on each database,
//! or as many as `SLUICE_TEST_KILLS` says.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde_json::json;
use sluice_gateway::Gateway;
use sluice_gateway::config::Config;
use tokio::sync::Notify;

use super::super::*;
use super::rig::*;
use crate::domain::Verdict;
use crate::domain::record::{Department, Deployment, Evaluation, Principal, WorkOrder};
use crate::domain::work_order::WorkOrderState;
use crate::publish::{Publisher, SnapshotFile};
use crate::sandbox::in_process::InProcess;
use crate::store::rig::{
    Fresh, count, kills, on_both, process_is_ready, process_store, start_and_kill,
};
use crate::store::{Listing, Record, Store, Stored};

const DEPLOYMENTS: usize = 4;
const PROCESSES: u32 = 4;

/// What must be zero at any moment.
const NEVER: [(&str, &str); 4] = [
    (
        "versions are live without evidence for their digest",
        "SELECT COUNT(*) AS n FROM model_versions v WHERE v.state = 'live' AND NOT EXISTS ( \
         SELECT 1 FROM evaluation_runs r WHERE r.id = v.evidence AND r.model_version = v.id AND r.artifact_digest = v.digest \
         AND r.status = 'succeeded' AND r.verdict = 'passed' AND r.withdrawn_at IS NULL)",
    ),
    (
        "deployments serve what is not live, or not that digest",
        "SELECT COUNT(*) AS n FROM deployments d LEFT JOIN model_versions v ON v.id = d.live_version \
         WHERE d.live_version IS NOT NULL AND (v.state <> 'live' OR v.digest <> d.live_digest)",
    ),
    (
        "versions are live that no deployment serves",
        "SELECT COUNT(*) AS n FROM model_versions v WHERE v.state = 'live' AND NOT EXISTS ( \
         SELECT 1 FROM deployments d WHERE d.live_version = v.id)",
    ),
    (
        "deployments have two unfinished orders",
        "SELECT COUNT(*) AS n FROM (SELECT deployment FROM work_orders WHERE finished_at IS NULL \
         GROUP BY deployment HAVING COUNT(*) > 1) AS busy",
    ),
];

/// A serving process without its HTTP.
struct Process {
    store: Store,
    driver: Driver,
    deployments: Deployments,
    people: People,
    product: Product,
    at: Vec<Stored<Deployment>>,
    _data: tempfile::TempDir,
}

async fn all<R: Record>(store: &Store) -> Vec<Stored<R>> {
    let listing = Listing::<R>::new().oldest_first();
    store.list(&listing).await.unwrap().items
}

impl Process {
    async fn on(store: Store) -> Self {
        let mut config = Config::default();
        config.control.allow.upstreams = vec!["127.0.0.0/8".into()];
        let gateway = Gateway::new(config).unwrap();
        let replicas = Replicas::new(Arc::clone(&gateway), Arc::new(Folders::default()), u64::MAX);
        let data = tempfile::tempdir().unwrap();
        let file = SnapshotFile::in_folder(data.path().join("control"));
        let publisher = Publisher::new(
            Arc::clone(&gateway),
            Arc::clone(&replicas),
            Arc::new(InProcess(gateway)),
            file,
        );
        publisher.follow(store.clone());
        let settings = DriverSettings {
            // Soon free, since those who are killed do not come back.
            lease: Duration::from_millis(150),
            ..DriverSettings::default()
        };
        let evaluation = all::<Evaluation>(&store).await.remove(0);
        Self {
            driver: Driver::new(store.clone(), replicas, publisher, settings),
            deployments: Deployments::new(store.clone(), Arc::new(Notify::new())),
            people: recalled(&store).await,
            product: Product {
                model: evaluation.model,
                evaluation: evaluation.id,
                test_set: evaluation.test_set.unwrap(),
            },
            at: all(&store).await,
            store,
            _data: data,
        }
    }

    /// One more order, for a version that is good or is not.
    async fn order(&self) {
        let (verdict, at) = {
            let mut random = rand::rng();
            let verdict =
                [Verdict::Passed, Verdict::Failed][usize::from(random.random_ratio(1, 3))];
            (verdict, random.random_range(0..self.at.len()))
        };
        let digest = format!("sha256:{}", uuid::Uuid::now_v7().simple());
        let candidate = version(&self.store, &self.people, &self.product, &digest, verdict).await;
        let new = NewWorkOrder::new(self.at[at].id, candidate, "a test");
        // Refused while the deployment is busy.
        let _ = self.deployments.order(&self.people.developer, new).await;
    }

    /// Approves what the gate lets through and rejects the rest; what another process was quicker at is left.
    async fn decide(&self) {
        let pending = Listing::<WorkOrder>::new().is("state", &WorkOrderState::Pending);
        for order in self.store.list(&pending).await.unwrap().items {
            let (calls, approver) = (&self.deployments, &self.people.approver);
            let approved = calls.approve(approver, order.id, None, None).await;
            if matches!(approved, Err(DeployError::Gate(_))) {
                let _ = calls.reject(approver, order.id, None, "it failed").await;
            }
        }
    }
}

/// The people that another process made.
async fn recalled(store: &Store) -> People {
    let department = all::<Department>(store).await.remove(0).id;
    let principals = all::<Principal>(store).await;
    let caller = |role: Role| {
        let principal = principals.iter().find(|it| it.role == role).unwrap();
        Caller {
            actor: Actor::person(principal.id, principal.name.clone()),
            role,
            department: Some(department),
        }
    };
    People {
        department,
        developer: caller(Role::Developer),
        approver: caller(Role::Approver),
        operator: caller(Role::Operator),
    }
}

/// Not a test: what the processes do that the test below starts and kills.
#[tokio::test]
#[ignore = "the test of this file runs it as a process"]
async fn process() {
    let Some(store) = process_store().await else {
        return;
    };
    let process = Process::on(store).await;
    process_is_ready();
    loop {
        process.order().await;
        process.decide().await;
        // Two at once on the same order: one of them is told so.
        let _ = process.driver.round().await;
    }
}

async fn check(store: &Store) {
    for (what, sql) in NEVER {
        assert_eq!(count(store, sql).await, 0, "{what}");
    }
}

async fn ended(store: &Store, state: &str) -> i64 {
    let sql = match state {
        "promoted" => "SELECT COUNT(*) AS n FROM work_orders WHERE state = 'promoted'",
        "rejected" => "SELECT COUNT(*) AS n FROM work_orders WHERE state = 'rejected'",
        _ => "SELECT COUNT(*) AS n FROM work_orders",
    };
    count(store, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_live_without_evidence_however_often_its_process_is_killed() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let people = people(store).await;
        let product = product(store, &people).await;
        for n in 0..DEPLOYMENTS {
            let elsewhere = json!({ "upstream": "http://127.0.0.1:9/v1" });
            deployment(store, &people, &product, &format!("helpdesk-{n}"), elsewhere).await;
        }
        let each = kills().div_ceil(PROCESSES);
        let places: Vec<_> = (0..PROCESSES)
            .map(|_| {
                let url = fresh.url.clone();
                tokio::task::spawn_blocking(move || {
                    let life = Duration::from_millis(400);
                    start_and_kill("deploy::tests::crash::process", &url, each, life);
                })
            })
            .collect();
        while !places.iter().all(tokio::task::JoinHandle::is_finished) {
            check(store).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for place in places {
            place.await.unwrap();
        }
        // One that lives on ends what is left.
        let last = Process::on(store.clone()).await;
        let unfinished = "SELECT COUNT(*) AS n FROM work_orders WHERE finished_at IS NULL";
        let left = count(store, unfinished).await;
        while count(store, unfinished).await > 0 {
            last.decide().await;
            last.driver.round().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        check(store).await;
        let (orders, promoted, rejected) = (
            ended(store, "").await,
            ended(store, "promoted").await,
            ended(store, "rejected").await,
        );
        let told = format!(
            "{} kills: {orders} work orders, {promoted} promoted, {rejected} rejected, {left} were left in the middle\n",
            each * PROCESSES
        );
        std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
        assert_eq!(promoted + rejected, orders, "nothing else can become of them");
        assert!(promoted > 0 && rejected > 0, "the kills hit nothing");
        // Each has gone through its last step once.
        let steps = "SELECT COUNT(*) AS n FROM audit_events WHERE object_kind = 'work order' AND verb IN ('finish', 'reject')";
        assert_eq!(count(store, steps).await, orders);
        let live = "SELECT COUNT(*) AS n FROM audit_events WHERE object_kind = 'model version' AND verb = 'go_live'";
        assert_eq!(count(store, live).await, promoted);
    })
    .await;
}
