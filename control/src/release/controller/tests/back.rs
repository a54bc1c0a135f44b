//! Taking back, pressed twice, pressed early, pressed while the database is away.

use super::stage::{Stage, actions, alone, release_leases, traffic};
use super::*;
use crate::deploy::{Already, NewWorkOrder};
use crate::id::WorkOrderId;

impl Stage {
    async fn back(&self, to: Option<&str>) -> TakenBackTo {
        let operator = &self.people.operator;
        let back = self
            .rig
            .releases
            .roll_back(operator, self.at.id, "a test", to);
        back.await.unwrap()
    }

    /// Rounds until nothing is left to be done.
    async fn settle(&self) {
        for _ in 0..3 {
            self.rig.controller.round().await.unwrap();
            self.rig.driver.round().await.unwrap();
            self.rig.recorder.round().await;
        }
        self.rig.publisher.tick().await;
    }

    /// Version 2 is live, all at once.
    async fn switch(&self) {
        self.rig.deploy(&self.people, &self.at, self.v2).await;
        assert_eq!(traffic(&self.rig), alone("v2"));
    }

    async fn ordered(&self) -> WorkOrderId {
        let order = NewWorkOrder::new(self.at.id, self.v1, "later");
        let made = self.rig.deployments.order(&self.people.developer, order);
        made.await.unwrap().id
    }
}

fn already(back: TakenBackTo) -> Already {
    match back {
        TakenBackTo::Already(already) => already,
        other => unreachable!("something moved: {other:?}"),
    }
}

