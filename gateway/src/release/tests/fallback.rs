//! Where requests go, what becomes of those that a candidate fails, and what is heard.

use std::sync::atomic::Ordering::Relaxed;

use http_body_util::BodyExt as _;
use serde_json::json;
use sluice_engine::backend::fake::Failure;
use sluice_engine::request::FinishReason;
use tokio::net::TcpListener;

use super::rig::{Manner, Rig, Upstream, whole};
use crate::release::Class;
use crate::router::split::{Assignment, Side};

#[tokio::test]
async fn answers_outcomes_and_metrics_name_the_revision() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, _) = rig.local("v2", "new");
    rig.release(&stable, &candidate, 50.0, 0.0);
    for stream in [false, true] {
        let mut sides = [0, 0];
        for user in 0..40 {
            let answer = rig.ask(&format!("user-{user}"), stream).await;
            assert_eq!(answer.status, 200);
            let outcome = rig.outcome().await;
            assert_eq!(*outcome.revision, *answer.revision());
            let new = outcome.side == Side::Candidate;
            assert_eq!(answer.revision(), if new { "v2" } else { "v1" });
            if !stream {
                assert!(answer.text.contains(if new { "new" } else { "old" }));
            }
            assert_eq!((&*outcome.release, &*outcome.deployment), ("rel-1", "m"));
            assert_eq!(outcome.assignment, Assignment::Random);
            assert!((outcome.weight.share() - 0.5).abs() < 1e-9);
            assert_eq!((outcome.class, outcome.status), (Class::Answered, 200));
            assert!(!outcome.retried && !outcome.empty && !outcome.refused);
            assert_eq!(outcome.output_tokens, 4);
            assert_eq!(outcome.finish, Some(FinishReason::Stop));
            assert!(outcome.ttft.is_some_and(|ttft| ttft <= outcome.total));
            assert!(outcome.tpot.is_some());
            // The same unit again: the same side and the same hash.
            let again = rig.ask(&format!("user-{user}"), stream).await;
            assert_eq!(again.revision(), answer.revision());
            assert_eq!(rig.outcome().await.unit, outcome.unit);
            sides[outcome.side as usize] += 1;
        }
        assert!(sides[0] > 5 && sides[1] > 5, "{sides:?}");
    }
    let metrics = rig.metrics();
    assert!(metrics.contains(r#"sluice_release_weight{deployment="m",revision="v2"} 0.5"#));
    for revision in ["v1", "v2"] {
        let running = format!(
            r#"vllm:num_requests_running{{model_name="m",deployment="m",revision="{revision}"}} 0"#
        );
        assert!(metrics.contains(&running), "{metrics}");
    }
    // Errors of the client name it, too, and are its own.
    let refused = whole(rig.send_with(&json!({"temperature": 9})).await).await;
    assert_eq!(refused.status, 400);
    let outcome = rig.outcome().await;
    if outcome.retried {
        assert_eq!(outcome.class, Class::ClientFault);
        assert_eq!(refused.revision(), "v1");
    } else {
        assert_eq!(outcome.class, Class::Rejected);
        assert_eq!(*outcome.revision, *refused.revision());
    }
}

#[tokio::test]
async fn what_a_candidate_fails_before_its_first_token_stable_answers() {
    let rig = Rig::start().await;
    let stable = Upstream::start(Manner::Says("old")).await;
    let candidate = Upstream::start(Manner::HangsUp).await;
    let deployments = (
        rig.remote("v1", stable.address).await,
        rig.remote("v2", candidate.address).await,
    );
    rig.release(&deployments.0, &deployments.1, 100.0, 0.0);
    let mut retried = 0;
    for manner in [
        Manner::HangsUp,
        Manner::Refuses(500),
        Manner::Refuses(503),
        Manner::Refuses(504),
        // About our key, the model's name and our rate there.
        Manner::Refuses(401),
        Manner::Refuses(402),
        Manner::Refuses(403),
        Manner::Refuses(404),
        Manner::Refuses(407),
        Manner::Refuses(408),
        Manner::Refuses(429),
        Manner::Begins,
    ] {
        *candidate.manner.lock() = manner;
        for stream in [false, true] {
            let answer = rig.ask("u", stream).await;
            assert_eq!(answer.status, 200, "{manner:?}");
            assert_eq!(answer.revision(), "v1", "{manner:?}");
            assert!(answer.text.contains("old") && !answer.broken, "{manner:?}");
            assert!(!answer.text.contains("error"), "{}", answer.text);
            let outcome = rig.outcome().await;
            assert!(outcome.retried, "{manner:?}");
            assert_eq!(&*outcome.revision, "v2");
            let class = match manner {
                Manner::Refuses(504) => Class::Timeout,
                _ => Class::Failed,
            };
            assert_eq!(outcome.class, class, "{manner:?}");
            retried += 1;
        }
    }
    let counter =
        format!(r#"sluice_release_retries_total{{deployment="m",revision="v2"}} {retried}"#);
    assert!(rig.metrics().contains(&counter));
    let requests = format!(
        r#"sluice_requests_total{{deployment="m",revision="v1",route="chat",status="200"}} {retried}"#
    );
    assert!(rig.metrics().contains(&requests), "{}", rig.metrics());
}

#[tokio::test]
async fn a_candidate_that_is_not_there_is_no_error_of_the_client() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let candidate = rig.remote("v2", gone.local_addr().unwrap()).await;
    drop(gone);
    rig.release(&stable, &candidate, 100.0, 0.0);
    let answer = rig.ask("u", true).await;
    assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v1"));
    let outcome = rig.outcome().await;
    assert_eq!(
        (outcome.class, outcome.status, outcome.retried),
        (Class::Failed, 502, true)
    );
}

#[tokio::test]
async fn an_engine_that_fails_is_replaced_and_nobody_pays_twice() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, control) = rig.local("v2", "newer");
    rig.release(&stable, &candidate, 100.0, 0.0);
    let alone = rig.ask("u", false).await;
    assert_eq!(alone.revision(), "v2");
    rig.outcome().await;
    let prompt = rig.billed.tokens.load(Relaxed) - "newer".len() - 1;
    for stream in [false, true] {
        let billed = rig.billed.tokens.load(Relaxed);
        // Not streamed, it fails in the middle of the answer.
        let step = control.steps() + if stream { 0 } else { 3 };
        control.fail_at(step, Failure::Step);
        let answer = rig.ask("u", stream).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.revision(), "v1");
        let outcome = rig.outcome().await;
        assert!(outcome.retried && outcome.class == Class::Failed);
        assert_eq!(outcome.ttft, None, "the candidate has none");
        let paid = rig.billed.tokens.load(Relaxed) - billed;
        assert_eq!(paid, prompt + "old".len() + 1);
    }
}

