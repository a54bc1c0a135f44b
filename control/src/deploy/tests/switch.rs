//! Traffic: it moves at once, nobody sees an error, and memory comes back.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::rig::*;
use crate::domain::model_version::ModelVersionState::{Approved, Live};
use crate::domain::record::{Deployment, StepStatus};
use crate::domain::work_order::WorkOrderState;
use crate::store::rig::{Fresh, on_both};

use super::super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_switch_under_load_without_an_error() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let v1 = passed(store, &people, &product, "v1").await;
        let v2 = passed(store, &people, &product, "v2").await;
        let at = deployment(store, &people, &product, "helpdesk", small()).await;
        assert_eq!(rig.chat("helpdesk", None).await.0, 404);

        let first = rig.deploy(&people, &at, v1).await;
        assert_eq!(first.state, WorkOrderState::Promoted, "{first:?}");
        assert_eq!((rig.state(v1).await, rig.state(v2).await), (Live, Approved));

        let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let load = || load_of(&rig, &ended, &asked);
        let some_more = async || {
            let before = asked.load(SeqCst);
            while asked.load(SeqCst) < before + 8 {
                tokio::task::yield_now().await;
            }
        };
        let switches = async {
            for (version, label) in [(v2, "v2-"), (v1, "v1-"), (v2, "v2-")] {
                some_more().await;
                let order = rig.deploy(&people, &at, version).await;
                assert_eq!(order.state, WorkOrderState::Promoted, "{order:?}");
                // From here on no new request reaches the old one.
                let (status, revision) = rig.chat("helpdesk", None).await;
                assert!(status == 200 && revision.starts_with(label), "{revision}");
            }
            some_more().await;
            ended.store(true, SeqCst);
        };
        let (a, b, c, ()) = tokio::join!(load(), load(), load(), switches);
        let seen: HashSet<_> = a.into_iter().chain(b).chain(c).collect();
        assert_eq!(
            seen.len(),
            4,
            "each work order is a revision of its own: {seen:?}"
        );
        assert_eq!((rig.state(v1).await, rig.state(v2).await), (Approved, Live));
        let one = rig.replicas.get(&live(store, &at).await).unwrap();
        rig.until_held(1).await;
        assert!(rig.replicas.in_use() > 0);

        let steps = store.work_order_steps(first.id).await.unwrap();
        let steps: Vec<_> = steps
            .iter()
            .map(|it| (it.name.as_str(), it.status))
            .collect();
        let done = StepStatus::Succeeded;
        let expected = [
            ("fetch", done),
            ("verify", done),
            ("convert", StepStatus::Skipped),
            ("load", done),
            ("warm_up", done),
            ("probe", done),
            ("switch", done),
        ];
        assert_eq!(steps, expected);

        // Stopped: gone for new requests, and its memory with it.
        let why = "not needed any more";
        let stopped = rig.deployments.stop(&people.operator, at.id, None, why);
        assert_eq!(stopped.await.unwrap().live_version, None);
        rig.publisher.tick().await;
        assert_eq!(rig.chat("helpdesk", None).await.0, 404);
        assert_eq!(rig.state(v2).await, Approved);
        let weak = std::sync::Arc::downgrade(&one);
        drop(one);
        rig.until_held(0).await;
        assert!(weak.upgrade().is_none(), "somebody still holds the model");
        assert_eq!(rig.replicas.in_use(), 0);
    })
    .await;
}

async fn load_of(rig: &Rig, ended: &AtomicBool, asked: &AtomicUsize) -> HashSet<String> {
    let mut seen = HashSet::new();
    while !ended.load(SeqCst) {
        let (status, revision) = rig.chat("helpdesk", None).await;
        assert_eq!(status, 200, "{revision}");
        seen.insert(revision);
        asked.fetch_add(1, SeqCst);
    }
    seen
}