fn recorded(back: TakenBackTo) -> Stored<WorkOrder> {
    match back {
        TakenBackTo::Recorded(order) => *order,
        other => unreachable!("not written down: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_taken_back_twice_is_taken_back_once() {
    on_both(async |fresh: Arc<Fresh>| {
        let stage = Stage::new(&fresh.store).await;
        stage.switch().await;
        let again = stage.again(stage.v1).await;
        again.rig.publisher.tick().await;
        let id = again.start(json!([{"weight": 50}, {"pause": {}}])).await;
        again.rig.controller.round().await.unwrap();
        assert_eq!(traffic(&again.rig), Ok(50.0));
        assert_eq!(recorded(again.back(None).await).id, id);
        // At once, when it is over, and by a process that was not there.
        let told = already(again.back(None).await);
        assert!(told.because.contains(&id.to_string()), "{told:?}");
        again.settle().await;
        let told = already(again.back(None).await);
        assert!(
            told.answers.starts_with("v2-") && told.further[0].starts_with("v1-"),
            "{told:?}"
        );
        let other = again.again(again.v1).await;
        other.rig.publisher.tick().await;
        already(other.back(None).await);
        assert_eq!(traffic(&again.rig), alone("v2"));
        let decisions = actions(&again.decisions(id).await);
        assert_eq!(decisions.iter().filter(|it| *it == "roll_back").count(), 1);
        // Whoever wants to go further says to what.
        let order = recorded(again.back(Some("v1")).await);
        assert!(order.restores.is_some(), "{order:?}");
        again.settle().await;
        assert_eq!(traffic(&again.rig), alone("v1"));
        already(again.back(None).await);
        assert_eq!(again.live().await, Some(stage.v1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn right_after_the_analysis_it_is_the_same_wish() {
    let fresh = Fresh::sqlite().await;
    let stage = Stage::new(&fresh.store).await;
    stage.switch().await;
    let again = stage.again(stage.v1).await;
    again.rig.publisher.tick().await;
    let id = again.start(json!([{"weight": 50}, {"pause": {}}])).await;
    again.rig.controller.round().await.unwrap();
    tell(&again.rig, id, 50, 0.5);
    assert_eq!(traffic(&again.rig), alone("v2"));
    already(again.back(None).await);
    let recording = again
        .rig
        .recorder
        .run(tokio::time::sleep(Duration::from_millis(200)));
    recording.await;
    again.settle().await;
    assert_eq!(again.order(id).await.state, State::RolledBack);
    already(again.back(None).await);
    assert_eq!(traffic(&again.rig), alone("v2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_taken_no_traffic_gives_way() {
    on_both(async |fresh: Arc<Fresh>| {
        let stage = Stage::new(&fresh.store).await;
        let rig = &stage.rig;
        stage.switch().await;
        // Nobody has approved it.
        let left = stage.ordered().await;
        let order = recorded(stage.back(None).await);
        assert_eq!(order.candidate, stage.v1);
        let superseded = stage.order(left).await;
        assert_eq!(superseded.state, State::Aborted);
        assert!(
            superseded
                .ended_because
                .as_ref()
                .unwrap()
                .contains("superseded"),
            "{superseded:?}"
        );
        assert_eq!(traffic(rig), alone("v1"));
        stage.settle().await;
        assert_eq!(stage.live().await, Some(stage.v1));
        // Approved, and not begun to be loaded.
        stage.switch().await;
        let left = stage.ordered().await;
        rig.approve(&stage.people, left).await;
        recorded(stage.back(None).await);
        stage.settle().await;
        assert_eq!(
            (stage.order(left).await.state, stage.live().await),
            (State::Aborted, Some(stage.v1))
        );
        // A release that was approved and has not begun is what was meant: it ends, and nothing else moves.
        stage.switch().await;
        let release = stage.again(stage.v1).await;
        release.rig.publisher.tick().await;
        let id = release.start(json!([{"weight": 50}])).await;
        assert_eq!(recorded(release.back(None).await).id, id);
        assert_eq!(
            (release.order(id).await.state, traffic(&release.rig)),
            (State::Aborted, alone("v2"))
        );
        already(release.back(None).await);
        // Serving nothing is asked for in spite of an order, too.
        let left = release.ordered().await;
        let stopped = rig
            .deployments
            .stop(&stage.people.operator, stage.at.id, None, "enough");
        assert_eq!(stopped.await.unwrap().live_version, None);
        assert_eq!(stage.order(left).await.state, State::Aborted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_everything_that_was_live_may_return() {
    on_both(async |fresh: Arc<Fresh>| {
        let stage = Stage::new(&fresh.store).await;
        let rig = &stage.rig;
        stage.switch().await;
        rig.publisher.pulse().set_away(true);
        let began = std::time::Instant::now();
        let back = stage.back(None).await;
        let expected = rig.publisher.routes().answering(stage.at.id).unwrap();
        assert_eq!(
            back,
            TakenBackTo::Queued {
                revision: expected,
                loads_first: false
            }
        );
        // Known to be away: nothing was waited for but this machine's disk.
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(traffic(rig), alone("v1"));
        assert!(already(stage.back(None).await).answers.starts_with("v1-"));
        rig.publisher.tick().await;
        rig.recorder.round().await;
        assert_eq!(traffic(rig), alone("v1"));
        // Somebody else has left an order meanwhile; what was said stays said.
        let left = stage.ordered().await;
        rig.publisher.pulse().set_away(false);
        stage.settle().await;
        assert_eq!(
            (stage.live().await, stage.order(left).await.state),
            (Some(stage.v1), State::Aborted)
        );
        assert_eq!(traffic(rig), alone("v1"));
        let unknown = rig
            .releases
            .roll_back(&stage.people.operator, stage.at.id, "", Some("v7"))
            .await;
        assert!(unknown.unwrap_err().to_string().contains("never live here"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_than_the_release_goes_through_its_end() {
    let fresh = Fresh::sqlite().await;
    let stage = Stage::new(&fresh.store).await;
    stage.switch().await;
    let again = stage.again(stage.v1).await;
    again.rig.publisher.tick().await;
    let id = again.start(json!([{"weight": 50}, {"pause": {}}])).await;
    again.rig.controller.round().await.unwrap();
    // The first revision of all, by its own name: the traffic is there before the records are.
    let first = again.rig.publisher.snapshot().history(again.at.id).returns[1].label();
    again.back(Some(&first)).await;
    assert_eq!(
        again.rig.publisher.routes().answering(again.at.id).unwrap(),
        first
    );
    again.settle().await;
    again.settle().await;
    assert_eq!(
        (again.order(id).await.state, again.live().await),
        (State::RolledBack, Some(stage.v1))
    );
    assert_eq!(
        again.rig.publisher.routes().answering(again.at.id).unwrap(),
        first
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promoted_a_moment_ago_is_taken_back_too() {
    on_both(async |fresh: Arc<Fresh>| {
        let stage = Stage::new(&fresh.store).await;
        let id = stage.start(json!([{"weight": 60}])).await;
        stage.rig.controller.round().await.unwrap();
        assert!(stage.order(id).await.state.takes_traffic());
        // Another process ends it, and this one does not know yet.
        let other = stage.again(stage.v2).await;
        other.rig.publisher.tick().await;
        for _ in 0..50 {
            release_leases(&fresh.store).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            other.rig.controller.round().await.unwrap();
            if stage.order(id).await.state == State::Promoted {
                break;
            }
        }
        assert_eq!(stage.order(id).await.state, State::Promoted);
        assert_eq!(stage.live().await, Some(stage.v2));
        stage.back(None).await;
        assert_eq!(traffic(&stage.rig), alone("v1"));
        stage.settle().await;
        assert_eq!(stage.live().await, Some(stage.v1));
        assert_eq!(traffic(&stage.rig), alone("v1"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_while_models_load_it_is_kept_and_carried_out() {
    let fresh = Fresh::sqlite().await;
    let stage = Stage::new(&fresh.store).await;
    let rig = &stage.rig;
    let id = stage.start(json!([{"weight": 40}, {"pause": {}}])).await;
    rig.controller.round().await.unwrap();
    assert_eq!(traffic(rig), Ok(40.0));
    // Started again: what was published is known, and nothing of it is loaded.
    let next = || {
        let file = crate::publish::SnapshotFile::in_folder(rig.data.path().join("control"));
        let hosts = Arc::new(crate::sandbox::in_process::InProcess(Arc::clone(
            &rig.gateway,
        )));
        crate::publish::Publisher::new(
            Arc::clone(&rig.gateway),
            Arc::clone(&rig.replicas),
            hosts,
            file,
        )
    };
    let loading = next();
    let recorder = Recorder::new(Arc::clone(&loading), rig.data.path());
    let releases = Releases::new(Arc::clone(&loading), Arc::clone(&recorder), Arc::default());
    let mut restoring = Box::pin(loading.restore());
    while loading.snapshot().revisions.is_empty() {
        tokio::select! {
            biased;
            () = &mut restoring => unreachable!("it has loaded already"),
            () = std::future::ready(()) => {}
        }
    }
    let operator = &stage.people.operator;
    for _ in 0..2 {
        let told = releases.roll_back(operator, stage.at.id, "", None).await;
        let queued = matches!(
            told,
            Ok(TakenBackTo::Queued { .. } | TakenBackTo::Already(_))
        );
        assert!(queued, "{told:?}");
    }
    restoring.await;
    assert_eq!(traffic(rig), alone("v1"));
    // Killed once more.
    let after = next();
    let recorder = Recorder::new(Arc::clone(&after), rig.data.path());
    after.restore().await;
    assert_eq!(traffic(rig), alone("v1"));
    after.follow(store_of(rig));
    recorder.follow(store_of(rig), rig.deployments.clone());
    recorder.round().await;
    assert_eq!(stage.order(id).await.state, State::RollingBack);
    assert_eq!(traffic(rig), alone("v1"));
}

fn store_of(rig: &Rig) -> crate::store::Store {
    rig.store.clone()
}