#[tokio::test]
async fn what_only_the_candidate_refuses_stable_answers() {
    let rig = Rig::start().await;
    let stable = Upstream::start(Manner::Says("old")).await;
    let candidate = Upstream::start(Manner::Refuses(400)).await;
    let deployments = (
        rig.remote("v1", stable.address).await,
        rig.remote("v2", candidate.address).await,
    );
    rig.release(&deployments.0, &deployments.1, 100.0, 0.0);
    for status in [400, 405, 409, 413, 415, 418, 422, 451] {
        *candidate.manner.lock() = Manner::Refuses(status);
        for stream in [false, true] {
            *stable.manner.lock() = Manner::Says("old");
            let answer = rig.ask("u", stream).await;
            assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v1"));
            let outcome = rig.outcome().await;
            assert_eq!((outcome.class, outcome.status), (Class::Rejected, status));
            assert!(outcome.retried && outcome.stable_answered);
            // Both say so: then the request was at fault.
            *stable.manner.lock() = Manner::Refuses(422);
            let answer = rig.ask("u", stream).await;
            assert_eq!((answer.status.as_u16(), answer.revision()), (422, "v1"));
            let outcome = rig.outcome().await;
            assert_eq!((outcome.class, outcome.retried), (Class::ClientFault, true));
        }
    }
    // About our own account, of both.
    *candidate.manner.lock() = Manner::Refuses(404);
    *stable.manner.lock() = Manner::Refuses(404);
    assert_eq!(rig.ask("u", false).await.status, 404);
    let outcome = rig.outcome().await;
    assert_eq!((outcome.class, outcome.retried), (Class::ClientFault, true));
    // What stable refuses is told as that.
    rig.release(&deployments.0, &deployments.1, 0.0, 0.0);
    *stable.manner.lock() = Manner::Refuses(400);
    assert_eq!(rig.ask("u", false).await.status, 400);
    let outcome = rig.outcome().await;
    assert_eq!((outcome.class, outcome.retried), (Class::Rejected, false));
    *stable.manner.lock() = Manner::Refuses(402);
    assert_eq!(rig.ask("u", false).await.status, 502);
    assert_eq!(rig.outcome().await.class, Class::Failed);
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_first_token_is_the_candidates() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = Upstream::start(Manner::Breaks).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    let answer = rig.ask("u", true).await;
    assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v2"));
    assert!(
        answer.broken && answer.text.contains("upstream_error"),
        "{}",
        answer.text
    );
    let outcome = rig.outcome().await;
    assert_eq!((outcome.class, outcome.retried), (Class::Failed, false));
    assert!(outcome.ttft.is_some());
}

