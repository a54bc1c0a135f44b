#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use sluice_engine::backend::fake::FakeOptions;
use sluice_engine::language::LanguageModel;
use sluice_gateway::config::{Config, DevicesConfig};
use sluice_gateway::replicas::{Devices, Gpus, RestartPolicy};
use sluice_gateway::router::LocalModel;

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

const GIB: u64 = 1 << 30;

/// Two GPUs of 11 GiB: models may hold 9.9 of each, every one with a workspace of 1 beside it.
#[derive(Debug)]
struct TwoGpus;

impl Gpus for TwoGpus {
    fn memory(&self, device: u32) -> Result<u64, String> {
        match device {
            0 | 1 => Ok(11 * GIB),
            _ => Err(format!("there is no GPU {device}: 2 are there")),
        }
    }

    fn is_lost(&self, _: u32) -> bool {
        false
    }

    fn reset(&self, _: u32) -> Result<(), String> {
        Ok(())
    }
}

/// Models in the ledger of these GPUs, all of them spare: what each needs there, and where.
fn on_gpus(models: &[(&str, u64, u32)]) -> (Arc<Replicas>, Arc<Devices>) {
    let gateway = Gateway::new(Config::default()).unwrap();
    let devices = Devices::new(Box::new(TwoGpus), DevicesConfig::default());
    let all = Replicas::new(Arc::clone(&gateway), Arc::new(Nothing), 0);
    for &(key, bytes, gpu) in models {
        let model = LanguageModel::fake(key, FakeOptions::default()).unwrap();
        let holding = devices.hold(key, bytes, &[gpu]).unwrap();
        let replicas = sluice_gateway::router::Replicas::supervised(
            key,
            vec![(Some(gpu), LocalModel::Language(Arc::new(model)))],
            Arc::new(|_| Err(LoadError::Runtime("it is not loaded again here".into()))),
            &RestartPolicy::from(&gateway.config().replicas),
            Some(holding),
            &devices,
        );
        let target = Target::Local(replicas);
        let held = Held {
            deployment: Some(load::make(&gateway, key, "r1", target, Standing::default())),
            name: key.to_owned(),
            footprint: 0,
            gpus: vec![gpu],
            pinned: false,
        };
        all.held.lock().insert(Arc::from(key), held);
    }
    let keys: Vec<Arc<str>> = models.iter().map(|(key, ..)| Arc::from(*key)).collect();
    all.set_spare(&keys);
    (all, devices)
}

/// What a model of so many bytes is told by the ledger.
fn ask(devices: &Arc<Devices>, bytes: u64, gpus: &[u32]) -> Result<Footprint, DeployError> {
    let asked = devices.hold("new", bytes, gpus);
    let full = |sum| DeployError::Load {
        name: "new".to_owned(),
        source: LoadError::DoesNotFit {
            model: "new".to_owned(),
            sum,
        },
    };
    asked.map_err(full).map(|_| Footprint {
        weights: bytes,
        ..Footprint::default()
    })
}

#[tokio::test]
async fn the_ledger_is_asked_again_after_each_model_that_goes() {
    let (all, devices) = on_gpus(&[
        ("a", 2 * GIB, 0),
        ("b", 2 * GIB, 0),
        ("c", 2 * GIB, 0),
        ("beside", 2 * GIB, 1),
    ]);
    let sum = || async { ask(&devices, 5 * GIB, &[0]) };
    let footprint = all.sum_up(sum, &[0], Need::Served).await.unwrap();
    assert_eq!(footprint.weights, 5 * GIB);
    let left = left(&all);
    assert_eq!(left.len(), 2, "two of the three, and no more: {left:?}");
    assert!(left.contains(&"beside".to_owned()), "{left:?}");
    let held = 3 * GIB + GIB;
    assert_eq!(devices.room(&[0]), devices.limit(0).map(|all| all - held));
}

#[tokio::test]
async fn what_fits_ends_nothing() {
    let (all, devices) = on_gpus(&[("a", 2 * GIB, 0), ("b", 2 * GIB, 0)]);
    let sum = || async { ask(&devices, 2 * GIB, &[0]) };
    all.sum_up(sum, &[0], Need::Served).await.unwrap();
    assert_eq!(left(&all), ["a", "b"]);
}

#[tokio::test]
async fn what_is_itself_only_spare_ends_nothing() {
    let (all, devices) = on_gpus(&[("a", 7 * GIB, 0)]);
    let sum = || async { ask(&devices, 2 * GIB, &[0]) };
    let told = all.sum_up(sum, &[0], Need::Spare).await.unwrap_err();
    assert!(
        told.ends_with("GPU 0: 8.0 GiB of 9.9 GiB are held by a (8.0 GiB); new needs 3.0 GiB"),
        "{told}"
    );
    assert_eq!(left(&all), ["a"]);
}

#[tokio::test]
async fn where_nothing_more_can_go_the_ledgers_sum_is_told() {
    let (all, devices) = on_gpus(&[("a", 4 * GIB, 0), ("b", 3 * GIB, 0), ("c", 2 * GIB, 1)]);
    all.held.lock().get_mut("a").unwrap().pinned = true;
    let sum = || async { ask(&devices, 7 * GIB, &[0]) };
    let told = all.sum_up(sum, &[0], Need::Pinned).await.unwrap_err();
    assert!(
        told.ends_with("GPU 0: 5.0 GiB of 9.9 GiB are held by a (5.0 GiB); new needs 8.0 GiB"),
        "{told}"
    );
    assert_eq!(left(&all), ["a", "c"]);
}

#[tokio::test]
async fn other_errors_and_the_processs_memory_end_nothing_on_gpus() {
    let (all, devices) = on_gpus(&[("a", 7 * GIB, 0)]);
    let broken = || async {
        Err(DeployError::Load {
            name: "new".to_owned(),
            source: LoadError::Runtime("no library".to_owned()),
        })
    };
    let told = all.sum_up(broken, &[0], Need::Served).await.unwrap_err();
    assert!(told.contains("no library"), "{told}");
    let sum = || async { ask(&devices, 7 * GIB, &[0]) };
    assert!(all.sum_up(sum, &[], Need::Served).await.is_err());
    assert_eq!(left(&all), ["a"]);
}
