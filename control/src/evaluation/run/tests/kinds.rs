//! What is neither chat nor answered by the helpdesk's model alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::deploy::replicas::content;
use crate::deploy::tests::rig::{self as deploy, Folders};
use crate::store::rig::Fresh;

fn embedder() -> PathBuf {
    let data = std::env::var_os("SLUICE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../data"),
        PathBuf::from,
    );
    data.join("models/all-minilm-l6-v2")
}

async fn only(
    bench: &Bench,
    files: &[(&str, String)],
    metrics: Value,
    thresholds: Value,
    folder: &Path,
) -> Stored<EvaluationRun> {
    let test_set = bench.test_set(files).await;
    let evaluation = bench
        .evaluation(test_set, metrics, thresholds, json!({}))
        .await;
    let version = bench.version(&content(folder).await.unwrap()).await;
    let run = bench.order(evaluation, &version, &[]).await;
    bench.ended(run.id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedding_model_is_measured_by_what_it_finds() {
    let fresh = Fresh::sqlite().await;
    let folders = Folders::of(&[embedder()]).await;
    let bench = Bench::with(&fresh.store, folders).await;
    let worker = bench.worker();
    let corpus = [
        ("cats", "A cat purrs when somebody strokes its fur."),
        (
            "rockets",
            "The rocket left the launch pad and reached orbit.",
        ),
        ("bread", "Knead the dough, let it rise, and bake the loaf."),
        ("money", "The bank raised its interest rate for loans."),
    ];
    let rows = [
        ("Which animal likes to be petted?", "cats"),
        ("spacecraft launch", "rockets"),
        ("How do I make a loaf at home?", "bread"),
        ("borrowing has become more expensive", "money"),
    ];
    let corpus_lines: String = corpus
        .iter()
        .map(|(id, text)| format!("{}\n", json!({"id": id, "text": text})))
        .collect();
    let queries: String = rows
        .iter()
        .map(|(query, right)| format!("{}\n", json!({"query": query, "relevance": {*right: 1}})))
        .collect();
    let measure = json!([{"kind": "ndcg", "k": 3}, {"kind": "recall", "k": 1}, {"kind": "mrr"}]);
    let thresholds = json!({"rules": [{"metric": "recall@1", "min": 1}], "min_samples": 4});
    let metrics =
        json!({"ask": {"kind": "retrieve"}, "measure": measure, "bootstrap": {"resamples": 200}});
    let files = [("queries.jsonl", queries), ("corpus.jsonl", corpus_lines)];
    let run = only(&bench, &files, metrics, thresholds.clone(), &embedder()).await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Passed)),
        "{}",
        run.report.0
    );
    assert_eq!(
        run.scores.0,
        json!({"ndcg@3": 1.0, "recall@1": 1.0, "mrr": 1.0})
    );
    let sample = &bench.samples(run.id).await[0];
    let ranking = sample.output.as_ref().unwrap().0["ranking"]
        .as_object()
        .unwrap()
        .clone();
    assert_eq!(ranking.len(), 4);
    assert!(ranking["cats"].as_f64() > ranking["rockets"].as_f64());
    assert!(sample.input_tokens > 0 && sample.first_token_us.is_none());

    // The same by the documents of each row, through `/v1/rerank`.
    let documents: Value = corpus
        .iter()
        .map(|(id, text)| ((*id).to_owned(), json!(text)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let rows: String = rows
        .iter()
        .map(|(query, right)| {
            format!(
                "{}\n",
                json!({"query": query, "relevance": [right], "documents": documents})
            )
        })
        .collect();
    let metrics =
        json!({"ask": {"kind": "rank"}, "measure": measure, "bootstrap": {"resamples": 200}});
    let run = only(
        &bench,
        &[("rows.jsonl", rows)],
        metrics,
        thresholds,
        &embedder(),
    )
    .await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Passed))
    );
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_language_model_is_measured_by_how_likely_it_finds_a_text() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store).await;
    let worker = bench.worker();
    let answer = "{\"intent\":\"password_reset\",\"resource\":\"vpn\"";
    let rows: String = (0..6)
        .map(|at| {
            format!(
                "{}\n",
                json!({"text": format!("{answer},\"ids\":[\"{at}\"]}}")})
            )
        })
        .chain([format!("{}\n", json!({"text": "ids", "context": answer}))])
        .collect();
    let metrics = json!({
        "ask": {"kind": "likelihood"},
        "measure": [
            {"kind": "likelihood", "unit": "per_token"},
            {"kind": "likelihood", "unit": "bits_per_byte"},
        ],
        "bootstrap": {"resamples": 200},
    });
    let thresholds = json!({"rules": [{"metric": "perplexity", "max": 1000}], "min_samples": 5});
    let run = only(
        &bench,
        &[("rows.jsonl", rows)],
        metrics,
        thresholds,
        &deploy::helpdesk("v2"),
    )
    .await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Passed)),
        "{}",
        run.report.0
    );
    assert!(run.scores.0["perplexity"].as_f64().unwrap() > 1.0);
    assert!(run.scores.0["bits_per_byte"].as_f64().unwrap() > 0.0);
    let samples = bench.samples(run.id).await;
    let of = |at: usize| samples[at].output.as_ref().unwrap().0["logprobs"].clone();
    let whole = of(0);
    let bytes = whole["bytes"].as_u64().unwrap();
    // All of the text, but for what stands before anything could be predicted.
    assert!(
        bytes <= answer.len() as u64 + 12 && bytes >= answer.len() as u64,
        "{bytes}"
    );
    assert_eq!(of(6)["bytes"], 3);
    worker.drain().await;
}

