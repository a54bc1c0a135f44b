//! Weights that change and releases that are taken back, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use http::HeaderMap;

use super::rig::{Manner, Rig, Upstream, split};
use crate::RequestContext;
use crate::router::Deployment;
use crate::router::split::{Side, Subject};

const CLIENTS: usize = 8;
const LOW: f64 = 10.0;
const HIGH: f64 = 60.0;

fn side(user: &str, weight: f64) -> Side {
    let subject = Subject {
        headers: &HeaderMap::new(),
        user: Some(user),
        principal: None,
    };
    split(weight, 0.0).pick(&subject).side
}

/// Clients ask until they are told to stop; each checks every answer.
fn clients(
    rig: &Arc<Rig>,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicUsize>,
    taken_back: bool,
) -> Vec<tokio::task::JoinHandle<()>> {
    (0..CLIENTS)
        .map(|client| {
            let (rig, stop, answered) = (Arc::clone(rig), Arc::clone(stop), Arc::clone(answered));
            tokio::spawn(async move {
                for turn in 0.. {
                    let user = format!("user-{}", (client + turn * CLIENTS) % 200);
                    let answer = rig.ask(&user, turn % 2 == 0).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    assert!(!answer.broken && !answer.text.contains("error"));
                    let new = answer.revision() == "v2";
                    // With the candidate already at the low weight: always there. With
                    // stable still at the high one: never there.
                    if side(&user, HIGH) == Side::Stable {
                        assert!(!new, "{user} was moved though its place is above");
                    }
                    if side(&user, LOW) == Side::Candidate && !taken_back {
                        assert!(new, "{user} was moved though its place is below");
                    }
                    answered.fetch_add(1, Relaxed);
                    if stop.load(Relaxed) {
                        return;
                    }
                }
            })
        })
        .collect()
}

async fn change_under_load(rig: Rig, stable: Arc<Deployment>, candidate: Arc<Deployment>) {
    let rig = Arc::new(rig);
    for (changes, taken_back) in [(1000, false), (200, true)] {
        rig.release(&stable, &candidate, LOW, 0.0);
        let (stop, answered) = (Arc::default(), Arc::<AtomicUsize>::default());
        let clients = clients(&rig, &stop, &answered, taken_back);
        for change in 0..changes {
            let seen = answered.load(Relaxed);
            match (change % 2 == 0, taken_back) {
                (true, _) => rig.release(&stable, &candidate, HIGH, 0.0),
                (false, false) => rig.release(&stable, &candidate, LOW, 0.0),
                (false, true) => rig.publish(Arc::clone(&stable)),
            }
            // Traffic in between, so that each change meets requests in flight.
            while answered.load(Relaxed) == seen && clients.iter().all(|it| !it.is_finished()) {
                tokio::task::yield_now().await;
            }
        }
        stop.store(true, Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        assert!(answered.load(Relaxed) >= changes);
    }
}

#[tokio::test]
async fn routing_allocates_nothing() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, _) = rig.local("v2", "new");
    rig.release(&stable, &candidate, LOW, 0.0);
    let context = RequestContext::new("id", "/v1/chat/completions");
    let subject = Subject {
        headers: &HeaderMap::new(),
        user: Some("ann"),
        principal: None,
    };
    // The thread's own slot in the route table is made at its first look.
    drop(rig.gateway.routes());
    let counted = allocation_counter::measure(|| {
        rig.gateway.route(&context, "m", &subject).unwrap();
    });
    assert_eq!(counted.count_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_changes_between_local_revisions() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, _) = rig.local("v2", "new");
    change_under_load(rig, stable, candidate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_changes_between_upstreams() {
    let rig = Rig::start().await;
    let (old, new) = (
        Upstream::start(Manner::Says("old")).await,
        Upstream::start(Manner::Says("new")).await,
    );
    let stable = rig.remote("v1", old.address).await;
    let candidate = rig.remote("v2", new.address).await;
    change_under_load(rig, stable, candidate).await;
}
