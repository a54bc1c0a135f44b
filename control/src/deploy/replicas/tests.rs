#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use sluice_gateway::config::Config;

use super::*;

#[derive(Debug)]
struct Nothing;

impl Artifacts for Nothing {
    fn materialise<'a>(
        &'a self,
        _: Option<ArtifactId>,
        digest: &'a str,
    ) -> BoxFuture<'a, Result<Materialised, String>> {
        Box::pin(async move { Err(format!("there is no {digest}")) })
    }
}

/// Replicas by key, all of them spare: what each takes of the process's memory, and its GPUs.
async fn holding(replicas: &[(&str, u64, &[u32])]) -> Arc<Replicas> {
    let gateway = Gateway::new(Config::default()).unwrap();
    let all = Replicas::new(Arc::clone(&gateway), Arc::new(Nothing), 100);
    for (key, footprint, gpus) in replicas {
        let upstream = DeploymentConfig::of_upstream(*key, "http://127.0.0.1:9/v1");
        let deployment = load::deployment(&gateway, &upstream).await.unwrap();
        let held = Held {
            deployment: Some(deployment),
            name: (*key).to_owned(),
            footprint: *footprint,
            gpus: gpus.to_vec(),
            pinned: false,
        };
        all.held.lock().insert(Arc::from(*key), held);
    }
    let keys: Vec<Arc<str>> = replicas.iter().map(|(key, ..)| Arc::from(*key)).collect();
    all.set_spare(&keys);
    all
}

fn left(all: &Replicas) -> Vec<String> {
    let held = all.held.lock();
    let mut keys: Vec<String> = held.keys().map(ToString::to_string).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn room_on_a_gpu_is_made_by_what_lies_on_it() {
    let all = holding(&[
        ("host", 40, &[]),
        ("first", 0, &[0]),
        ("both", 0, &[0, 1]),
        ("third", 0, &[2]),
    ])
    .await;
    assert!(all.free_one(&[1]));
    assert_eq!(left(&all), ["first", "host", "third"]);
    assert!(!all.free_one(&[1]), "nothing lies on it any more");
    assert!(all.free_one(&[0, 1]));
    assert_eq!(left(&all), ["host", "third"]);
}

#[tokio::test]
async fn room_in_memory_is_made_by_what_lies_in_it() {
    let all = holding(&[("host", 40, &[]), ("large", 50, &[]), ("gpu", 0, &[0])]).await;
    let mut held = all.held.lock();
    all.make_room(&mut held, 10);
    assert_eq!(held.len(), 3, "it fits");
    all.make_room(&mut held, 100);
    assert!(held.len() == 1 && held.contains_key("gpu"));
}

#[tokio::test]
async fn what_is_needed_stays_wherever_it_lies() {
    let all = holding(&[("pinned", 0, &[0]), ("asked", 0, &[0]), ("kept", 0, &[0])]).await;
    all.held.lock().get_mut("pinned").unwrap().pinned = true;
    let request = all.get("asked").unwrap();
    all.set_spare(&["pinned".into(), "asked".into()]);
    assert!(!all.free_one(&[0]));
    drop(request);
    assert!(all.free_one(&[0]));
    assert_eq!(left(&all), ["kept", "pinned"]);
}
