//! Whole requests through [`crate::api::route`].

use std::path::Path;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use sluice_engine::tensor::{TensorModel, TensorOptions};

use super::*;
use crate::config::Config;
use crate::context::Principal;
use crate::router::{Deployment, LocalModel, RouteTable};

pub(super) fn deployment(gateway: &Gateway, graph: &str) -> Arc<Deployment> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/tensor");
    let options = TensorOptions {
        threads: 1,
        ..TensorOptions::default()
    };
    let model =
        TensorModel::load(graph, &fixtures.join(format!("{graph}.onnx")), &options).unwrap();
    Arc::new(Deployment {
        name: graph.into(),
        revision: "r1".into(),
        target: LocalModel::Tensor(model).into(),
        created: 0,
        series: gateway.metrics().series(graph, "r1"),
        standing: crate::router::Standing::default(),
    })
}

fn gateway(graphs: &[&str]) -> Arc<Gateway> {
    let gateway = Gateway::new(Config::default()).unwrap();
    let deployments = graphs
        .iter()
        .map(|graph| deployment(&gateway, graph))
        .collect();
    gateway.publish(RouteTable::new(deployments).unwrap());
    gateway.set_ready(true);
    gateway
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

async fn send(gateway: &Arc<Gateway>, request: Request<Full<Bytes>>) -> Answer {
    let response = crate::api::route(Arc::clone(gateway), request).await;
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body.into()))
        .unwrap()
}

pub(super) async fn get(gateway: &Arc<Gateway>, path: &str) -> Answer {
    send(gateway, request(Method::GET, path, "")).await
}

pub(super) async fn post(gateway: &Arc<Gateway>, path: &str, body: &Value) -> Answer {
    send(gateway, request(Method::POST, path, body.to_string())).await
}

pub(super) fn affine() -> Value {
    json!({
        "id": "42",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [[1, 2, 3]]},
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 0.5, 0.5]},
        ],
    })
}

#[tokio::test]
async fn an_inference_in_json() {
    let gateway = gateway(&["affine"]);
    let answer = post(&gateway, "/v2/models/affine/infer", &affine()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(!answer.headers.contains_key(JSON_LENGTH));
    assert_eq!(
        answer.json(),
        json!({
            "model_name": "affine", "model_version": "r1", "id": "42",
            "outputs": [
                {"name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [1.5, 2.5, 3.5]},
                {"name": "product", "datatype": "FP32", "shape": [1, 2], "data": [14.0, 140.0]},
            ],
        })
    );
    let mut only = affine();
    only["outputs"] = json!([{"name": "product"}]);
    let answer = post(&gateway, "/v2/models/affine/versions/r1/infer", &only).await;
    assert_eq!(answer.json()["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json()["outputs"][0]["name"], "product");
}

#[tokio::test]
async fn an_inference_in_binary() {
    let gateway = gateway(&["affine"]);
    let json = json!({
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}},
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}},
        ],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    let numbers = [1.0_f32, 2.0, 3.0, 0.5, 0.5, 0.5];
    let mut body = json.clone().into_bytes();
    body.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let mut request = request(Method::POST, "/v2/models/affine/infer", body);
    request
        .headers_mut()
        .insert(JSON_LENGTH, HeaderValue::from(json.len()));
    let answer = send(&gateway, request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let length: usize = answer.headers[JSON_LENGTH]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let head: Value = serde_json::from_slice(&answer.body[..length]).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 12);
    assert_eq!(head["outputs"][1]["parameters"]["binary_data_size"], 8);
    let (floats, rest) = answer.body[length..].as_chunks::<4>();
    let floats: Vec<_> = floats
        .iter()
        .map(|each| f32::from_le_bytes(*each))
        .collect();
    assert_eq!(
        (floats.as_slice(), rest),
        (&[1.5, 2.5, 3.5, 14.0, 140.0][..], &[][..])
    );
}

#[tokio::test]
async fn a_large_request_takes_the_other_path_to_the_same_answer() {
    let gateway = gateway(&["strings"]);
    let text = "x".repeat(2 * INLINE);
    let body =
        json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]});
    let answer = post(&gateway, "/v2/models/strings/infer", &body).await;
    assert_eq!(answer.json()["outputs"][0]["data"][0], text);
}

