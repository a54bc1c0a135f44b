//! What requests to upstreams cost, however they end, and what their clients see: by real HTTP.

use std::net::SocketAddr;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::answers::{CHAT, events, request, send};
use super::raw::{RawUpstream, Reply};
use super::rig::{Answer, Rig, whole};

const TEXT: &str = "/v1/completions";
const ROLE: &str = "data: {\"model\":\"theirs\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str =
    "data: {\"model\":\"theirs\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"中文\"}}]}\n\n";
const STOP: &str = "data: {\"model\":\"theirs\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"model\":\"theirs\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

async fn rig() -> (Rig, RawUpstream) {
    let rig = Rig::start().await;
    let upstream = RawUpstream::start(Reply::raw(&[])).await;
    let deployment = rig.remote("v1", upstream.address).await;
    rig.publish(deployment);
    (rig, upstream)
}

async fn ask(rig: &Rig, path: &str, stream: bool) -> ((usize, usize), Answer) {
    let mut answer = None;
    let billed = rig
        .billed(async { answer = Some(send(rig, path, stream).await) })
        .await;
    (billed, answer.unwrap())
}

/// What a prompt is taken for that no upstream has counted.
const PROMPT: usize = 5;

#[tokio::test]
async fn a_stream_costs_what_its_usage_says_and_shows_none_that_was_not_asked_for() {
    let (rig, upstream) = rig().await;
    upstream.answer_with(&Reply::events(&[ROLE, WORD, STOP, USAGE, DONE]));
    let (billed, answer) = ask(&rig, CHAT, true).await;
    assert_eq!(billed, (1000, 500));
    let expected = [ROLE, WORD, STOP, DONE].concat().replace("theirs", "m");
    assert_eq!(answer.text, expected);
    // Without any, by what has passed: two events.
    upstream.answer_with(&Reply::events(&[ROLE, WORD, WORD, STOP, DONE]));
    let ((prompt, completion), _) = ask(&rig, CHAT, true).await;
    assert_eq!((prompt, completion), (PROMPT, 3));
}

#[tokio::test]
async fn usage_counts_wherever_it_stands() {
    let (rig, upstream) = rig().await;
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 500});
    let choice = |text: String| json!([{"message": {"content": text}, "finish_reason": "stop"}]);
    let tail: Vec<u32> = (10_000..13_000).collect();
    for text in [20_000, 5 << 20] {
        for body in [
            json!({"usage": usage, "choices": choice("x".repeat(text)), "model": "theirs"}),
            json!({"model": "theirs", "choices": choice("x".repeat(text)), "usage": usage, "tail": tail}),
        ] {
            upstream.answer_with(&Reply::json(&body.to_string()));
            let (billed, answer) = ask(&rig, CHAT, false).await;
            assert_eq!(billed, (1000, 500));
            let told: Value = serde_json::from_str(&answer.text).unwrap();
            assert_eq!(told["model"], "m");
            assert_eq!(told["choices"], body["choices"]);
            assert_eq!(told["usage"], body["usage"]);
        }
    }
    upstream.answer_with(&Reply::json(
        &json!({"choices": choice("x".repeat(400))}).to_string(),
    ));
    assert_eq!(ask(&rig, CHAT, false).await.0, (PROMPT, 100));
}

