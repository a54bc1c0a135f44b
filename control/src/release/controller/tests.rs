#![expect(clippy::unwrap_used, reason = "tests")]

mod back;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use self::stage::{Stage, actions, alone, release_leases, tell, traffic};
use super::*;
use crate::deploy::tests::rig::Rig;
use crate::domain::record::{Evaluation, EvaluationRun, ModelVersion, WorkOrder};
use crate::domain::work_order::WorkOrderState as State;
use crate::release::planner::{Command, Refused};
use crate::store::rig::{Fresh, on_both, require};
use crate::store::{Actor, Stored};
use crate::time::Timestamp;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_release_goes_through_its_steps() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let stage = Stage::new(store).await;
        let rig = &stage.rig;
        let analyse = json!({"analyse": {"min_requests": 50, "max_duration": "1h"}});
        let id = stage
            .start(json!([{"weight": 20}, analyse, {"pause": {}}, {"weight": 60}]))
            .await;
        assert_eq!(
            (stage.order(id).await.state, traffic(rig)),
            (State::Preparing, alone("v1"))
        );
        rig.controller.round().await.unwrap();
        assert_eq!(
            (stage.order(id).await.state, traffic(rig)),
            (State::Canary, Ok(20.0))
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
        tell(rig, id, 49, 0.0);
        rig.controller.round().await.unwrap();
        assert_eq!(traffic(rig), Ok(20.0), "one is missing");
        tell(rig, id, 1, 0.0);
        rig.controller.round().await.unwrap();
        let order = stage.order(id).await;
        assert_eq!((order.state, traffic(rig)), (State::Paused, Ok(20.0)));
        stage.command(id, Command::Resume).await.unwrap();
        rig.controller.round().await.unwrap();
        // The last step is a weight: it promotes at once, and is over after the settling time.
        tokio::time::sleep(Duration::from_millis(5)).await;
        rig.controller.round().await.unwrap();
        let order = stage.order(id).await;
        assert_eq!((order.state, traffic(rig)), (State::Promoted, alone("v2")));
        assert_eq!(stage.live().await, Some(stage.v2));
        assert!(order.finished_at.is_some() && order.replaced.is_some());
        let decisions = stage.decisions(id).await;
        let words = actions(&decisions);
        assert_eq!(
            words,
            [
                "enter", "enter", "enter", "pause", "resume", "enter", "promote", "finish"
            ]
        );
        assert_eq!(decisions[4].actor, stage.people.operator.actor.name);
        assert!(decisions[2].evidence.as_ref().unwrap().0["requests"]["candidate"] == 50);
        // What was live before is kept warm, and is back at once, under its own name.
        let before = rig.publisher.routes().answering(stage.at.id).unwrap();
        rig.publisher.tick().await;
        let back = rig
            .releases
            .roll_back(&stage.people.operator, stage.at.id, "a test", None)
            .await;
        assert!(matches!(back.unwrap(), TakenBackTo::Recorded(_)));
        assert_eq!(traffic(rig), alone("v1"));
        rig.driver.round().await.unwrap();
        rig.recorder.round().await;
        assert_eq!(
            (stage.live().await, traffic(rig)),
            (Some(stage.v1), alone("v1"))
        );
        assert_ne!(
            rig.publisher.routes().answering(stage.at.id).unwrap(),
            before
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breach_swaps_the_table_in_the_thread_that_sees_it() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let stage = Stage::new(store).await;
        let rig = &stage.rig;
        let id = stage.start(json!([{"weight": 50}, {"pause": {}}])).await;
        rig.controller.round().await.unwrap();
        assert_eq!(traffic(rig), Ok(50.0));
        // Armed while it is paused, too.
        assert_eq!(stage.order(id).await.state, State::Paused);
        tell(rig, id, 50, 0.5);
        assert_eq!(traffic(rig), alone("v1"), "no database was asked");
        assert_eq!(stage.order(id).await.state, State::Paused);
        let recording = rig
            .recorder
            .run(tokio::time::sleep(Duration::from_millis(300)));
        recording.await;
        assert_eq!(stage.order(id).await.state, State::RollingBack);
        rig.controller.round().await.unwrap();
        let order = stage.order(id).await;
        assert_eq!(
            (order.state, traffic(rig)),
            (State::RolledBack, alone("v1"))
        );
        assert!(order.ended_because.as_ref().unwrap().contains("error"));
        assert_eq!(stage.live().await, Some(stage.v1));
        assert_eq!(
            actions(&stage.decisions(id).await),
            ["enter", "enter", "pause", "roll_back", "finish"]
        );
        // Another may be tried.
        stage.start(json!([{"weight": 5}])).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brake_outlives_the_process_and_the_lack_of_a_database() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let stage = Stage::new(store).await;
    let rig = &stage.rig;
    let id = stage.start(json!([{"weight": 50}, {"pause": {}}])).await;
    rig.controller.round().await.unwrap();
    // A process that has no database yet, started from what the last one published.
    let next = |with: &Rig| {
        let file = crate::publish::SnapshotFile::in_folder(with.data.path().join("control"));
        {
            let hosts = Arc::new(crate::sandbox::in_process::InProcess(Arc::clone(
                &with.gateway,
            )));
            crate::publish::Publisher::new(
                Arc::clone(&with.gateway),
                Arc::clone(&with.replicas),
                hosts,
                file,
            )
        }
    };
    let alone_again = next(rig);
    let recorder = Recorder::new(Arc::clone(&alone_again), rig.data.path());
    alone_again.restore().await;
    assert_eq!(traffic(rig), Ok(50.0), "as it was");
    let releases = Releases::new(
        Arc::clone(&alone_again),
        Arc::clone(&recorder),
        Arc::default(),
    );
    let back = releases
        .roll_back(&stage.people.operator, stage.at.id, "at night", None)
        .await
        .unwrap();
    assert!(
        matches!(back, TakenBackTo::Queued { revision, loads_first: false } if revision.starts_with("v1-"))
    );
    assert_eq!(traffic(rig), alone("v1"));
    // Killed, and started again, still without a database.
    let after = next(rig);
    let recorder = Recorder::new(Arc::clone(&after), rig.data.path());
    after.restore().await;
    assert_eq!(traffic(rig), alone("v1"));
    // The database is back, so slow at first that the round is given up: nothing is lost by that.
    after.follow(store.clone());
    recorder.follow(store.clone(), rig.deployments.clone());
    let writer = store.begin().await.unwrap();
    let slow = tokio::time::timeout(Duration::from_millis(20), recorder.round()).await;
    assert!(slow.is_err(), "the only writer is taken");
    drop(writer);
    recorder.round().await;
    let order = stage.order(id).await;
    assert_eq!(
        (order.state, traffic(rig)),
        (State::RollingBack, alone("v1"))
    );
    rig.controller.round().await.unwrap();
    assert_eq!(stage.order(id).await.state, State::RolledBack);
    let decisions = stage.decisions(id).await;
    let back = decisions
        .iter()
        .find(|it| it.reason.as_deref() == Some("at night"))
        .unwrap();
    assert_eq!(back.actor, stage.people.operator.actor.name);
    assert!(back.at < back.created_at, "written later than decided");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_promoted_past_the_gate() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let stage = Stage::new(store).await;
        let rig = &stage.rig;
        let id = stage.start(json!([{"weight": 20}, {"pause": {}}])).await;
        rig.controller.round().await.unwrap();
        let version = store.get::<ModelVersion>(stage.v2).await.unwrap();
        let withdraw = |it: &mut EvaluationRun| it.withdrawn_at = Some(Timestamp::now());
        store
            .update::<EvaluationRun>(
                &Actor::system("test"),
                version.evidence.unwrap(),
                None,
                withdraw,
            )
            .await
            .unwrap();
        let refused = stage.command(id, Command::Promote).await.unwrap_err();
        assert!(
            matches!(refused, ReleaseError::Refused(Refused::Gate(_))),
            "{refused}"
        );
        stage.command(id, Command::Resume).await.unwrap();
        rig.controller.round().await.unwrap();
        let order = stage.order(id).await;
        assert_eq!((order.state, traffic(rig)), (State::Paused, Ok(20.0)));
        assert_eq!(
            order.release_state.as_ref().unwrap().0["phase"]["why"]["why"],
            "gate"
        );
        stage.command(id, Command::Abort).await.unwrap();
        rig.controller.round().await.unwrap();
        assert_eq!(
            (stage.order(id).await.state, traffic(rig)),
            (State::RolledBack, alone("v1"))
        );
        let words = actions(&stage.decisions(id).await);
        assert_eq!(
            words,
            [
                "enter",
                "enter",
                "pause",
                "refused",
                "resume",
                "pause",
                "roll_back",
                "finish"
            ]
        );
    })
    .await;
}

