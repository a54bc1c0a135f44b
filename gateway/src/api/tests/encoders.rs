//! Embedding, rerank and classifier models: tiny ones of the engine's fixtures, so
//! that these tests need ONNX Runtime (`make models`).

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use sluice_engine::backend::onnx::init_runtime;
use sluice_engine::encoder::{Encoder, EncoderOptions};

use super::rig::Rig;
use crate::router::LocalModel;

pub(super) async fn rig(folder: &str) -> Rig {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = root.join("data/lib/libonnxruntime.so");
    let found = init_runtime(None).or_else(|_| init_runtime(Some(&library)));
    found.expect("these tests run real models: `make models` fetches ONNX Runtime");
    let folder = root.join("engine/tests/fixtures").join(folder);
    let options = EncoderOptions {
        workers: 1,
        wide: false,
        ..EncoderOptions::default()
    };
    let encoder = Encoder::load("tiny", &folder, &options).unwrap();
    let rig = Rig::saying("Hello").await;
    rig.add("tiny", LocalModel::Encoder(encoder));
    rig
}

fn vector(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn embeddings_come_in_order_and_in_both_forms() {
    let rig = rig("tiny-encoder").await;
    let inputs = json!(["alpha beta", "gamma", "alpha beta"]);
    let body = json!({"model": "tiny", "input": inputs});
    let floats = rig.post("/v1/embeddings", &body).await.json();
    assert_eq!(floats["object"], "list");
    assert_eq!(floats["model"], "tiny");
    let data = floats["data"].as_array().unwrap();
    let indices: Vec<_> = data.iter().map(|item| item["index"].clone()).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(data[0]["embedding"], data[2]["embedding"]);
    assert_ne!(data[0]["embedding"], data[1]["embedding"]);
    assert!(floats["usage"]["prompt_tokens"].as_u64().unwrap() > 3);
    assert_eq!(
        floats["usage"]["prompt_tokens"],
        floats["usage"]["total_tokens"]
    );

    let body = json!({"model": "tiny", "input": inputs, "encoding_format": "base64"});
    let packed = rig.post("/v1/embeddings", &body).await.json();
    for (item, plain) in packed["data"].as_array().unwrap().iter().zip(data) {
        let bytes = BASE64_STANDARD
            .decode(item["embedding"].as_str().unwrap())
            .unwrap();
        let (chunks, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty());
        let numbers: Vec<f64> = chunks
            .iter()
            .map(|c| f64::from(f32::from_le_bytes(*c)))
            .collect();
        for (a, b) in numbers.iter().zip(vector(&plain["embedding"])) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}

#[tokio::test]
async fn text_and_its_token_ids_embed_alike() {
    let rig = rig("tiny-encoder").await;
    let body = json!({"model": "tiny", "prompt": "alpha beta"});
    let tokens = rig.post("/tokenize", &body).await.json()["tokens"].take();
    let embed = async |input: Value| {
        let body = json!({"model": "tiny", "input": input});
        rig.post("/v1/embeddings", &body).await.json()["data"][0]["embedding"].take()
    };
    let (by_text, by_ids) = (
        embed(json!("alpha beta")).await,
        embed(json!([tokens])).await,
    );
    for (a, b) in vector(&by_text).iter().zip(vector(&by_ids)) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[tokio::test]
async fn dimensions_cut_and_mistakes_are_named() {
    let rig = rig("tiny-encoder").await;
    let body = json!({"model": "tiny", "input": "alpha", "dimensions": 2, "normalize": true});
    let short = rig.post("/v1/embeddings", &body).await.json();
    let short = vector(&short["data"][0]["embedding"]);
    let length: f64 = short.iter().map(|x| x * x).sum();
    assert!(short.len() == 2 && (length - 1.0).abs() < 1e-5);
    let long = "alpha ".repeat(20_000);
    for (extra, code, param) in [
        (
            json!({"input": "alpha", "dimensions": 100_000}),
            "invalid_value",
            "dimensions",
        ),
        (json!({"input": long}), "context_length_exceeded", "input"),
        (json!({"input": ""}), "empty_string", "input"),
    ] {
        let mut body = extra;
        body["model"] = json!("tiny");
        let answer = rig.post("/v1/embeddings", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(
            (&answer.error()["code"], &answer.error()["param"]),
            (&json!(code), &json!(param))
        );
    }
    let body = json!({"model": "tiny", "input": long, "truncate": true});
    assert_eq!(rig.post("/v1/embeddings", &body).await.status, 200);
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(
        rig.post("/v1/chat/completions", &body).await.error()["param"],
        "model"
    );
}

#[tokio::test]
async fn an_embedding_model_ranks_by_cosine() {
    let rig = rig("tiny-encoder").await;
    let body = json!({"model": "tiny", "query": "alpha beta", "top_n": 2, "return_documents": true,
        "documents": ["gamma delta kappa", {"text": "alpha beta"}, "kappa"]});
    let answer = rig.post("/v1/rerank", &body).await.json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[0]["index"]), (2, &json!(1)));
    assert_eq!(results[0]["document"]["text"], "alpha beta");
    assert!((results[0]["relevance_score"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert!(results[1]["relevance_score"].as_f64() <= results[0]["relevance_score"].as_f64());
}

#[tokio::test]
async fn a_cross_encoder_scores_pairs() {
    let rig = rig("tiny-reranker").await;
    let body = json!({"model": "tiny", "query": "alpha", "documents": ["beta", "gamma", "alpha"]});
    for path in ["/v1/rerank", "/rerank", "/v2/rerank"] {
        let answer = rig.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let scores: Vec<f64> = answer.json()["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["relevance_score"].as_f64().unwrap())
            .collect();
        assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b));
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    }
    let models = rig.get("/v1/models").await.json();
    assert_eq!(models["data"][1]["kind"], "rerank");
    let body = json!({"model": "tiny", "input": "alpha"});
    let refused = rig.post("/v1/embeddings", &body).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.error()["param"]),
        (400, &json!("model"))
    );
}

#[tokio::test]
async fn a_classifier_names_the_likeliest_class() {
    let rig = rig("tiny-classifier").await;
    let body = json!({"model": "tiny", "input": ["alpha", "beta gamma"]});
    let answer = rig.post("/v1/classify", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.stable();
    for item in answer["data"].as_array().unwrap() {
        let probs = vector(&item["probs"]);
        assert_eq!(item["num_classes"], probs.len());
        assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-4);
    }
    let shape = json!({"id": answer["id"], "label": answer["data"][0]["label"],
        "usage": answer["usage"], "object": answer["object"]});
    assert_json_snapshot!("classify", shape);
}
