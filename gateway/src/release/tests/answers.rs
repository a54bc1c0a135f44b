//! What is no answer: by real HTTP, one case a kind of fault, for each endpoint and both forms.

use std::time::Duration;

use serde_json::{Value, json};

use super::raw::{RawUpstream, Reply};
use super::rig::{Answer, Rig, until, whole};
use crate::release::Class;

pub(super) const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const VECTORS: &str = "/v1/embeddings";
const SCORES: &str = "/v1/rerank";

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"good\"}}]}\n\n";
const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const SAID: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"good\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const FAULT: &str = "data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\n";

/// An answer as it should be.
pub(super) fn good(path: &str, stream: bool) -> Reply {
    match (path, stream) {
        (CHAT, false) => Reply::json(
            r#"{"choices":[{"index":0,"message":{"content":"good"},"finish_reason":"stop"}]}"#,
        ),
        (CHAT, true) => Reply::events(&[ROLE, WORD, STOP, DONE]),
        (TEXT, false) => Reply::json(r#"{"choices":[{"index":0,"text":"good"}]}"#),
        (TEXT, true) => Reply::events(&[SAID, DONE]),
        (VECTORS, _) => Reply::json(r#"{"data":[{"index":0,"embedding":[0.5]}],"id":"good"}"#),
        (SCORES, _) => Reply::json(r#"{"results":[{"index":0,"relevance_score":1}],"id":"good"}"#),
        other => panic!("{other:?}"),
    }
}

pub(super) fn request(path: &str, stream: bool) -> String {
    let mut body = match path {
        CHAT => json!({"messages": [{"role": "user", "content": "Hi"}]}),
        TEXT => json!({"prompt": "Hi"}),
        VECTORS => json!({"input": "Hi"}),
        _ => json!({"query": "Hi", "documents": ["a"]}),
    };
    body["model"] = "m".into();
    if stream {
        body["stream"] = true.into();
    }
    body.to_string()
}

/// What is no answer of any endpoint, and by what it is known.
fn faults_of_all() -> Vec<(&'static str, Reply)> {
    let json = "content-type: application/json\r\n";
    let good = r#"{"choices":[{"index":0,"message":{"content":"x"},"text":"x"}]}"#;
    let redirect = |status| Reply::whole(status, "location: http://10.0.0.5/login\r\n", "");
    vec![
        (
            "media_type",
            Reply::whole(200, "content-type: text/html\r\n", "<html>login</html>"),
        ),
        (
            "media_type",
            Reply::whole(200, "content-type: text/plain\r\n", good),
        ),
        (
            "status",
            Reply::raw(&["HTTP/1.1 204 X\r\nconnection: close\r\n\r\n"]),
        ),
        ("status", Reply::whole(205, "", "")),
        ("status", Reply::whole(206, json, good)),
        (
            "status",
            Reply::raw(&["HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"]),
        ),
        ("status", redirect(301)),
        ("status", redirect(302)),
        ("status", redirect(303)),
        ("status", redirect(307)),
        ("status", redirect(308)),
        ("status", Reply::whole(600, json, good)),
        ("status", Reply::whole(999, json, good)),
        (
            "encoding",
            Reply::whole(200, &format!("{json}content-encoding: gzip\r\n"), good),
        ),
    ]
}

/// The same for an answer in one piece.
fn faults_of_whole(path: &str) -> Vec<(&'static str, Reply)> {
    let mut faults = faults_of_all();
    let bodies = [
        ("empty", ""),
        ("json", "<html>login</html>"),
        ("json", r#"{"id": "x", "choices": [{"index": 0, "mess"#),
        ("json", "OK"),
        ("error", r#"{"error":{"message":"engine died","code":500}}"#),
        ("error", r#"{"error":"engine died"}"#),
        ("error", r#"{"object":"error","message":"engine died"}"#),
        ("shape", "{}"),
        ("shape", "null"),
        ("shape", r#"{"choices":[],"data":[],"results":[]}"#),
        ("shape", r#"{"choices":null,"data":null,"results":null}"#),
        ("shape", r#"{"choices":[{}],"data":[{}],"results":[{}]}"#),
        ("shape", r#"{"choices":7,"data":"a","results":true}"#),
    ];
    faults.extend(bodies.map(|(kind, body)| (kind, Reply::json(body))));
    let twice = "{\"choices\":[{\"message\":{\"content\":\"x\"}}]} {}";
    faults.push(("json", Reply::json(twice)));
    faults.push(("media_type", Reply::events(&[ROLE, WORD, STOP, DONE])));
    match path {
        VECTORS => faults.extend([
            ("json", Reply::json(r#"{"data":[{"embedding":[NaN]}]}"#)),
            ("shape", Reply::json(r#"{"data":[{"embedding":[null]}]}"#)),
            ("shape", Reply::json(r#"{"data":[{"embedding":[]}]}"#)),
        ]),
        SCORES => faults.push(("shape", Reply::json(r#"{"results":[{"index":0}]}"#))),
        _ => {}
    }
    faults
}

/// The same for a stream, before its first output.
fn faults_of_streams(path: &str) -> Vec<(&'static str, Reply)> {
    let mut faults = faults_of_all();
    let other = if path == CHAT { SAID } else { WORD };
    let named = "event: error\ndata: {\"message\":\"engine died\"}\n\n";
    let role = if path == CHAT { ROLE } else { ": hello\n\n" };
    faults.extend([
        ("empty", Reply::events(&[])),
        ("empty", Reply::events(&[": ping\n\n"])),
        ("empty", Reply::events(&[DONE])),
        ("error", Reply::events(&[FAULT, DONE])),
        ("error", Reply::events(&[role, FAULT, DONE])),
        ("error", Reply::events(&[named])),
        ("json", Reply::events(&["data: hello\n\n", DONE])),
        ("json", Reply::events(&["data: {\"choices\":[{\n\n", DONE])),
        ("shape", Reply::events(&[other, DONE])),
        (
            "shape",
            Reply::events(&["data: {\"choices\":[]}\n\n", DONE]),
        ),
        (
            "shape",
            Reply::events(&["data: {\"choices\":[{}]}\n\n", DONE]),
        ),
        (
            "media_type",
            Reply::json(r#"{"choices":[{"message":{"content":"x"}}]}"#),
        ),
    ]);
    if path == CHAT {
        faults.push(("unfinished", Reply::events(&[ROLE])));
    }
    faults
}

pub(super) async fn send(rig: &Rig, path: &str, stream: bool) -> Answer {
    whole(rig.post(path, &request(path, stream), &[]).await).await
}

fn faults(path: &str, stream: bool) -> Vec<(&'static str, Reply)> {
    match stream {
        true => faults_of_streams(path),
        false => faults_of_whole(path),
    }
}

const FORMS: [(&str, bool); 6] = [
    (CHAT, false),
    (CHAT, true),
    (TEXT, false),
    (TEXT, true),
    (VECTORS, false),
    (SCORES, false),
];

#[tokio::test]
async fn what_is_no_answer_of_a_candidate_stable_answers() {
    let rig = Rig::start().await;
    let stable = RawUpstream::start(Reply::raw(&[])).await;
    let candidate = RawUpstream::start(Reply::raw(&[])).await;
    let deployments = (
        rig.remote("v1", stable.address).await,
        rig.remote("v2", candidate.address).await,
    );
    rig.release(&deployments.0, &deployments.1, 100.0, 0.0);
    for (path, stream) in FORMS {
        stable.answer_with(&good(path, stream));
        for (kind, reply) in faults(path, stream) {
            candidate.answer_with(&reply);
            let answer = send(&rig, path, stream).await;
            let what = format!("{path} {stream} {kind} {reply:?}");
            assert_eq!(answer.status, 200, "{what}");
            assert!(answer.text.contains("good") && !answer.broken, "{what}");
            assert!(!answer.text.contains("error"), "{what}");
            assert_eq!(answer.revision(), "v1", "{what}");
            let outcome = rig.outcome().await;
            assert_eq!(outcome.class, Class::Broken, "{what}");
            assert!(outcome.retried && outcome.stable_answered, "{what}");
            assert_eq!(&*outcome.revision, "v2");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_reaches_no_client_without_a_release_either() {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let deployment = rig.remote("v1", upstream.address).await;
    rig.publish(deployment);
    for (path, stream) in FORMS {
        for (kind, reply) in faults(path, stream) {
            upstream.answer_with(&reply);
            let answer = send(&rig, path, stream).await;
            let what = format!("{path} {stream} {kind} {reply:?}: {}", answer.text);
            assert_eq!(answer.status, 502, "{what}");
            assert!(answer.text.contains("upstream_error"), "{what}");
            assert!(!answer.headers.contains_key("location"), "{what}");
            let error: Value = serde_json::from_str(&answer.text).unwrap();
            assert_eq!(error["error"]["type"], "server_error", "{what}");
        }
        upstream.answer_with(&good(path, stream));
        let answer = send(&rig, path, stream).await;
        assert!(answer.status == 200 && answer.text.contains("good"));
    }
}

/// Events of a stream, each of which is JSON or the end.
pub(super) fn events(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let events = lines.map(|line| line.strip_prefix("data:").unwrap().trim().to_owned());
    let events: Vec<String> = events.collect();
    for event in &events {
        let is_json = serde_json::from_str::<Value>(event).is_ok();
        assert!(is_json || event == "[DONE]", "{event}");
    }
    events
}

#[tokio::test]
async fn what_breaks_behind_the_first_output_ends_with_an_error_event_of_its_own() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    let half = &WORD[..40];
    for (class, reply) in [
        (Class::Broken, Reply::events(&[ROLE, WORD])),
        (Class::Broken, Reply::events(&[ROLE, WORD, half])),
        (Class::Broken, Reply::events(&[ROLE, WORD, FAULT])),
        (Class::Broken, Reply::events(&[ROLE, WORD, FAULT, DONE])),
        (
            Class::Broken,
            Reply::events(&[ROLE, WORD, "data: hello\n\n", DONE]),
        ),
        (Class::Broken, Reply::events(&[ROLE, WORD, SAID, DONE])),
        (Class::Failed, Reply::begun(&[ROLE, WORD])),
        (Class::Failed, Reply::begun(&[ROLE, WORD, half])),
        (Class::Failed, Reply::begun(&[ROLE, WORD, STOP, half])),
    ] {
        upstream.answer_with(&reply);
        let answer = send(&rig, CHAT, true).await;
        assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v2"));
        let events = events(&answer.text);
        assert!(
            events.iter().any(|event| event.contains("good")),
            "{reply:?}"
        );
        let told = events.iter().filter(|event| event.contains("\"error\""));
        assert_eq!(told.count(), 1, "{reply:?} {}", answer.text);
        let outcome = rig.outcome().await;
        assert_eq!(
            (outcome.class, outcome.retried),
            (class, false),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_whose_choices_have_ended_is_whole() {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let (stable, _) = rig.local("v1", "old");
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    for reply in [
        Reply::events(&[ROLE, WORD, STOP]),
        Reply::events(&[ROLE, WORD, STOP, usage]),
        Reply::events(&[ROLE, WORD, STOP, "data: [DONE]\n"]),
        Reply::events(&[ROLE, WORD, STOP, DONE]),
        Reply::events(&[ROLE, WORD, DONE]),
    ] {
        upstream.answer_with(&reply);
        let answer = send(&rig, CHAT, true).await;
        assert!(!answer.broken, "{reply:?}");
        assert_eq!(events(&answer.text).last().unwrap(), "[DONE]", "{reply:?}");
        assert_eq!(answer.text.matches("[DONE]").count(), 1, "{reply:?}");
        let outcome = rig.outcome().await;
        assert_eq!((outcome.class, outcome.retried), (Class::Answered, false));
    }
}

#[tokio::test]
async fn another_upstream_answers_and_the_one_that_does_not_is_left_alone() {
    let rig = Rig::start().await;
    for (path, stream) in [(CHAT, false), (CHAT, true), (VECTORS, false)] {
        let (_, fault) = faults(path, stream).into_iter().last().unwrap();
        let bad = RawUpstream::start(fault).await;
        let fine = RawUpstream::start(good(path, stream)).await;
        let (deployment, pool) = rig.balanced("v1", &[bad.address, fine.address]).await;
        rig.publish(deployment);
        while !pool.upstreams()[0].is_ejected() {
            let answer = send(&rig, path, stream).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(answer.text.contains("good"));
        }
        let seen = bad.seen();
        send(&rig, path, stream).await;
        assert_eq!(bad.seen(), seen);
        assert!(!pool.upstreams()[1].is_ejected());
    }
}

#[tokio::test]
async fn clients_that_leave_before_anything_came_are_told_apart() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = RawUpstream::start(Reply::raw(&[]).silent()).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    let asked = [
        (CHAT, false, Reply::raw(&[]).silent()),
        (CHAT, true, Reply::raw(&[]).silent()),
        (CHAT, true, Reply::begun(&[ROLE]).silent()),
        (VECTORS, false, Reply::raw(&[]).silent()),
    ];
    for (before, (path, stream, reply)) in asked.into_iter().enumerate() {
        upstream.answer_with(&reply);
        let body = request(path, stream);
        let leaving = rig.post(path, &body, &[]);
        let left = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                _ = leaving => panic!("nothing is sent"),
                () = until(|| upstream.seen() > before) => {}
            }
        });
        left.await.unwrap();
        let outcome = rig.outcome().await;
        assert_eq!((outcome.class, outcome.retried), (Class::Abandoned, false));
        assert_eq!(&*outcome.revision, "v2");
    }
}

#[tokio::test]
async fn a_deadline_of_the_clients_own_is_nobodys_fault() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = RawUpstream::start(Reply::raw(&[]).silent()).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 100.0, 0.0);
    for (stream, reply) in [
        (false, Reply::raw(&[]).silent()),
        (true, Reply::begun(&[ROLE]).silent()),
        (true, Reply::begun(&[ROLE, WORD]).silent()),
    ] {
        upstream.answer_with(&reply);
        let hurried = [("x-request-timeout-ms", "60")];
        let answer = whole(rig.post(CHAT, &request(CHAT, stream), &hurried).await).await;
        assert!(answer.status == 504 || answer.text.contains("deadline"));
        let outcome = rig.outcome().await;
        assert_eq!(
            (outcome.class, outcome.retried),
            (Class::OwnDeadline, false)
        );
    }
}

#[tokio::test]
async fn copies_are_judged_as_live_requests_are() {
    let rig = Rig::start().await;
    let (stable, _) = rig.local("v1", "old");
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let candidate = rig.remote("v2", upstream.address).await;
    rig.release(&stable, &candidate, 0.0, 100.0);
    let json = "content-type: application/json\r\n";
    let refuses = |status| Reply::whole(status, json, r#"{"error":{}}"#);
    for (class, reply) in [
        (Class::Failed, refuses(401)),
        (Class::Failed, refuses(402)),
        (Class::Failed, refuses(403)),
        (Class::Failed, refuses(404)),
        (Class::Failed, refuses(408)),
        (Class::Failed, refuses(429)),
        (Class::Failed, refuses(500)),
        (Class::Timeout, refuses(504)),
        (Class::Rejected, refuses(400)),
        (Class::Rejected, refuses(422)),
        (Class::Broken, refuses(302)),
        (Class::Broken, refuses(200)),
        (Class::Broken, Reply::json("")),
        (Class::Answered, good(CHAT, false)),
    ] {
        upstream.answer_with(&reply);
        let answer = send(&rig, CHAT, false).await;
        assert_eq!((answer.status.as_u16(), answer.revision()), (200, "v1"));
        rig.outcome().await;
        let pair = rig.pair().await;
        assert_eq!(pair.candidate.class, class, "{reply:?}");
    }
}
