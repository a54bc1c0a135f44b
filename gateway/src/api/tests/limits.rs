//! What is more than the server or the engine takes is the client's to know, before it costs.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use sluice_engine::backend::fake::{FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;

use super::rig::{END, Rig, whole};
use crate::absent::Absent;
use crate::access::{Audience, Clearance};
use crate::config::Config;
use crate::router::Source;

async fn small() -> Rig {
    let mut config = Config::default();
    config.limits.max_tokenize = 1000;
    let backend = FakeOptions {
        tokens: FakeTokens::text("x", END),
        ..FakeOptions::default()
    };
    Rig::under(config, backend, GeneratorOptions::default()).await
}

#[tokio::test]
async fn tokenize_takes_so_many_tokens_and_no_more() {
    let rig = small().await;
    for (text, status) in [
        ("a".repeat(1000), 200),
        ("a".repeat(1001), 400),
        ("a".repeat(7 << 20), 400),
    ] {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": "fake", "prompt": text});
        let answer = rig.post("/tokenize", &body).await;
        assert_eq!(answer.status, status, "{:.200}", answer.text);
        if status == 400 {
            assert_eq!(answer.error()["param"], "prompt");
            let body = json!({"model": "fake", "messages": messages});
            let answer = rig.post("/tokenize", &body).await;
            assert_eq!(answer.status, 400, "{:.200}", answer.text);
        }
    }
    for (count, status) in [(1000, 200), (1001, 400)] {
        let body = json!({"model": "fake", "tokens": vec![65; count]});
        assert_eq!(rig.post("/detokenize", &body).await.status, status);
    }
}

#[tokio::test]
async fn a_long_text_is_refused_before_it_is_made_tokens() {
    let rig = small().await;
    let text = "a".repeat(7 << 20);
    for (path, field, body) in [
        ("/v1/completions", "prompt", json!({"prompt": text})),
        (
            "/v1/chat/completions",
            "messages",
            json!({"messages": [{"role": "user", "content": text}]}),
        ),
        (
            "/v1/completions",
            "prompt",
            json!({"prompt": vec![65; 2_000_000]}),
        ),
    ] {
        let mut body = body;
        body["model"] = Value::from("fake");
        let answer = rig.post(path, &body).await;
        assert_eq!(answer.status, 400, "{:.200}", answer.text);
        assert_eq!(answer.error()["code"], "context_length_exceeded");
        assert_eq!(answer.error()["param"], field);
    }
}

#[tokio::test]
async fn a_grammar_beyond_the_engine_is_the_clients_error() {
    let rig = small().await;
    let many = |count: usize| -> Value {
        let properties: serde_json::Map<String, Value> = (0..count)
            .map(|n| (format!("p{n}"), json!({"type": "string"})))
            .collect();
        json!({"type": "object", "properties": properties})
    };
    let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}});
    let nested = (0..60).fold(
        json!({"type": "string"}),
        |inner, _| json!({"anyOf": [{"type": "array", "items": inner}, {"type": "null"}]}),
    );
    for extra in [
        schema(many(800)),
        schema(many(2000)),
        schema(nested),
        schema(json!({"type": "string", "pattern": "(a{1,100}){1,100}"})),
        json!({"guided_regex": ".*".repeat(200)}),
        json!({"guided_regex": "(a|b|c){1000}{1000}"}),
        json!({"guided_regex": "(.{0,99}x){0,99}"}),
        json!({"guided_grammar": "start: a a a a\na: b b b b\nb: c c c c\nc: /[a-z]{0,500}/"}),
        json!({"guided_choice": (0..3000).map(|n| format!("choice {n}")).collect::<Vec<_>>()}),
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": many(800)}}], "tool_choice": "required"}),
    ] {
        for stream in [false, true] {
            let mut extra = extra.clone();
            extra["max_tokens"] = json!(8);
            extra["stream"] = json!(stream);
            let answer = rig.chat(extra.clone()).await;
            let known = [200, 400].contains(&answer.status.as_u16());
            assert!(known, "{:.100}: {:.300}", extra.to_string(), answer.text);
            assert!(
                !answer.text.contains("internal_error"),
                "{:.300}",
                answer.text
            );
        }
    }
    assert_eq!(rig.chat(json!({"max_tokens": 1})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_meet_its_deadline_is_refused_at_the_door() {
    let backend = FakeOptions {
        slots: 4,
        tokens: FakeTokens::text(&"x".repeat(100), END),
        step_time: Duration::from_millis(5),
        ..FakeOptions::default()
    };
    let rig = Rig::under(Config::default(), backend, GeneratorOptions::default()).await;
    // Four at once, 100 ms each: forty a second, asked three times as often.
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 20, "ignore_eos": true});
    let ask = |number: u32| {
        let (rig, body) = (&rig, body.to_string());
        async move {
            tokio::time::sleep(Duration::from_millis(8) * number).await;
            let patience = [("x-request-timeout-ms", "500")];
            let asked = Instant::now();
            let answer = rig.post_with("/v1/completions", &patience, body).await;
            (answer.status.as_u16(), asked.elapsed())
        }
    };
    // What nothing is known of is tried.
    assert_eq!(ask(0).await.0, 200);
    let answers = futures_util::future::join_all((0..300).map(ask)).await;
    let count = |status| answers.iter().filter(|it| it.0 == status).count();
    let (good, late, refused) = (count(200), count(504), count(503));
    assert_eq!(good + late + refused, answers.len(), "{answers:?}");
    assert!(
        late * 3 <= good && good >= 30,
        "{good} good, {late} late, {refused} refused"
    );
    // At once, and not after it has waited for nothing.
    let quick = answers.iter().filter(|it| it.0 == 503);
    let quick = quick.filter(|it| it.1 < Duration::from_millis(400)).count();
    assert!(quick * 10 >= refused * 9, "{quick} of {refused}");
}