/// What was required anew while a release runs holds it where it is; the way back stays open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_share_rises_past_the_gate() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let stage = Stage::new(store).await;
        let rig = &stage.rig;
        let id = stage
            .start(json!([{"weight": 20}, {"pause": {}}, {"weight": 60}, {"pause": {}}]))
            .await;
        rig.controller.round().await.unwrap();
        let version = store.get::<ModelVersion>(stage.v2).await.unwrap();
        let run = store.get::<EvaluationRun>(version.evidence.unwrap()).await;
        let evaluation = run.unwrap().evaluation;
        let raise = |it: &mut Evaluation| it.policy_digest = "sha256:stricter".into();
        store
            .update::<Evaluation>(&Actor::system("test"), evaluation, None, raise)
            .await
            .unwrap();
        require(store, evaluation).await;
        stage.command(id, Command::Resume).await.unwrap();
        rig.controller.round().await.unwrap();
        let order = stage.order(id).await;
        assert_eq!((order.state, traffic(rig)), (State::Paused, Ok(20.0)));
        let why = &order.release_state.as_ref().unwrap().0["phase"]["why"];
        assert_eq!(why["why"], "gate");
        assert!(why["because"][0].as_str().unwrap().contains("run it again"));
        stage.command(id, Command::Abort).await.unwrap();
        rig.controller.round().await.unwrap();
        assert_eq!(
            (stage.order(id).await.state, traffic(rig)),
            (State::RolledBack, alone("v1"))
        );
    })
    .await;
}