async fn live(store: &crate::store::Store, at: &crate::store::Stored<Deployment>) -> String {
    let at = store.get::<Deployment>(at.id).await.unwrap();
    at.live_work_order.unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_back_twice_is_rolling_back_once() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", small()).await;
        let back = async || {
            let reason = "tickets are misread";
            let hour = std::time::Duration::from_secs(3600);
            let back = rig
                .deployments
                .roll_back(&people.operator, at.id, reason, None, hour);
            back.await
        };
        let order = async || match back().await.unwrap() {
            Returned::Ordered(order) => order,
            Returned::Already(already) => unreachable!("{already:?}"),
        };
        assert!(matches!(back().await, Err(DeployError::NothingLive)));
        let v1 = passed(store, &people, &product, "v1").await;
        let v2 = passed(store, &people, &product, "v2").await;
        rig.deploy(&people, &at, v1).await;
        assert!(matches!(back().await, Err(DeployError::NothingEarlier)));
        let first = rig.chat("helpdesk", None).await.1;
        rig.deploy(&people, &at, v2).await;

        let made = order().await;
        assert_eq!((made.candidate, made.state), (v1, WorkOrderState::Approved));
        assert_eq!(order().await.id, made.id, "asked twice");
        rig.driver.round().await.unwrap();
        // The same version by the same settings is the same revision.
        assert_eq!(rig.chat("helpdesk", None).await.1, first);
        // Not back to what was taken back, and no further by itself.
        let Returned::Already(already) = back().await.unwrap() else {
            unreachable!("something moved");
        };
        assert_eq!((already.answers, already.further), (first, Vec::new()));
        assert_eq!((rig.state(v1).await, rig.state(v2).await), (Live, Approved));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_the_sum_and_the_old_one_stays() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    // Room for one of them with its K/V, not for two.
    let rig = Rig::with_budget(store, 20 << 20).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let v1 = passed(store, &people, &product, "v1").await;
    let v2 = passed(store, &people, &product, "v2").await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let first = rig.deploy(&people, &at, v1).await;
    assert_eq!(first.state, WorkOrderState::Promoted, "{first:?}");
    let order = rig.deploy(&people, &at, v2).await;
    assert_eq!(order.state, WorkOrderState::Aborted);
    let why = order.ended_because.clone().unwrap();
    assert!(why.contains("it does not fit: helpdesk v1-"), "{why}");
    assert!(why.contains("> budget 20.0 MiB"), "{why}");
    assert!(rig.chat("helpdesk", None).await.1.starts_with("v1-"));
    assert_eq!(rig.replicas.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_on_trial_is_for_operators_and_in_no_list() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let rig = Rig::new(store).await;
    let digest = replicas::content(&helpdesk("v3")).await.unwrap();
    let settings = Settings {
        endpoint: "helpdesk".into(),
        clearance: crate::domain::secrecy::Secrecy::Internal,
        cpu_millis: 0,
        gpus: 0,
        memory_bytes: 0,
        zone: None,
        replicas: 1,
        engine_options: small(),
        strategy: serde_json::json!({}),
        gate_policy: Vec::new(),
    };
    let blueprint = Blueprint {
        key: "".into(),
        name: "helpdesk@v3".into(),
        revision: "v3".into(),
        artifact: None,
        digest,
        settings,
        standing: sluice_gateway::router::Standing::default(),
    };
    let trial = rig.publisher.begin_trial(blueprint.clone()).await.unwrap();
    assert!(rig.publisher.begin_trial(blueprint).await.is_err());
    // Without authentication everyone is an operator.
    let (status, revision) = rig.chat("helpdesk@v3", None).await;
    assert_eq!((status.as_u16(), revision.as_str()), (200, "v3"));
    assert!(rig.gateway.routes().deployments().is_empty());
    rig.publisher.tick().await;
    assert_eq!(rig.chat("helpdesk@v3", None).await.0, 200);
    rig.publisher.end_trial(trial).await;
    assert_eq!(rig.chat("helpdesk@v3", None).await.0, 404);
    rig.until_held(0).await;
}