#[tokio::test]
async fn a_probe_needs_no_key_and_reads_no_names_of_others() {
    let mut config = Config::default();
    config.auth.required = true;
    let backend = FakeOptions {
        tokens: FakeTokens::text("x", END),
        ..FakeOptions::default()
    };
    let rig = Rig::under(config, backend, GeneratorOptions::default()).await;
    let of_it = || Audience::of_department("it", Clearance::Secret);
    let absent = vec![
        Absent::failed("payroll", "no bytes in /srv/it", of_it()),
        Absent::failed("open", "no bytes in /srv/open", Audience::default()),
    ];
    rig.gateway.expect(Source::Control, absent);
    let ask = async |path: &'static str, key: &'static str| {
        let headers = [("authorization", key)];
        let headers = if key.is_empty() {
            &[][..]
        } else {
            &headers[..]
        };
        whole(rig.send(Method::GET, path, headers, "").await).await
    };
    let (nobody, ada, expired) = ("", "Bearer sk-ada", "Bearer sk-of-last-year");
    for key in [nobody, ada, expired] {
        let all = ask("/health/ready", key).await;
        assert_eq!(all.status, 503, "{}", all.text);
        assert!(all.text.contains("a model is not served"), "{}", all.text);
        assert!(all.text.contains("`open` cannot be loaded"), "{}", all.text);
        assert!(!all.text.contains("payroll"), "{}", all.text);
        assert_eq!(ask("/health/ready?model=fake", key).await.status, 200);
    }
    // Whoever runs a balancer knows the name, and is told whether to send requests here.
    let one = ask("/health/ready?model=payroll", nobody).await;
    assert_eq!(one.status, 503);
    assert!(one.text.contains("`payroll` is not served"), "{}", one.text);
    assert!(!one.text.contains("/srv/it"), "{}", one.text);
    assert_eq!(ask("/health/ready?model=payroll", ada).await.status, 404);
    assert_eq!(ask("/health/ready?model=unknown", nobody).await.status, 404);
}

#[tokio::test]
async fn a_model_that_is_meant_to_be_served_is_not_unknown() {
    let rig = small().await;
    let absent = vec![
        Absent::loading("coming", Audience::default()),
        Absent::failed("broken", "its bytes are missing", Audience::default()),
    ];
    rig.gateway.expect(Source::Control, absent);
    for (name, status) in [
        ("coming", 503),
        ("broken", 503),
        ("unknown", 404),
        ("fake", 200),
    ] {
        let answer = rig.complete(json!({"model": name, "max_tokens": 1})).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
        assert!(!answer.text.contains("bytes are missing"));
        let ready = rig.get(&format!("/v2/models/{name}/ready")).await;
        assert_eq!(ready.status, status, "{name}: {}", ready.text);
        if status != 404 {
            assert_eq!(ready.json()["ready"], status == 200);
        }
        let ready = rig.get(&format!("/health/ready?model={name}")).await;
        assert_eq!(ready.status, status, "{name}: {}", ready.text);
        let one = rig.get(&format!("/v1/models/{name}")).await;
        assert_eq!(one.status, status, "{name}: {}", one.text);
    }
    let ready = rig.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready
            .text
            .contains("the model `broken` cannot be loaded: its bytes are missing")
    );
    assert!(
        !ready.text.contains("coming"),
        "what is loading beside the others takes no node"
    );
    assert_eq!(rig.get("/v2/health/ready").await.status, 503);
    assert_eq!(
        rig.get("/health/ready?model=fake&model=broken")
            .await
            .status,
        503
    );
    assert_eq!(rig.get("/health/ready?modle=fake").await.status, 400);
    let metrics = rig.get("/metrics").await.text;
    for line in [
        "sluice_model_ready{deployment=\"fake\"} 1",
        "sluice_model_ready{deployment=\"coming\"} 0",
        "sluice_model_ready{deployment=\"broken\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    rig.gateway.expect(Source::Control, Vec::new());
    assert_eq!(rig.get("/health/ready").await.status, 200);
}
