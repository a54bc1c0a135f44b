//! One executor is lost.

use futures_util::future::join_all;
use serde_json::json;
use sluice_engine::backend::fake::Failure;

use http::Response;

use super::rig::{FAILED_STEPS, Fakes, SLOTS, quick};
use super::*;

fn restarts(replicas: &Replicas, place: usize) -> u64 {
    let replica = &replicas.all()[place];
    Cause::ALL
        .iter()
        .map(|&cause| replica.restarts(cause))
        .sum()
}

async fn comes_back(replicas: &Replicas, place: usize, times: u64) {
    until("a restart", || {
        restarts(replicas, place) == times && replicas.all()[place].state() == State::Serving
    })
    .await;
}

#[tokio::test]
async fn what_had_not_begun_goes_to_another_replica() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 2, &quick());
    bench.serve("m", &fakes.replicas);
    for control in &fakes.controls {
        control.hold();
    }
    fakes.controls[0].fail_at(0, Failure::Fatal);
    let all = join_all((0..12).map(|_| bench.chat("m")));
    let waiting = async {
        let load = || {
            fakes
                .replicas
                .all()
                .iter()
                .map(Replica::load)
                .collect::<Vec<_>>()
        };
        until("twelve requests, shared fairly", || load() == [6, 6]).await;
        let submitted = || -> u64 {
            fakes
                .replicas
                .all()
                .iter()
                .map(|it| it.model().load())
                .sum()
        };
        until("all of them in a queue", || submitted() == 12).await;
        for control in &fakes.controls {
            control.release();
        }
    };
    let (answers, ()) = tokio::join!(all, waiting);
    let failed: Vec<_> = answers.iter().filter(|it| it.status != 200).collect();
    // Only those that were in the step that took the executor with it.
    assert!((1..=SLOTS as usize).contains(&failed.len()), "{failed:?}");
    assert!(failed.iter().all(|it| it.status == 500), "{failed:?}");
    comes_back(&fakes.replicas, 0, 1).await;
    assert_eq!(restarts(&fakes.replicas, 1), 0);
    let labels = ["deployment=\"m\"", "device=\"0\"", "reason=\"executor\""];
    assert_eq!(bench.metric("sluice_executor_restarts_total", &labels), 1.0);
    assert_eq!(bench.metric("sluice_replica_up", &labels[..2]), 1.0);
    assert!(
        join_all((0..8).map(|_| bench.chat("m")))
            .await
            .iter()
            .all(|it| it.status == 200)
    );
    assert!(
        fakes
            .replicas
            .all()
            .iter()
            .all(|it| it.in_flight.load(Relaxed) == 0)
    );
    assert_eq!(bench.rack.resets(), 0, "its GPU was not lost");
}

#[tokio::test]
async fn streams_that_had_not_begun_go_to_another_replica_too() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 2, &quick());
    bench.serve("m", &fakes.replicas);
    for control in &fakes.controls {
        control.hold();
    }
    fakes.controls[1].fail_at(0, Failure::Panic);
    let body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Well?"}]});
    let all = join_all((0..8).map(|_| bench.post("/v1/chat/completions", &body)));
    let waiting = async {
        let submitted = || -> u64 {
            fakes
                .replicas
                .all()
                .iter()
                .map(|it| it.model().load())
                .sum()
        };
        until("all of them in a queue", || submitted() == 8).await;
        for control in &fakes.controls {
            control.release();
        }
    };
    let (answers, ()) = tokio::join!(all, waiting);
    let whole = answers
        .iter()
        .filter(|it| it.text.ends_with("data: [DONE]\n\n") && it.status == 200);
    assert!(whole.count() >= 8 - SLOTS as usize, "{answers:?}");
    comes_back(&fakes.replicas, 1, 1).await;
}

#[tokio::test]
async fn the_only_replica_is_missed_and_comes_back_by_itself() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 1, &quick());
    bench.serve("m", &fakes.replicas);
    assert_eq!(bench.chat("m").await.status, 200);
    bench.gate.shut();
    fakes.controls[0].fail_next(Failure::Fatal);
    assert_eq!(bench.chat("m").await.status, 500, "it was in the step");
    let refused = bench.chat("m").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "unavailable");
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("being restarted")
    );
    let seconds: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds));
    let ready = bench.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["reasons"],
        json!(["the model `m` has failed and is being restarted"])
    );
    let listed = bench.get("/v1/models").await.json()["data"][0].clone();
    assert_eq!(listed["trouble"], "has failed and is being restarted");
    let tokens = bench
        .post("/tokenize", &json!({"model": "m", "prompt": "abc"}))
        .await;
    assert_eq!(tokens.json()["count"], 3, "its tokenizer is still there");
    until("loading", || {
        matches!(fakes.replicas.all()[0].state(), State::Loading(_))
    })
    .await;
    let stats = bench.get("/api/v1/stats").await.json();
    assert_eq!(stats["deployments"][0]["replicas"][0]["state"], "loading");
    assert_eq!(bench.metric("sluice_replica_up", &["device=\"0\""]), 0.0);
    bench.gate.open();
    comes_back(&fakes.replicas, 0, 1).await;
    assert_eq!(bench.chat("m").await.status, 200);
    assert_eq!(bench.get("/health/ready").await.status, 200);
    assert!(
        bench.get("/v1/models").await.json()["data"][0]
            .get("trouble")
            .is_none()
    );
}

