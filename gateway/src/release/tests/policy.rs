//! What of an upstream's answer and of a client's request is this server's to decide.

use serde_json::Value;

use super::answers::{CHAT, good, request, send};
use super::raw::{RawUpstream, Reply};
use super::rig::{Rig, whole};
use crate::config::{Config, RevisionHeader};

#[tokio::test]
async fn an_upstream_gives_no_orders_to_browsers_and_proxies() {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    rig.publish(rig.remote("v1", upstream.address).await);
    let orders = "access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n\
                  set-cookie: a=b\r\nx-accel-redirect: /secret\r\nlocation: http://10.0.0.5/\r\n\
                  content-type: application/json\r\nretry-after: 7\r\nx-their-own: 1\r\n";
    let body = r#"{"choices":[{"message":{"content":"x"}}]}"#;
    for status in [200, 400, 429] {
        upstream.answer_with(&Reply::whole(status, orders, body));
        let answer = send(&rig, CHAT, false).await;
        assert_eq!(answer.status, status);
        for dropped in [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "set-cookie",
            "x-accel-redirect",
            "location",
            "x-their-own",
        ] {
            assert!(!answer.headers.contains_key(dropped), "{dropped}");
        }
        assert_eq!(answer.headers["retry-after"], "7");
    }
}

#[tokio::test]
async fn a_body_that_can_be_read_in_two_ways_reaches_no_upstream() {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(good(CHAT, false)).await;
    rig.publish(rig.remote("v1", upstream.address).await);
    for (field, body) in [
        ("model", r#"{"model":"m","model":"x","messages":[]}"#),
        ("model", r#"{"model":"x","model":"m","messages":[]}"#),
        ("model", r#"{"model":"m","mod\u0065l":"x","messages":[]}"#),
        ("model", r#"{"model":"m","Model":"x","messages":[]}"#),
        ("model", r#"{"MODEL":"m","messages":[]}"#),
        (
            "stream",
            r#"{"model":"m","stream":false,"stream":true,"messages":[]}"#,
        ),
        ("stream", r#"{"model":"m","Stream":true,"messages":[]}"#),
        ("stream", r#"{"model":"m","stream":"true","messages":[]}"#),
        ("stream", r#"{"model":"m","stream":1,"messages":[]}"#),
    ] {
        let answer = whole(rig.post(CHAT, body, &[]).await).await;
        assert_eq!(answer.status, 400, "{body}");
        let error: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(error["error"]["param"], field, "{body}");
    }
    assert_eq!(upstream.seen(), 0);
    // What is nested is the upstream's business.
    let nested = r#"{"model":"m","metadata":{"model":"a","Model":"b","stream":7},"messages":[]}"#;
    assert_eq!(rig.post(CHAT, nested, &[]).await.status(), 200);
}

#[tokio::test]
async fn who_answered_can_be_kept_from_clients() {
    for (setting, is_shown) in [
        (RevisionHeader::All, true),
        (RevisionHeader::Operators, false),
        (RevisionHeader::None, false),
    ] {
        let mut config = Config::default();
        config.server.revision_header = setting;
        let rig = Rig::with(config).await;
        let (deployment, _) = rig.local("v1", "old");
        rig.publish(deployment);
        let answer = rig.ask("u", false).await;
        let shown = answer.headers.contains_key("x-sluice-revision");
        assert_eq!(shown, is_shown, "{setting:?}");
    }
}

#[tokio::test]
async fn a_twin_of_an_endpoint_is_judged_like_it() {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let (stable, _) = rig.local("v1", "old");
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    let silent = r#"{"choices":[{"index":0,"message":{"content":" "},"finish_reason":"stop"}]}"#;
    upstream.answer_with(&Reply::json(silent));
    for path in [CHAT, "/v1/chat/completions/"] {
        let answer = whole(rig.post(path, &request(CHAT, false), &[]).await).await;
        assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v2"));
        assert!(rig.outcome().await.empty, "{path}");
    }
    let counted =
        r#"sluice_requests_total{deployment="m",revision="v2",route="chat",status="200"} 2"#;
    assert!(rig.metrics().contains(counted), "{}", rig.metrics());
}
