//! A GPU is lost, and what is held of GPUs.

use sluice_engine::backend::fake::Failure;

use super::rig::{Fakes, quick};
use super::*;

#[tokio::test]
async fn a_lost_gpu_takes_its_models_along_and_all_come_back() {
    let bench = Bench::start().await;
    let (a, b) = (bench.fakes("a", 2, &quick()), bench.fakes("b", 2, &quick()));
    bench.serve("a", &a.replicas);
    bench.rack.lose(0);
    for control in &a.controls {
        control.fail_next(Failure::Fatal);
    }
    // Both of its replicas are lost; only one of them with its GPU.
    for place in ["first", "second"] {
        let failed = bench.chat("a").await;
        assert_eq!(failed.status, 500, "{place}: {failed:?}");
    }
    let back = |replicas: &Replicas, place: usize, cause| {
        let replica = &replicas.all()[place];
        replica.restarts(cause) == 1 && replica.state() == State::Serving
    };
    until("all are back", || {
        back(&a.replicas, 0, Cause::Device)
            && back(&b.replicas, 0, Cause::Device)
            && back(&a.replicas, 1, Cause::Executor)
    })
    .await;
    let untouched = &b.replicas.all()[1];
    assert!(
        Cause::ALL
            .iter()
            .all(|&cause| untouched.restarts(cause) == 0)
    );
    assert_eq!(bench.rack.resets(), 1);
    assert_eq!(bench.chat("a").await.status, 200);
}

#[tokio::test]
async fn a_hundred_models_come_and_go_and_the_gpu_is_as_it_was() {
    let bench = Bench::start().await;
    let held = || bench.devices.occupancy([0, 1]);
    let before = held();
    assert_eq!(
        (before[0].limit, before[0].held),
        ((10 << 30) / 100 * 90, 0)
    );
    let loader: Loader = Arc::new(|_| Err(LoadError::Runtime("not asked for".into())));
    for _ in 0..100 {
        let Fakes { replicas, .. } = bench.fakes("m", 2, &quick());
        let models = replicas
            .all()
            .iter()
            .map(|it| (it.device(), (*it.model()).clone()));
        let holding = bench.devices.hold("m", 5 << 30, &[0, 1]).unwrap();
        let full = bench.devices.hold("n", 5 << 30, &[1]).unwrap_err();
        assert_eq!(
            full,
            "GPU 1: 6.0 GiB of 9.0 GiB are held by m (6.0 GiB); n needs 6.0 GiB"
        );
        let loader = Arc::clone(&loader);
        let policy = quick();
        let loaded = Replicas::supervised(
            "m",
            models.collect(),
            loader,
            &policy,
            Some(holding),
            &bench.devices,
        );
        drop(replicas);
        assert_eq!(
            held().iter().map(|it| it.held >> 30).collect::<Vec<_>>(),
            [6, 6]
        );
        let set = Arc::downgrade(&loaded.0);
        drop(loaded);
        until("nobody holds it", || set.strong_count() == 0).await;
    }
    assert_eq!(held(), before);
    let gone = || {
        bench
            .rack
            .models
            .lock()
            .iter()
            .all(|it| it.1.strong_count() == 0)
    };
    until("no model is left", gone).await;
}

#[test]
fn a_gpu_that_is_not_there_is_told() {
    let rack = Arc::new(Rack::default());
    let devices = Devices::new(Box::new(rack), crate::config::DevicesConfig::default());
    let told = devices.hold("m", 1, &[0, 7]).unwrap_err();
    assert_eq!(told, "there is no GPU 7: 2 are there");
    assert_eq!(devices.occupancy([0, 7]).len(), 1);
    assert_eq!(
        devices.room(&[0, 1]).unwrap() >> 30,
        7,
        "9 less the workspace"
    );
}
