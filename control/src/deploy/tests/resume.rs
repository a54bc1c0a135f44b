//! A process that ends in the middle of a work order, anywhere, leaves it to the next one.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::domain::Verdict;
use crate::domain::model_version::ModelVersionState::{Approved, Live};
use crate::domain::record::{StepStatus, WorkOrder};
use crate::domain::work_order::WorkOrderState;
use crate::store::rig::{Fresh, on_both};
use crate::store::{Store, Stored};

/// Gives up its work order quickly, since it will not come back.
fn mortal() -> DriverSettings {
    DriverSettings {
        lease: Duration::from_millis(50),
        ..DriverSettings::default()
    }
}

/// Another process on the same database, whose memory is its own.
async fn next_process(rig: &Rig, store: &Store) -> Rig {
    let mut next = Rig::new(store).await;
    next.driver = Driver::new(
        store.clone(),
        Arc::clone(&next.replicas),
        Arc::clone(&next.publisher),
        mortal(),
    );
    next.deployments = rig.deployments.clone();
    next
}

async fn until_over(rig: &Rig, store: &Store, order: &Stored<WorkOrder>) -> Stored<WorkOrder> {
    loop {
        rig.driver.round().await.unwrap();
        let order = store.get::<WorkOrder>(order.id).await.unwrap();
        if order.finished_at.is_some() {
            return order;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Dropping a round leaves the database as a killed process does: what was committed is there, what was not is
/// not, and the lease is still held. Cut at random, some thirty times.
#[tokio::test]
async fn rounds_that_are_cut_anywhere_are_finished_by_the_next_process() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let elsewhere = json!({"upstream": "http://127.0.0.1:9/v1"});
        let at = deployment(store, &people, &product, "helpdesk", elsewhere).await;
        let a = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let b = version(store, &people, &product, "sha256:bb", Verdict::Passed).await;
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        let (mut cuts, mut now, mut other) = (0, a, b);
        let mut process = next_process(&rig, store).await;
        while cuts < 30 {
            let order = rig.order(&people, &at, now).await;
            rig.approve(&people, order.id).await;
            loop {
                let patience = Duration::from_micros(random.random_range(500..120_000));
                if tokio::time::timeout(patience, process.driver.round())
                    .await
                    .is_ok()
                {
                    break;
                }
                cuts += 1;
                let states = (process.state(now).await, process.state(other).await);
                assert_ne!(states, (Live, Live), "the deployment serves one of them");
                process = next_process(&rig, store).await;
            }
            let order = until_over(&process, store, &order).await;
            assert_eq!(order.state, WorkOrderState::Promoted, "{order:?}");
            let states = (process.state(now).await, process.state(other).await);
            assert_eq!(states, (Live, Approved));
            let steps = store.work_order_steps(order.id).await.unwrap();
            assert!(
                steps.iter().all(|step| step.status != StepStatus::Running),
                "{steps:?}"
            );
            (now, other) = (other, now);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_serves_what_the_last_one_did_and_ends_what_it_began() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let rig = Rig::new(store).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let v1 = passed(store, &people, &product, "v1").await;
    let v2 = passed(store, &people, &product, "v2").await;
    rig.deploy(&people, &at, v1).await;
    let order = rig.order(&people, &at, v2).await;
    rig.approve(&people, order.id).await;
    // Killed between the steps and the swap.
    let first = next_process(&rig, store).await;
    let cut = async {
        while store.get::<WorkOrder>(order.id).await.unwrap().state != WorkOrderState::Promoting {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = first.driver.round() => {}
        () = cut => {}
    }
    let second = next_process(&rig, store).await;
    second.publisher.tick().await;
    assert_eq!(second.chat("helpdesk", None).await.0, 200);
    let order = until_over(&second, store, &order).await;
    assert_eq!(order.state, WorkOrderState::Promoted, "{order:?}");
    assert!(second.chat("helpdesk", None).await.1.starts_with("v2-"));
    // The first process, had it lived on, would follow the records.
    first.publisher.tick().await;
    assert!(first.chat("helpdesk", None).await.1.starts_with("v2-"));
    first.until_held(1).await;
}
