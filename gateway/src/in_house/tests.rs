#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use serde_json::json;
use sluice_engine::backend::fake::{FakeControl, FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::language::LanguageModel;

use super::*;
use crate::config::Config;
use crate::router::{LocalModel, RouteTable, Source, Standing, Target};

const PATIENCE: Duration = Duration::from_secs(60);
/// `<|im_end|>` of the fake tokenizer.
const END: u32 = 258;

fn saying(gateway: &Gateway, name: &str, text: &str, hidden: bool) -> Arc<Deployment> {
    let backend = FakeOptions {
        slots: 2,
        capacity: 512,
        tokens: FakeTokens::text(text, END),
        ..FakeOptions::default()
    };
    let generator = GeneratorOptions::default();
    let model = LanguageModel::fake_with("fake", backend, FakeControl::new(), generator).unwrap();
    Arc::new(Deployment {
        name: name.into(),
        revision: text.into(),
        target: Target::from(LocalModel::Language(Arc::new(model))),
        created: 0,
        series: gateway.metrics().series(name, text),
        standing: Standing {
            hidden,
            ..Standing::default()
        },
    })
}

fn hello(model: &InHouse) -> Value {
    json!({"model": model.model(), "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]})
}

fn said(answer: &Answered) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["choices"][0]["message"]["content"].clone()
}

fn exposed(gateway: &Gateway) -> String {
    let text = gateway
        .metrics()
        .expose(&gateway.routes(), crate::metrics::Format::Text);
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_revision_answers_as_long_as_it_is_held_and_counts_for_itself() {
    let gateway = Gateway::new(Config::default()).unwrap();
    let first = saying(&gateway, "helpdesk", "one", false);
    gateway.publish(RouteTable::new(vec![Arc::clone(&first)]).unwrap());
    let ask = InHouse::new(Arc::clone(&gateway), Arc::clone(&first), "evaluation");
    let next = saying(&gateway, "helpdesk", "two", false);
    gateway.publish(RouteTable::new(vec![next]).unwrap());
    // The table forgot it, a holder did not: replicas are freed by the count of their owners.
    assert_eq!(Arc::strong_count(&first), 2);

    let answer = ask
        .post("/v1/chat/completions", &hello(&ask), PATIENCE)
        .await;
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, StatusCode::OK, "{body}");
    assert_eq!(said(&answer), json!("one"), "{body}");
    assert_eq!(answer.usage.completion, 4);
    assert!(answer.first_token.unwrap() <= answer.total);
    let metrics = exposed(&gateway);
    let counted = |deployment: &str| {
        let label = format!("deployment=\"{deployment}\"");
        metrics
            .lines()
            .any(|line| line.starts_with("sluice_requests_total") && line.contains(&label))
    };
    assert!(
        counted("in-house/helpdesk") && !counted("helpdesk"),
        "{metrics}"
    );
    assert_eq!(gateway.admission().in_flight(), 0);
}

#[tokio::test]
async fn errors_are_those_of_clients() {
    let gateway = Gateway::new(Config::default()).unwrap();
    let hidden = saying(&gateway, "helpdesk@v2", "!", true);
    gateway
        .publish_from(Source::Trial, vec![Arc::clone(&hidden)])
        .unwrap();
    let ask = InHouse::new(Arc::clone(&gateway), hidden, "evaluation");
    let bad = json!({"model": ask.model(), "messages": []});
    let answer = ask.post("/v1/chat/completions", &bad, PATIENCE).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = json!({"model": ask.model(), "input": "a"});
    let answer = ask.post("/v1/embeddings", &text, PATIENCE).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = ask.post("/v1/nowhere", &hello(&ask), PATIENCE).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let answer = ask
        .post("/v1/chat/completions", &hello(&ask), Duration::ZERO)
        .await;
    // What cannot be answered in time is not begun.
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