#[tokio::test]
async fn vectors_and_scores_cost_what_their_usage_says() {
    let (rig, upstream) = rig().await;
    let vectors = json!({"data": [{"embedding": [0.5]}], "model": "theirs"});
    let scores = json!({"results": [{"relevance_score": 0.5}], "model": "theirs"});
    for (path, body, usage, prompt) in [
        (
            "/v1/embeddings",
            &vectors,
            json!({"prompt_tokens": 9, "total_tokens": 9}),
            9,
        ),
        ("/v1/embeddings", &vectors, json!(null), 1),
        ("/v1/rerank", &scores, json!({"total_tokens": 56}), 56),
        ("/v1/rerank", &scores, json!(null), 1),
    ] {
        let mut body = body.clone();
        body["usage"] = usage;
        upstream.answer_with(&Reply::json(&body.to_string()));
        let (billed, answer) = ask(&rig, path, false).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains("\"model\":\"m\""), "{}", answer.text);
        let slack = usize::from(body["usage"].is_null()) * 8;
        assert!(
            (prompt..=prompt + slack).contains(&billed.0) && billed.1 == 0,
            "{path} {billed:?}"
        );
    }
    upstream.answer_with(&Reply::json(r#"{"tokens":[1,2],"count":2}"#));
    assert_eq!(ask(&rig, "/tokenize", false).await.0, (0, 0));
}

/// A stream that is cut off behind any of its bytes: what the client gets are whole events and an
/// error event, or an error in place of an answer; and what has come is paid for.
#[tokio::test]
async fn a_cut_at_any_byte_leaves_a_stream_that_parses() {
    let (rig, upstream) = rig().await;
    let all = [ROLE, WORD, WORD, STOP, USAGE, DONE].concat();
    let mut said = 0;
    for cut in 0..all.len() {
        let mut reply = Reply::begun(&[]);
        let bytes = &all.as_bytes()[..cut];
        if cut > 0 {
            let mut chunk = format!("{cut:x}\r\n").into_bytes();
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            reply.pieces.push(chunk);
        }
        upstream.answer_with(&reply);
        let (billed, answer) = ask(&rig, CHAT, true).await;
        let words = bytes
            .windows(WORD.len())
            .filter(|it| it == &WORD.as_bytes())
            .count();
        if words == 0 {
            assert_eq!((answer.status.as_u16(), billed), (502, (0, 0)), "{cut}");
            continue;
        }
        assert_eq!(answer.status, 200, "{cut}");
        let events = events(&answer.text);
        let errors = events.iter().filter(|it| it.contains("\"error\"")).count();
        assert_eq!(errors, 1, "{cut}: {}", answer.text);
        assert!(
            events.last().unwrap().contains("\"error\"") && answer.broken,
            "{cut}"
        );
        let counted = memchr::memmem::find(bytes, USAGE.as_bytes()).is_some();
        let expected = match counted {
            true => (1000, 500),
            false => (PROMPT, (words * "中文".len()).div_ceil(4).max(words)),
        };
        assert_eq!(billed, expected, "{cut}");
        assert!(billed.1 >= said);
        said = billed.1;
    }
}

/// A client that leaves after any number of events.
#[tokio::test]
async fn a_client_that_leaves_pays_for_what_has_come() {
    let (rig, upstream) = rig().await;
    let body = request(CHAT, true);
    for words in 0..4 {
        let mut events = vec![ROLE];
        events.extend(std::iter::repeat_n(WORD, words));
        upstream.answer_with(&Reply::begun(&events).silent());
        let seen = upstream.seen();
        let billed = rig
            .billed(async {
                let asked = rig.post(CHAT, &body, &[]);
                if words == 0 {
                    tokio::select! {
                        _ = asked => panic!("nothing is sent"),
                        () = super::rig::until(|| upstream.seen() > seen) => {}
                    }
                    return;
                }
                let mut stream = asked.await.into_body();
                let mut got = String::new();
                while got.matches("中文").count() < words {
                    let piece = stream.frame().await.unwrap().unwrap().into_data().unwrap();
                    got += std::str::from_utf8(&piece).unwrap();
                }
            })
            .await;
        let said = (words * "中文".len()).div_ceil(4);
        assert_eq!(billed, (PROMPT, said), "{words}");
    }
    // Right behind the end, as clients do.
    upstream.answer_with(&Reply::begun(&[ROLE, WORD, STOP, USAGE, DONE]).silent());
    let billed = rig
        .billed(async {
            let mut stream = rig.post(CHAT, &body, &[]).await.into_body();
            let mut got = String::new();
            while !got.contains("[DONE]") {
                let piece = stream.frame().await.unwrap().unwrap().into_data().unwrap();
                got += std::str::from_utf8(&piece).unwrap();
            }
        })
        .await;
    assert_eq!(billed, (1000, 500));
}

#[tokio::test]
async fn whoever_is_not_waited_for_has_computed_the_prompt() {
    let (rig, upstream) = rig().await;
    for (stream, reply, said) in [
        (false, Reply::raw(&[]).silent(), 0),
        (true, Reply::begun(&[ROLE]).silent(), 0),
        (true, Reply::begun(&[ROLE, WORD]).silent(), 2),
    ] {
        upstream.answer_with(&reply);
        let hurried = [("x-request-timeout-ms", "60")];
        let billed = rig
            .billed(async {
                drop(whole(rig.post(CHAT, &request(CHAT, stream), &hurried).await).await);
            })
            .await;
        assert_eq!(billed, (PROMPT, said), "{reply:?}");
    }
    // What an upstream refuses, or does not answer, costs nothing.
    let json = "content-type: application/json\r\n";
    for reply in [
        Reply::whole(400, json, r#"{"error":{"message":"no"}}"#),
        Reply::whole(500, json, r#"{"error":{"message":"no"}}"#),
        Reply::json(""),
        Reply::raw(&[]),
    ] {
        upstream.answer_with(&reply);
        assert_eq!(ask(&rig, CHAT, false).await.0, (0, 0), "{reply:?}");
        assert_eq!(ask(&rig, TEXT, true).await.0, (0, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn nothing_of_the_inside_reaches_a_client() {
    let (rig, upstream) = rig().await;
    let address: SocketAddr = upstream.address;
    let head = "content-type: application/json\r\nserver: vllm\r\nx-internal-host: a\r\n\
        set-cookie: a=b\r\nwww-authenticate: Bearer realm=\"10.0.0.5\"\r\nlocation: http://10.0.0.5/\r\n";
    let said =
        format!(r#"{{"error":{{"message":"sk-abcdefgh1 at {address}: bad n","param":"n"}}}}"#);
    for (status, expected) in [
        (401, 502),
        (402, 502),
        (403, 502),
        (407, 502),
        (307, 502),
        (400, 400),
        (404, 404),
        (429, 429),
        (500, 500),
        (503, 503),
    ] {
        upstream.answer_with(&Reply::whole(status, head, &said));
        for stream in [false, true] {
            let answer = send(&rig, CHAT, stream).await;
            assert_eq!(answer.status, expected, "{status}");
            let told: Value = serde_json::from_str(&answer.text).unwrap();
            let message = told["error"]["message"].as_str().unwrap();
            assert_eq!(
                message.contains("bad n"),
                (400..500).contains(&expected),
                "{message}"
            );
            let all = format!("{} {:?}", answer.text, answer.headers);
            for secret in [
                "127.0.0.1",
                "10.0.0.5",
                "sk-abc",
                "vllm",
                "x-internal",
                "a=b",
            ] {
                assert!(!all.contains(secret), "{status}: {secret} in {all}");
            }
        }
    }
    let error = format!("data: {{\"error\":{{\"message\":\"lost {address}\"}}}}\n\n");
    upstream.answer_with(&Reply::events(&[ROLE, WORD, &error]));
    let answer = send(&rig, CHAT, true).await;
    assert!(answer.text.contains("lost [upstream]") && !answer.text.contains("127.0.0.1"));
}
