//! Copies for the candidate.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;

use super::rig::{Manner, Rig, Upstream, until, whole};
use crate::config::Config;
use crate::release::Class;

fn shadows(rig: &Rig, result: &str, count: u32) -> bool {
    let counter = format!(r#"sluice_shadow_requests_total{{result="{result}"}} {count}"#);
    rig.metrics().lines().any(|line| line == counter)
}

#[tokio::test]
async fn both_answers_come_together_and_only_one_counts() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (local, _) = rig.local("v2", "newer");
    let upstream = Upstream::start(Manner::Says("newer")).await;
    let remote = rig.remote("v3", upstream.address).await;
    let mut asked = 0;
    for candidate in [&local, &remote] {
        rig.release(&stable, candidate, 0.0, 100.0);
        for stream in [false, true] {
            asked += 1;
            let answer = rig.ask("u", stream).await;
            assert_eq!(answer.revision(), "v1");
            let pair = rig.pair().await;
            assert_eq!((&*pair.release, &*pair.deployment), ("rel-1", "m"));
            assert_eq!(answer.headers["x-request-id"], *pair.request_id);
            assert_eq!((&*pair.live.revision, &*pair.live.text), ("v1", "old"));
            let shadow = &pair.candidate;
            assert_eq!(
                (&*shadow.revision, &*shadow.text),
                (&*candidate.revision, "newer")
            );
            assert_eq!(shadow.class, Class::Answered);
            assert!(shadow.status == 200 && shadow.whole);
            assert!(pair.greedy && !pair.request.is_empty());
            assert!(stream <= shadow.ttft.is_some());
            assert_eq!(
                rig.outcomes(1).await.len(),
                1,
                "the copy is no request of its own"
            );
        }
    }
    assert_eq!(rig.billed.requests.load(Relaxed), asked);
    assert!(shadows(&rig, "compared", 4));
    let metrics = rig.metrics();
    for revision in ["v2", "v3"] {
        let counted = format!(
            r#"vllm:generation_tokens_total{{model_name="m",deployment="m",revision="{revision}"}} 0"#
        );
        assert!(metrics.contains(&counted), "{metrics}");
        assert!(!metrics.contains(&format!(r#"revision="{revision}",route="chat""#)));
    }
}

#[tokio::test]
async fn a_candidate_that_fails_a_copy_fails_nothing_else() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = Upstream::start(Manner::HangsUp).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 0.0, 100.0);
    for manner in [Manner::HangsUp, Manner::Refuses(500), Manner::Begins] {
        *upstream.manner.lock() = manner;
        for stream in [false, true] {
            let answer = rig.ask("u", stream).await;
            assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v1"));
            let pair = rig.pair().await;
            assert_eq!(pair.live.class, Class::Answered);
            let class = pair.candidate.class;
            assert_eq!(class, Class::Failed, "{manner:?} {stream}");
        }
    }
}

#[tokio::test]
async fn only_the_shadowed_share_is_copied_and_no_failed_request() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, _) = rig.local("v2", "new");
    rig.release(&stable, &candidate, 0.0, 0.0);
    rig.ask("u", false).await;
    rig.release(&stable, &candidate, 0.0, 100.0);
    whole(rig.send_with(&json!({"temperature": 9})).await).await;
    rig.release(&stable, &candidate, 100.0, 100.0);
    rig.ask("u", false).await;
    rig.release(&stable, &candidate, 0.0, 100.0);
    rig.outcomes(3).await;
    rig.ask("u", false).await;
    let pair = rig.pair().await;
    assert_eq!(&*pair.live.text, "old");
    assert!(shadows(&rig, "compared", 1));
}

#[tokio::test]
async fn a_candidate_that_stands_still_holds_up_nobody_and_holds_little() {
    let mut config = Config::default();
    config.release.shadow_concurrency = 1;
    config.release.shadow_waiting = 2;
    let rig = Rig::with(config).await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, control) = rig.local("v2", "new");
    rig.release(&stable, &candidate, 0.0, 100.0);
    control.hold();
    rig.ask("first", false).await;
    let load = || candidate.target.model().map_or(0, |model| model.load());
    until(|| load() > 0).await;
    for user in 1..10 {
        let answer = rig.ask(&format!("user-{user}"), user % 2 == 0).await;
        assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v1"));
    }
    // One is at it, two wait.
    rig.outcomes(10).await;
    until(|| shadows(&rig, "full", 7)).await;
    // After a rollback those that wait are not sent any more.
    rig.publish(stable);
    control.release();
    until(|| shadows(&rig, "ended", 2) && shadows(&rig, "compared", 1)).await;
}

#[tokio::test]
async fn a_busy_server_and_a_large_request_are_not_copied() {
    let mut config = Config::default();
    config.limits.max_in_flight = 1;
    config.release.shadow_max_body = 1000;
    let rig = Rig::with(config).await;
    let (stable, _) = rig.local("v1", "old");
    let (candidate, _) = rig.local("v2", "new");
    rig.release(&stable, &candidate, 0.0, 100.0);
    // The request itself takes more than half of the places.
    assert_eq!(rig.ask("u", false).await.status, 200);
    assert!(shadows(&rig, "busy", 1));
    assert_eq!(rig.ask(&"u".repeat(2000), false).await.status, 200);
    assert!(shadows(&rig, "large", 1));
}