#[tokio::test]
async fn a_rollback_takes_new_requests_and_leaves_those_in_flight() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, control) = rig.local("v2", "a long new answer");
    rig.release(&stable, &candidate, 100.0, 0.0);
    control.hold();
    control.allow(4);
    let mut begun = rig.send("u", true).await;
    assert_eq!(begun.headers()["x-sluice-revision"], "v2");
    let first = begun.body_mut().frame().await.unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(b"data: "));
    rig.publish(stable);
    assert_eq!(rig.ask("u", true).await.revision(), "v1");
    control.release();
    let rest = whole(begun).await;
    assert!(rest.text.ends_with("data: [DONE]\n\n") && !rest.broken);
    let outcome = rig.outcome().await;
    assert_eq!((&*outcome.revision, outcome.class), ("v2", Class::Answered));
    assert_eq!(outcome.output_tokens, "a long new answer".len() + 1);
}

#[tokio::test]
async fn clients_that_leave_are_no_failures() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, control) = rig.local("v2", "a long new answer");
    rig.release(&stable, &candidate, 100.0, 0.0);
    control.hold();
    control.allow(4);
    let mut begun = rig.send("u", true).await;
    begun.body_mut().frame().await.unwrap().unwrap();
    drop(begun);
    control.release();
    // The whole answer may have been handed over before the hang-up was seen.
    let outcome = rig.outcome().await;
    assert!(
        matches!(outcome.class, Class::Cancelled | Class::Answered),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_heard() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = Upstream::start(Manner::Says(" ")).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    for stream in [false, true] {
        *upstream.manner.lock() = Manner::Says(" ");
        rig.ask("u", stream).await;
        assert!(rig.outcome().await.empty);
        *upstream.manner.lock() = Manner::Says("I'm sorry, but I can't help with that.");
        rig.ask("u", stream).await;
        assert!(rig.outcome().await.refused);
    }
    *upstream.manner.lock() = Manner::Says("Here it is: {}");
    let format = json!({"response_format": {"type": "json_object"}});
    whole(rig.send_with(&format).await).await;
    assert!(rig.outcome().await.violation);
    rig.ask("u", false).await;
    let outcome = rig.outcome().await;
    assert!(!outcome.violation && !outcome.empty && !outcome.refused);
}
