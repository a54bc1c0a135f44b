//! Whoever leaves, is stopped or runs out of time pays for what was computed for it, and for
//! nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_engine::backend::fake::FakeTokens;
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::request::Usage;

use super::rig::{Rig, chat, whole};
use crate::metrics::observer::{Record, UsageSink};

/// What a ledger was told of.
#[derive(Debug, Default)]
struct Billed(Mutex<Vec<Usage>>, Mutex<HashMap<Arc<str>, Usage>>);

impl UsageSink for Billed {
    fn record(&self, record: &Record) {
        let (id, usage) = (&record.context.id, record.context.outcome.usage());
        assert!(
            self.1.lock().insert(Arc::clone(id), usage).is_none(),
            "{id}"
        );
        self.0.lock().push(usage);
    }
}

impl Billed {
    fn of(rig: &Rig) -> Arc<Self> {
        let billed = Arc::<Self>::default();
        rig.gateway.observer().tell(Arc::clone(&billed) as _);
        billed
    }

    /// Of the only request since the last call.
    async fn one(&self) -> Usage {
        until(|| !self.0.lock().is_empty()).await;
        let mut all = std::mem::take(&mut *self.0.lock());
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Letters without an end, on so many slots.
async fn endless(slots: u32) -> Rig {
    let tokens = FakeTokens::Hash { low: 97, high: 122 };
    let generator = GeneratorOptions {
        prefix_reuse: false,
        ..GeneratorOptions::default()
    };
    Rig::start(tokens, generator, slots).await
}

fn body(path: &str, stream: bool, n: u64) -> Value {
    match path {
        "/v1/chat/completions" => chat(&json!({"stream": stream, "n": n, "max_tokens": 100})),
        _ => json!({
            "model": "fake", "prompt": ["Hello", "World, hello"], "n": n, "stream": stream,
            "max_tokens": 100,
        }),
    }
}

const CHAT: &str = "/v1/chat/completions";

/// A client that leaves after any number of steps, of every form.
#[tokio::test]
async fn a_client_that_leaves_pays_for_what_was_computed() {
    let rig = endless(8).await;
    let billed = Billed::of(&rig);
    for (path, n) in [(CHAT, 1), (CHAT, 3), ("/v1/completions", 2)] {
        for stream in [true, false] {
            let whole_of_it = rig.post(path, &body(path, false, n)).await;
            let prompt = whole_of_it.json()["usage"]["prompt_tokens"]
                .as_u64()
                .unwrap();
            let finished = billed.one().await;
            assert_eq!(finished.prompt as u64, prompt);
            for steps in [0_u64, 1, 2, 7] {
                rig.control.hold();
                let stats = || rig.model.generator.stats().snapshot();
                let (before, begun) = (stats(), rig.control.steps());
                let asked = body(path, stream, n).to_string();
                let headers = [("content-type", "application/json")];
                let request = rig.send(Method::POST, path, &headers, asked);
                let leaves = async {
                    until(|| rig.control.steps() > begun).await;
                    rig.control.allow(steps);
                    // Held in the next step, so that all is told of those before.
                    until(|| rig.control.steps() > begun + steps).await;
                    stats()
                };
                let after = tokio::select! {
                    after = leaves => after,
                    never = async { let answer = request.await; leaving(answer).await } => never,
                };
                let usage = billed.one().await;
                let what = format!("{path} {n} {stream} {steps}: {usage:?}");
                let generated = after.generated_tokens - before.generated_tokens;
                assert_eq!(usage.completion as u64, generated, "{what}");
                // The first step may hold the first of several sequences only.
                let computed = usage.prompt as u64;
                assert!(computed <= prompt, "{what}");
                assert_eq!(computed == 0, steps == 0, "{what}");
                assert!(computed == prompt || steps < 2, "{what}");
                rig.control.release();
                until(|| rig.model.generator.stats().snapshot().running == 0).await;
            }
        }
    }
}

/// Reads on until it is dropped.
async fn leaving<T>(answer: http::Response<hyper::body::Incoming>) -> T {
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    std::future::pending().await
}

#[tokio::test]
async fn who_never_had_a_turn_pays_nothing() {
    let rig = endless(1).await;
    let billed = Billed::of(&rig);
    rig.control.hold();
    let headers = [("content-type", "application/json")];
    let first = rig.send(
        Method::POST,
        CHAT,
        &headers,
        body(CHAT, true, 1).to_string(),
    );
    let second = async {
        until(|| rig.model.generator.stats().snapshot().running == 1).await;
        let hurried = [
            ("content-type", "application/json"),
            ("x-request-timeout-ms", "30"),
        ];
        let asked = body(CHAT, false, 1).to_string();
        let answer = whole(rig.send(Method::POST, CHAT, &hurried, asked).await).await;
        assert!(
            [503, 504].contains(&answer.status.as_u16()),
            "{}",
            answer.text
        );
    };
    tokio::select! {
        () = second => {}
        _ = first => panic!("it is held"),
    }
    // Both are over: the one that waited, and the one that was held in its first step.
    until(|| billed.0.lock().len() == 2).await;
    for usage in billed.0.lock().iter() {
        assert_eq!((usage.prompt, usage.completion), (0, 0));
    }
    rig.control.release();
}

#[tokio::test]
async fn what_is_billed_is_what_the_answer_says() {
    let rig = Rig::saying("Hello, world").await;
    let billed = Billed::of(&rig);
    for extra in [
        json!({}),
        json!({"max_tokens": 3}),
        json!({"stop": "wor"}),
        json!({"n": 2}),
    ] {
        let answer = rig.chat(extra.clone()).await.json();
        let usage = billed.one().await;
        assert_eq!(answer["usage"]["prompt_tokens"], usage.prompt, "{extra}");
        assert_eq!(
            answer["usage"]["completion_tokens"], usage.completion,
            "{extra}"
        );
        let mut streamed = extra.clone();
        streamed["stream"] = true.into();
        assert_eq!(rig.chat(streamed).await.status, 200);
        let again = billed.one().await;
        assert_eq!(
            (again.prompt, again.completion),
            (usage.prompt, usage.completion)
        );
    }
    for (path, body) in [
        ("/tokenize", json!({"model": "fake", "prompt": "Hello"})),
        (CHAT, json!({"model": "fake", "messages": [], "n": 0})),
    ] {
        rig.post(path, &body).await;
        assert_eq!(billed.one().await, Usage::default(), "{path}");
    }
}

#[tokio::test]
async fn a_deadline_in_the_middle_costs_what_was_computed() {
    let backend = sluice_engine::backend::fake::FakeOptions {
        tokens: FakeTokens::Hash { low: 97, high: 122 },
        step_time: Duration::from_millis(2),
        ..Default::default()
    };
    let rig = Rig::with(backend, GeneratorOptions::default()).await;
    let billed = Billed::of(&rig);
    let headers = [("x-request-timeout-ms", "100")];
    let asked = body(CHAT, true, 1).to_string();
    let answer = rig.post_with(CHAT, &headers, asked).await;
    assert!(answer.text.contains("deadline"), "{}", answer.text);
    let usage = billed.one().await;
    let generated = rig.model.generator.stats().snapshot().generated_tokens;
    assert!(usage.prompt > 0 && usage.completion > 0);
    assert_eq!(usage.completion as u64, generated);
}

#[tokio::test]
async fn inputs_that_were_run_are_paid_for_when_another_fails_or_the_client_leaves() {
    let rig = super::encoders::rig("tiny-encoder").await;
    let billed = Billed::of(&rig);
    let body = json!({"model": "tiny", "input": ["alpha beta", "gamma"]});
    let answer = rig.post("/v1/embeddings", &body).await.json();
    let usage = billed.one().await;
    assert_eq!(answer["usage"]["prompt_tokens"], usage.prompt);
    // The second is none that this model takes; the first was run all the same.
    let body = json!({"model": "tiny", "input": ["alpha beta", "outside"]});
    let failed = rig.post("/v1/embeddings", &body).await;
    assert!(failed.status.is_server_error(), "{}", failed.text);
    let alone = json!({"model": "tiny", "input": "alpha beta"});
    let first = billed.one().await;
    let expected = rig.post("/v1/embeddings", &alone).await.json();
    assert_eq!(expected["usage"]["prompt_tokens"], first.prompt);
    assert_eq!(billed.one().await, first);
    // A client that leaves while many are under way.
    let many = vec!["alpha beta gamma delta ".repeat(4); 2000];
    let body = json!({"model": "tiny", "input": many}).to_string();
    let headers = [("content-type", "application/json")];
    let run = |rig: &Rig| match &*rig
        .gateway
        .routes()
        .find("tiny")
        .unwrap()
        .target
        .model()
        .unwrap()
    {
        crate::router::LocalModel::Encoder(encoder) => encoder.stats().tokens.load(Relaxed),
        _ => panic!("an encoder"),
    };
    let before = run(&rig);
    tokio::select! {
        _ = rig.send(Method::POST, "/v1/embeddings", &headers, body) => panic!("it takes long"),
        () = until(|| run(&rig) > before) => {}
    }
    let left = billed.one().await;
    assert!(left.prompt > 0);
    // What was in the last batches may not be run to its end yet.
    until(|| run(&rig) - before >= left.prompt as u64).await;
}

/// How a request of [`the_ledger_holds_what_was_computed`] comes to its end.
#[derive(Debug, Clone)]
enum Ending {
    /// `max_tokens` tokens.
    Length(u64),
    /// A letter that the model may say at any time.
    Stop(char),
    /// After so many milliseconds, by the server's clock.
    Deadline(u64),
    /// After so many milliseconds, by the client's.
    Leaves(u64),
    /// With so many bytes of the answer.
    LeavesAt(usize),
}

#[derive(Debug, Clone)]
struct Asked {
    chat: bool,
    stream: bool,
    n: u64,
    ending: Ending,
}

impl Asked {
    fn body(&self) -> Value {
        let path = if self.chat { CHAT } else { "/v1/completions" };
        let mut body = body(path, self.stream, self.n);
        // Nothing but letters.
        body["temperature"] = 0.into();
        match self.ending {
            Ending::Length(tokens) => body["max_tokens"] = tokens.into(),
            Ending::Stop(letter) => body["stop"] = letter.to_string().into(),
            _ => {}
        }
        body
    }

    /// Tokens that its client has seen; each is a letter.
    async fn ask(&self, rig: &Rig, id: &str) -> usize {
        let path = if self.chat { CHAT } else { "/v1/completions" };
        let patience = match self.ending {
            Ending::Deadline(milliseconds) => milliseconds.to_string(),
            _ => "60000".to_owned(),
        };
        let headers = [
            ("content-type", "application/json"),
            ("x-request-timeout-ms", &*patience),
            ("x-request-id", id),
        ];
        let mut got = Vec::new();
        let asking = async {
            let sent = rig.send(Method::POST, path, &headers, self.body().to_string());
            let mut answer = sent.await.into_body();
            while let Some(Ok(frame)) = answer.frame().await {
                got.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                if matches!(self.ending, Ending::LeavesAt(bytes) if got.len() >= bytes) {
                    return;
                }
            }
        };
        match self.ending {
            Ending::Leaves(milliseconds) => {
                let patience = Duration::from_millis(milliseconds);
                drop(tokio::time::timeout(patience, asking).await);
            }
            _ => asking.await,
        }
        seen(&String::from_utf8_lossy(&got))
    }
}

/// Letters in an answer, or in the whole events of one.
fn seen(answer: &str) -> usize {
    let documents = match answer.starts_with("data: ") {
        true => answer
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect(),
        false => vec![answer],
    };
    let documents = documents
        .iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let letters = |choice: &Value| {
        let texts = [
            &choice["text"],
            &choice["delta"]["content"],
            &choice["message"]["content"],
        ];
        texts
            .iter()
            .filter_map(|text| text.as_str())
            .map(str::len)
            .sum::<usize>()
    };
    documents
        .flat_map(|document| document["choices"].as_array().cloned().unwrap_or_default())
        .map(|choice| letters(&choice))
        .sum()
}

fn asked() -> impl proptest::strategy::Strategy<Value = Asked> {
    use proptest::prelude::*;
    let ending = prop_oneof![
        (1_u64..40).prop_map(Ending::Length),
        proptest::char::range('a', 'z').prop_map(Ending::Stop),
        (1_u64..60).prop_map(Ending::Deadline),
        (0_u64..60).prop_map(Ending::Leaves),
        (1_usize..6_000).prop_map(Ending::LeavesAt),
    ];
    (any::<bool>(), any::<bool>(), 1_u64..4, ending).prop_map(|(chat, stream, n, ending)| Asked {
        chat,
        stream,
        n,
        ending,
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 24, ..Default::default() })]

    /// Many at once, each with an end of its own. Each is in the ledger once: with all that its client has seen, with
    /// exactly what it asked for where it came to that, and all together with no more than the model has computed.
    #[test]
    fn the_ledger_holds_what_was_computed(all in proptest::collection::vec(asked(), 1..16)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let backend = sluice_engine::backend::fake::FakeOptions {
                slots: 6,
                tokens: FakeTokens::Hash { low: 97, high: 122 },
                step_time: Duration::from_millis(1),
                ..Default::default()
            };
            let rig = Rig::with(backend, GeneratorOptions::default()).await;
            let billed = Billed::of(&rig);
            let ids: Vec<String> = (0..all.len()).map(|number| format!("request-{number}")).collect();
            let asking = all.iter().zip(&ids).map(|(asked, id)| asked.ask(&rig, id));
            let seen = futures_util::future::join_all(asking).await;
            // Who leaves at once may never have asked.
            let sure = all.iter().filter(|asked| !matches!(asked.ending, Ending::Leaves(_))).count();
            until(|| billed.0.lock().len() >= sure).await;
            let mut quiet = 0;
            while quiet < 80 {
                let running = rig.model.generator.stats().snapshot().running;
                let in_flight = rig.gateway.admission().in_flight();
                quiet = if running == 0 && in_flight == 0 { quiet + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let paid = billed.1.lock().clone();
            let computed = rig.model.generator.stats().snapshot().generated_tokens;
            let sum: u64 = paid.values().map(|usage| usage.completion as u64).sum();
            assert!(sum <= computed, "{sum} paid, {computed} computed: {all:?}");
            for ((asked, id), seen) in all.iter().zip(&ids).zip(seen) {
                let Some(usage) = paid.get(&**id) else {
                    assert!(matches!(asked.ending, Ending::Leaves(_)) && seen == 0, "{asked:?}");
                    continue;
                };
                assert!(usage.completion >= seen, "{asked:?}: {usage:?}, {seen} seen");
                if let Ending::Length(tokens) = asked.ending {
                    let sequences = asked.n * if asked.chat { 1 } else { 2 };
                    assert_eq!(usage.completion as u64, sequences * tokens, "{asked:?}");
                    assert_eq!(usage.completion, seen, "{asked:?}");
                }
            }
        });
    }
}