#[tokio::test]
async fn errors_have_the_protocols_form_and_the_right_status() {
    let gateway = gateway(&["affine", "lookup"]);
    let infer = "/v2/models/affine/infer";
    let mut wrong_shape = affine();
    wrong_shape["inputs"][1]["shape"] = json!([3]);
    let mut other_batch = affine();
    other_batch["inputs"][1] =
        json!({"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0, 0, 0, 0, 0, 0]});
    let mut no_such_output = affine();
    no_such_output["outputs"] = json!([{"name": "z"}]);
    let beyond =
        json!({"inputs": [{"name": "index", "datatype": "INT64", "shape": [1], "data": [9]}]});
    for (path, body, status, part) in [
        (
            infer,
            wrong_shape,
            400,
            "`y`: shape is [3]; the model takes [batch, 3]",
        ),
        (
            infer,
            other_batch,
            400,
            "`y`: dimension 0 (`batch`) is 2, but 1 in input `x`",
        ),
        (infer, no_such_output, 400, "`z`: unknown output"),
        (
            infer,
            json!({"inputs": []}),
            400,
            "`x`: the input is missing",
        ),
        (infer, json!([]), 400, "not the JSON"),
        (
            "/v2/models/nothing/infer",
            affine(),
            404,
            "`nothing` does not exist",
        ),
        (
            "/v2/models/affine/versions/r2/infer",
            affine(),
            404,
            "versions/r2",
        ),
        ("/v2/models/affine/generate", affine(), 404, "Invalid URL"),
        ("/v2/models/affine", affine(), 405, "Not allowed to POST"),
        (
            "/v2/repository/models/affine/unload",
            json!({}),
            400,
            "configuration",
        ),
        ("/v2/models/lookup/infer", beyond, 500, "idx=9"),
    ] {
        let answer = post(&gateway, path, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.error());
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(
            answer.error().contains(part),
            "`{part}` is not in: {}",
            answer.error()
        );
    }
    // All of that did the models no harm.
    assert_eq!(post(&gateway, infer, &affine()).await.status, 200);
}

#[tokio::test]
async fn headers_that_cannot_be_right_are_refused() {
    let gateway = gateway(&["affine"]);
    let with = |name: &'static str, value: &'static str| {
        let mut request = request(
            Method::POST,
            "/v2/models/affine/infer",
            affine().to_string(),
        );
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        request
    };
    for (name, value, status, part) in [
        (
            "inference-header-content-length",
            "many",
            400,
            "number of bytes",
        ),
        (
            "inference-header-content-length",
            "-1",
            400,
            "number of bytes",
        ),
        (
            "inference-header-content-length",
            "100000",
            400,
            "the body has only",
        ),
        ("inference-header-content-length", "0", 400, "EOF"),
        ("content-encoding", "gzip", 400, "Content-Encoding"),
        ("content-length", "99999999999", 413, "larger than"),
    ] {
        let answer = send(&gateway, with(name, value)).await;
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.error());
        assert!(
            answer.error().contains(part),
            "`{part}` is not in: {}",
            answer.error()
        );
    }
    let large = vec![b' '; gateway.config().server.max_body + 1];
    let answer = send(
        &gateway,
        request(Method::POST, "/v2/models/affine/infer", large),
    )
    .await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_not_worth_a_run() {
    let gateway = gateway(&["affine"]);
    let mut hurried = affine();
    hurried["parameters"] = json!({"timeout": 0});
    let answer = post(&gateway, "/v2/models/affine/infer", &hurried).await;
    assert_eq!(answer.status, 504, "{}", answer.error());
    hurried["parameters"] = json!({"timeout": 60_000_000});
    assert_eq!(
        post(&gateway, "/v2/models/affine/infer", &hurried)
            .await
            .status,
        200
    );
    let mut late = request(
        Method::POST,
        "/v2/models/affine/infer",
        affine().to_string(),
    );
    let mut context = RequestContext::new("late", "/v2/models/affine/infer");
    context.deadline = Some(context.received);
    late.extensions_mut().insert(context);
    assert_eq!(send(&gateway, late).await.status, 504);
    let stats = get(&gateway, "/v2/models/affine/stats").await.json();
    assert_eq!(stats["model_stats"][0]["execution_count"], 1);
}

#[tokio::test]
async fn a_closed_model_is_unavailable() {
    let gateway = gateway(&["affine"]);
    let routes = gateway.routes().clone();
    describe::tensor_model(&routes.deployments()[0])
        .unwrap()
        .close();
    let answer = post(&gateway, "/v2/models/affine/infer", &affine()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(get(&gateway, "/v2/models/affine/ready").await.status, 503);
    let index = get(&gateway, "/v2/repository/index").await.json();
    assert_eq!(index[0]["state"], "UNAVAILABLE");
    let ready = post(&gateway, "/v2/repository/index", &json!({"ready": true}))
        .await
        .json();
    assert_eq!(ready, json!([]));
}

#[test]
fn a_full_queue_is_503_with_retry_after() {
    let gateway = Gateway::new(Config::default()).unwrap();
    let full = InferError::QueueFull {
        waiting: 3,
        retry_after: Duration::from_secs(7),
    };
    let response = refuse(
        failed(&gateway, &full)
            .into_told()
            .into_result()
            .unwrap_err(),
    );
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[tokio::test]
async fn health_follows_the_gateway() {
    let gateway = gateway(&["affine"]);
    assert_eq!(get(&gateway, "/v2/health/ready").await.status, 200);
    assert_eq!(get(&gateway, "/v2/models/affine/ready").await.status, 200);
    assert_eq!(
        get(&gateway, "/v2/models/affine/versions/r2/ready")
            .await
            .status,
        404
    );
    gateway.set_ready(false);
    assert_eq!(get(&gateway, "/v2/health/live").await.status, 200);
    assert_eq!(get(&gateway, "/v2/health/ready").await.status, 503);
    // One that is there answers, whichever others are still being loaded.
    assert_eq!(get(&gateway, "/v2/models/affine/ready").await.status, 200);
    gateway.drain();
    assert_eq!(get(&gateway, "/v2/models/affine/ready").await.status, 503);
}

#[tokio::test]
async fn models_describe_themselves() {
    let gateway = gateway(&["affine", "strings"]);
    assert_eq!(get(&gateway, "/v2").await.json()["name"], "sluice");
    assert_eq!(
        get(&gateway, "/v2/models/affine").await.json(),
        json!({
            "name": "affine", "versions": ["r1"], "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
            ],
            "outputs": [
                {"name": "sum", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "product", "datatype": "FP32", "shape": [-1, 2]},
            ],
        })
    );
    let config = get(&gateway, "/v2/models/strings/config").await.json();
    assert_eq!(config["max_batch_size"], 0);
    assert_eq!(
        config["input"],
        json!([{"name": "text", "data_type": "TYPE_STRING", "dims": [-1]}])
    );
    let index = post(&gateway, "/v2/repository/index", &json!({}))
        .await
        .json();
    assert_eq!(
        index[1],
        json!({"name": "strings", "version": "r1", "state": "READY", "reason": ""})
    );
}

#[tokio::test]
async fn statistics_count_what_was_done() {
    let gateway = gateway(&["affine", "strings"]);
    let mut two = affine();
    for input in two["inputs"].as_array_mut().unwrap() {
        input["shape"] = json!([2, 3]);
        input["data"] = json!([1, 2, 3, 4, 5, 6]);
    }
    post(&gateway, "/v2/models/affine/infer", &affine()).await;
    post(&gateway, "/v2/models/affine/infer", &two).await;
    post(&gateway, "/v2/models/affine/infer", &json!({"inputs": []})).await;
    let stats = get(&gateway, "/v2/models/affine/stats").await.json();
    let affine = &stats["model_stats"][0];
    assert_eq!(affine["inference_count"], 3, "one row and two");
    assert_eq!(affine["execution_count"], 2);
    assert_eq!(affine["inference_stats"]["success"]["count"], 2);
    assert_eq!(affine["inference_stats"]["fail"]["count"], 1);
    assert!(
        affine["inference_stats"]["compute_infer"]["ns"]
            .as_u64()
            .unwrap()
            > 0
    );
    let all = get(&gateway, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 2);
    assert_eq!(all["model_stats"][1]["inference_count"], 0);
    let metrics = gateway.metrics().render(&gateway.routes());
    let labels = r#"model="affine",version="r1",deployment="affine",revision="r1""#;
    for line in [
        format!("nv_inference_request_success{{{labels}}} 2"),
        format!("nv_inference_count{{{labels}}} 3"),
        format!("nv_inference_exec_count{{{labels}}} 2"),
        format!("nv_inference_request_failure{{{labels},reason=\"OTHER\"}} 1"),
        format!("nv_inference_request_failure{{{labels},reason=\"BACKEND\"}} 0"),
    ] {
        assert!(
            metrics.lines().any(|each| each == line),
            "{line} is not in:\n{metrics}"
        );
    }
}

#[tokio::test]
async fn a_key_sees_its_models_only() {
    let gateway = gateway(&["affine", "strings"]);
    let with_key = |method, path: &str, body: String| {
        let mut context = RequestContext::new("k", path);
        context.principal = Some(Arc::new(Principal {
            key_id: "0".into(),
            name: "n".into(),
            priority: sluice_engine::request::Priority::Normal,
            models: Some(Arc::from(["strings".into()])),
            role: None,
            owner: None,
            rights: crate::access::Rights::unlimited(),
        }));
        let mut request = request(method, path, body);
        request.extensions_mut().insert(context);
        request
    };
    let index = send(
        &gateway,
        with_key(Method::POST, "/v2/repository/index", String::new()),
    )
    .await;
    assert_eq!(index.json().as_array().unwrap().len(), 1);
    let stats = send(
        &gateway,
        with_key(Method::GET, "/v2/models/stats", String::new()),
    )
    .await;
    assert_eq!(stats.json()["model_stats"][0]["name"], "strings");
    let infer = with_key(
        Method::POST,
        "/v2/models/affine/infer",
        affine().to_string(),
    );
    assert_eq!(send(&gateway, infer).await.status, 404);
}