/// A server elsewhere that grades, compares and classifies by simple rules.
async fn elsewhere() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(async |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let said = said(&path, &serde_json::from_slice(&body).unwrap());
                let answer = Response::builder().header("content-type", "application/json");
                let answer = answer.body(Full::<Bytes>::from(said.to_string())).unwrap();
                Ok::<_, hyper::Error>(answer)
            });
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(
                async move { server.serve_connection(TokioIo::new(stream), answer).await },
            );
        }
    });
    address
}

fn said(path: &str, body: &Value) -> Value {
    if path == "/v1/classify" {
        let network = body["input"][0].as_str().unwrap().contains("VPN");
        let label = if network { "network" } else { "other" };
        let data = json!([{"index": 0, "label": label, "probs": [1.0], "num_classes": 2}]);
        return json!({"data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    }
    let case: Value =
        serde_json::from_str(body["messages"][1]["content"].as_str().unwrap()).unwrap();
    let schema = &body["response_format"]["json_schema"]["schema"]["properties"];
    let said = if schema["grade"].is_object() {
        // Whether it names an urgency at all.
        let right = case["answer"].as_str().unwrap().contains("urgency");
        json!({"reason": "by rule", "grade": if right { 5 } else { 1 }})
    } else {
        // Prefers what it sees first: a bias that asking twice must reveal.
        json!({"reason": "it came first", "better": "first"})
    };
    let message = json!({"role": "assistant", "content": said.to_string()});
    json!({
        "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_deployment_judges_and_its_bias_is_seen() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store).await;
    let worker = bench.worker();
    let address = elsewhere().await;
    let judge = sluice_gateway::config::DeploymentConfig::of_upstream(
        "judge",
        format!("http://{address}/v1"),
    );
    let judge = sluice_gateway::router::load::deployment(&bench.rig.gateway, &judge)
        .await
        .unwrap();
    bench
        .rig
        .gateway
        .publish(sluice_gateway::router::RouteTable::new(vec![judge]).unwrap());
    let product = bench.product;
    let options = json!({"slots": 4, "context": 320});
    let at = deploy::deployment(&bench.store, &bench.people, &product, "helpdesk", options).await;
    let v1 = deploy::passed(&bench.store, &bench.people, &product, "v1").await;
    bench.rig.deploy(&bench.people, &at, v1).await;

    let mut metrics = by_fields();
    metrics["judge"] = json!({
        "deployment": "judge",
        "pairwise": true,
        "rubric": {"criteria": "The ticket says how urgent it is.", "lowest": 1, "highest": 5},
    });
    let thresholds = json!({
        "rules": [{"metric": "judge", "min": 0.9}, {"metric": "judge_wins", "min": 0.4}],
        "min_samples": 5,
    });
    let test_set = bench.test_set(&[("test.jsonl", tickets(6))]).await;
    let evaluation = bench
        .evaluation(test_set, metrics, thresholds, json!({}))
        .await;
    let v2 = bench.helpdesk("v2").await;
    let run = bench.order(evaluation, &v2, &[]).await;
    let run = bench.ended(run.id).await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Passed)),
        "{}",
        run.report.0
    );
    assert_eq!(run.scores.0["judge"], 1.0);
    // A judge that contradicts itself when the order is exchanged gives half a win.
    assert_eq!(run.scores.0["judge_wins"], 0.5);
    let sample = &bench.samples(run.id).await[0];
    let detail = &sample.detail.as_ref().unwrap().0;
    assert_eq!(detail["judge"], json!({"grade": 5, "reason": "by rule"}));
    assert_eq!(detail["judge_wins"]["preference"], "undecided");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classifier_on_other_servers_is_measured_by_its_labels() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store).await;
    let worker = bench.worker();
    let address = elsewhere().await;
    let product = bench.product;
    let options = json!({"upstream": [format!("http://{address}/v1")]});
    deploy::deployment(&bench.store, &bench.people, &product, "intents", options).await;
    let rows: String = [
        ("My VPN is down", "network"),
        ("I lost my badge", "other"),
        ("The VPN, again", "other"),
    ]
    .iter()
    .map(|(text, label)| format!("{}\n", json!({"text": text, "reference": label})))
    .collect();
    let metrics = json!({
        "ask": {"kind": "classify"},
        "measure": [{"kind": "accuracy"}, {"kind": "label_f1", "average": "macro"}],
        "bootstrap": {"resamples": 200},
    });
    let thresholds = json!({"rules": [{"metric": "accuracy/none", "min": 0.9}], "min_samples": 3});
    let run = only(
        &bench,
        &[("rows.jsonl", rows)],
        metrics,
        thresholds,
        &deploy::helpdesk("v1"),
    )
    .await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Failed)),
        "{}",
        run.report.0
    );
    let accuracy = run.scores.0["accuracy/none"].as_f64().unwrap();
    assert!((accuracy - 2.0 / 3.0).abs() < 1e-9);
    worker.drain().await;
}

/// A record from before the list, or one that was written past the API.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_records_may_not_name_is_not_asked_when_a_run_begins() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store).await;
    let worker = bench.worker();
    let silent = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let test_set = bench.test_set(&[("test.jsonl", tickets(2))]).await;
    for options in [
        json!({"upstream": format!("http://{address}/v1")}),
        json!({"upstream": "http://127.0.0.1:9/v1", "api_key_env": "PATH"}),
    ] {
        let settings = json!({"engine_options": options});
        let evaluation = bench
            .evaluation(test_set, by_fields(), at_least(0.5), settings)
            .await;
        let version = bench.helpdesk("v1").await;
        let run = bench.order(evaluation, &version, &[]).await;
        let error = bench.ended(run.id).await.error.clone().unwrap();
        assert!(error.contains("control.allow."), "{error}");
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), silent.accept()).await;
    assert!(asked.is_err(), "somebody connected");
    worker.drain().await;
}