/// Dropping a round leaves the database as a killed process does. Cut at random, the next process goes on with the
/// traffic where it was, skips no step, and mixes nothing once the release is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_that_are_cut_anywhere_are_finished_by_the_next_process() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let stage = Stage::new(store).await;
        let seed: u64 = rand::random();
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for lap in 0..2 {
            let (candidate, bad) = if lap % 2 == 0 {
                (stage.v2, 0.0)
            } else {
                (stage.v1, 0.9)
            };
            let again = stage.again(candidate).await;
            let steps = json!([
                {"shadow": {"percent": 10, "for": "1ms"}}, {"weight": 20},
                {"analyse": {"min_requests": 20, "max_duration": "1h"}}, {"weight": 50},
                {"analyse": {"min_requests": 20, "max_duration": "1h"}},
            ]);
            let id = again.start(steps).await;
            // Sooner or later one lives long enough.
            let mut lives = (1_u64..).map(|life| if life < 8 { 5_000 * life } else { 60_000_000 });
            let end = loop {
                let rig = Rig::new(store).await;
                rig.publisher.tick().await;
                let state = again.order(id).await;
                let share = state
                    .release_state
                    .as_ref()
                    .map(|it| it.0["share"].as_f64().unwrap());
                if let (Ok(percent), Some(share)) = (traffic(&rig), share) {
                    assert!(
                        (percent - share / 10_000.0).abs() < 1e-6,
                        "seed {seed}: {percent} {state:?}"
                    );
                }
                if state.finished_at.is_some() {
                    break state;
                }
                tell(&rig, id, 25, bad);
                let longest = lives.next().unwrap();
                let cut = Duration::from_micros(random.random_range(0..longest));
                let work = async {
                    rig.recorder
                        .run(tokio::time::sleep(Duration::from_millis(20)))
                        .await;
                    rig.controller.round().await
                };
                _ = tokio::time::timeout(cut, work).await;
                // As a process that was killed and is started again at once: its lease is nobody's.
                release_leases(store).await;
            };
            let decisions = again.decisions(id).await;
            let words = actions(&decisions);
            let (state, live) = if bad > 0.0 {
                (State::RolledBack, stage.v2)
            } else {
                (State::Promoted, stage.v2)
            };
            assert_eq!(end.state, state, "seed {seed}: {words:?}");
            assert_eq!(again.live().await, Some(live), "seed {seed}: {words:?}");
            let steps: Vec<u64> = decisions
                .iter()
                .filter_map(|it| it.action.as_ref()?.0["step"].as_u64())
                .collect();
            let expected: Vec<u64> = (0..steps.len() as u64).collect();
            assert_eq!(
                steps, expected,
                "seed {seed}: no step is done twice or left out"
            );
            if bad == 0.0 {
                assert_eq!(steps.len(), 5, "seed {seed}: {words:?}");
            }
        }
    })
    .await;
}