#[tokio::test]
async fn a_replica_that_cannot_be_loaded_again_is_given_up() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 1, &quick());
    bench.serve("m", &fakes.replicas);
    fakes.controls[0].fail_warmups(u64::MAX);
    fakes.controls[0].fail_next(Failure::Fatal);
    assert_eq!(bench.chat("m").await.status, 500);
    until("giving up", || fakes.replicas.given_up()).await;
    assert_eq!(fakes.replicas.all()[0].failed_restarts(), 3);
    assert_eq!(
        bench.metric("sluice_executor_restart_failures_total", &["device=\"0\""]),
        3.0
    );
    let refused = bench.chat("m").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["retry-after"]),
        (503, &"60".parse().unwrap())
    );
    assert!(
        refused.text.contains("not being restarted"),
        "{}",
        refused.text
    );
    let ready = bench.get("/health/ready").await;
    assert!(ready.text.contains("not being restarted"), "{}", ready.text);
    assert_eq!(fakes.controls[0].warmups(), 4, "nobody tries any more");
}

#[tokio::test]
async fn failed_steps_cost_their_requests_and_in_a_row_the_executor() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 1, &quick());
    bench.serve("m", &fakes.replicas);
    fakes.controls[0].fail_next(Failure::Step);
    assert_eq!(bench.chat("m").await.status, 500);
    assert_eq!(bench.chat("m").await.status, 200);
    assert_eq!(restarts(&fakes.replicas, 0), 0);
    fakes.controls[0].fail_all(Some(Failure::Step));
    for _ in 0..FAILED_STEPS {
        assert_eq!(bench.chat("m").await.status, 500);
    }
    fakes.controls[0].fail_all(None);
    comes_back(&fakes.replicas, 0, 1).await;
    assert_eq!(bench.chat("m").await.status, 200);
}

#[tokio::test]
async fn what_is_unloaded_while_it_is_loaded_again_stays_unloaded() {
    let bench = Bench::start().await;
    let Fakes { replicas, controls } = bench.fakes("m", 1, &quick());
    bench.serve("m", &replicas);
    bench.gate.shut();
    controls[0].fail_next(Failure::Fatal);
    assert_eq!(bench.chat("m").await.status, 500);
    until("loading", || {
        matches!(replicas.all()[0].state(), State::Loading(_))
    })
    .await;
    bench.serve_nothing();
    let set = Arc::downgrade(&replicas.0);
    drop(replicas);
    until("nobody holds it", || set.strong_count() == 0).await;
    bench.gate.open();
    until("the second load", || bench.rack.models.lock().len() == 2).await;
    let alive = || {
        bench
            .rack
            .models
            .lock()
            .iter()
            .filter(|it| it.1.strong_count() > 0)
            .count()
    };
    until("no model", || alive() == 0).await;
}

#[tokio::test]
async fn what_is_not_wanted_does_not_come_back_until_it_is() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 1, &quick());
    bench.serve("m", &fakes.replicas);
    // Lost, and then taken out of service in the middle of being loaded.
    bench.gate.shut();
    fakes.controls[0].fail_next(Failure::Fatal);
    assert_eq!(bench.chat("m").await.status, 500);
    until("loading", || {
        matches!(fakes.replicas.all()[0].state(), State::Loading(_))
    })
    .await;
    fakes.replicas.set_wanted(false);
    bench.gate.open();
    until("put off", || {
        matches!(fakes.replicas.all()[0].state(), State::Waiting(_))
    })
    .await;
    assert_eq!(
        (
            bench.chat("m").await.status.as_u16(),
            restarts(&fakes.replicas, 0)
        ),
        (503, 0)
    );
    fakes.replicas.set_wanted(true);
    comes_back(&fakes.replicas, 0, 1).await;
    assert_eq!(bench.chat("m").await.status, 200);
}

#[tokio::test]
async fn a_lease_counts_until_its_answer_is_over() {
    let bench = Bench::start().await;
    let fakes = bench.fakes("m", 2, &quick());
    let load = || {
        fakes
            .replicas
            .all()
            .iter()
            .map(Replica::load)
            .collect::<Vec<_>>()
    };
    let first = fakes.replicas.lease(Tried::default()).unwrap();
    let mut tried = Tried::default();
    tried.add(&first);
    let second = fakes.replicas.lease(tried).unwrap();
    tried.add(&second);
    assert_eq!(load(), [1, 1]);
    let none = fakes.replicas.lease(tried).unwrap_err();
    assert!(none.expected.is_some());
    let answer = first.follow(Response::new(crate::full("four")));
    let body = answer.into_body();
    assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(4));
    drop(second);
    assert_eq!(load().iter().sum::<u64>(), 1);
    drop(body);
    assert_eq!(load(), [0, 0]);
}
