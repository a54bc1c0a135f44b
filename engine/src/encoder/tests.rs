#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::backend::onnx::{GpuOptions, Provider, init_runtime};
use crate::batcher::WorkError;
use crate::cuda::standin::Standin;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn try_load(dir: &Path, options: &EncoderOptions) -> Result<Encoder, LoadError> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lib/libonnxruntime.so");
    let info = init_runtime(None).or_else(|_| init_runtime(Some(&checkout)));
    info.expect("these tests run real models: `make models` fetches ONNX Runtime");
    Encoder::load("tiny", dir, options)
}

fn load(name: &str) -> Encoder {
    try_load(&fixture(name), &EncoderOptions::default()).unwrap()
}

fn json(name: &str, file: &str) -> Value {
    let text = std::fs::read(fixture(name).join(file)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|x| x.as_f64().unwrap() as f32).collect()
}

fn text(text: &str) -> EncoderInput {
    EncoderInput::Text(text.to_owned())
}

async fn embed(encoder: &Encoder, input: &str) -> Embedding {
    let options = EmbedOptions::default();
    encoder.embed(text(input), options).await.unwrap()
}

/// A text of `length` words, different for each `seed`.
fn words(length: usize, seed: usize) -> String {
    const WORDS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "kappa"];
    let word = |i: usize| WORDS[(i * i + seed * (i + 1)) % 5];
    (0..length).map(word).collect::<Vec<_>>().join(" ")
}

/// A copy of a fixture with one file replaced.
fn falsified(name: &str, file: &str, content: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "config.json",
        "model.onnx",
        "tokenizer.json",
        "sluice_probe.json",
    ] {
        std::fs::copy(fixture(name).join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join(file), content).unwrap();
    dir
}

#[tokio::test]
async fn embeddings_are_those_of_the_reference() {
    let encoder = load("tiny-encoder");
    assert_eq!((encoder.dimensions(), encoder.max_tokens()), (16, 24));
    assert!(encoder.embeds() && !encoder.scores_pairs() && encoder.healthy());
    for prompt in json("tiny-encoder", "sluice_probe.json")["prompts"]
        .as_array()
        .unwrap()
    {
        let words = prompt["text"].as_str().unwrap();
        let embedding = embed(&encoder, words).await;
        assert_eq!(embedding.tokens, words.split_whitespace().count() + 2);
        for (got, expected) in embedding.vector.iter().zip(numbers(&prompt["embedding"])) {
            assert!((got - expected).abs() < 1e-5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_mixed_lengths_at_once_are_not_mixed_up() {
    let encoder = load("tiny-encoder");
    let inputs: Vec<String> = (0..200).map(|i| words(i * 7 % 22, i)).collect();
    let mut alone = Vec::new();
    for input in &inputs {
        alone.push(embed(&encoder, input).await.vector);
    }
    let tasks: Vec<_> = inputs
        .into_iter()
        .map(|input| {
            let encoder = encoder.clone();
            tokio::spawn(async move { embed(&encoder, &input).await.vector })
        })
        .collect();
    for (task, alone) in tasks.into_iter().zip(alone) {
        let cosine = pooling::cosine(&task.await.unwrap(), &alone);
        assert!(cosine > 0.999_99, "{cosine}");
    }
    assert_eq!(encoder.stats().success.load(Relaxed), 400);
}

#[test]
fn padding_does_not_change_a_text() {
    for name in ["tiny-encoder", "tiny-reranker"] {
        // Loads the library, and proves that the folder is right.
        let encoder = load(name);
        let config = encoder_config(name, &fixture(name)).unwrap();
        let options = EncoderOptions::default();
        let mut sessions = worker::Sessions::open(name, &config, &options, None).unwrap();
        let encoded: Vec<Encoded> = [0, 22, 3, 11, 1]
            .map(|length| {
                encoder
                    .0
                    .text
                    .tokenize(&words(length, length), true)
                    .unwrap()
            })
            .into();
        let texts: Vec<&Encoded> = encoded.iter().collect();
        let together = sessions.first().run(&texts).unwrap();
        for (text, row) in texts.iter().zip(together) {
            let alone = sessions.first().run(&[text]).unwrap().swap_remove(0);
            for (a, b) in alone.iter().zip(row) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} alone, {b} in a batch");
            }
        }
    }
}

#[tokio::test]
async fn token_ids_give_the_embedding_of_their_text() {
    let encoder = load("tiny-encoder");
    let ids = encoder.tokenizer().encode("beta gamma", true).unwrap();
    let options = EmbedOptions::default();
    let of_ids = encoder
        .embed(EncoderInput::Tokens(ids), options)
        .await
        .unwrap();
    assert_eq!(of_ids.vector, embed(&encoder, "beta gamma").await.vector);
}

#[tokio::test]
async fn long_texts_are_refused_or_cut_wherever_they_are_tokenised() {
    let encoder = load("tiny-encoder");
    let cut = EmbedOptions {
        encode: EncodeOptions {
            truncate: true,
            ..EncodeOptions::default()
        },
        ..EmbedOptions::default()
    };
    let kept = embed(&encoder, &words(22, 3)).await;
    for length in [23, 5000] {
        let input = words(length, 3);
        let refused = encoder.embed(text(&input), EmbedOptions::default()).await;
        let expected = SubmitError::TooLong {
            prompt: length + 2,
            requested: length + 2,
            limit: 24,
        };
        assert_eq!(refused, Err(expected.into()));
        let embedding = encoder.embed(text(&input), cut).await.unwrap();
        assert_eq!((embedding.tokens, &embedding.vector), (24, &kept.vector));
    }
}

#[tokio::test]
async fn dimensions_cut_and_scale_again() {
    let encoder = load("tiny-encoder");
    let whole = embed(&encoder, "alpha").await.vector;
    let embed = |dimensions, normalize| {
        let options = EmbedOptions {
            dimensions: Some(dimensions),
            normalize: Some(normalize),
            ..EmbedOptions::default()
        };
        encoder.embed(text("alpha"), options)
    };
    let short = embed(4, true).await.unwrap().vector;
    assert_eq!(short.len(), 4);
    assert!((short.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!(pooling::cosine(&short, &whole[..4]) > 0.999_999);
    let raw = embed(16, false).await.unwrap().vector;
    assert!((raw.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() > 0.01);
    for wrong in [0, 17] {
        let refused = embed(wrong, true).await.unwrap_err();
        assert!(matches!(
            refused,
            EncodeError::Submit(SubmitError::Invalid {
                param: "dimensions",
                ..
            })
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_model_refuses_fails_alone() {
    let encoder = load("tiny-encoder");
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let encoder = encoder.clone();
            let input = if i % 8 == 0 { "outside" } else { "alpha" };
            tokio::spawn(async move { encoder.embed(text(input), EmbedOptions::default()).await })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        let result = task.await.unwrap();
        match i % 8 {
            0 => assert!(matches!(
                result,
                Err(EncodeError::Work(WorkError::Failed(_)))
            )),
            _ => assert!(result.is_ok()),
        }
    }
    assert!(encoder.healthy());
    assert_eq!(encoder.stats().failure.load(Relaxed), 8);
}

#[tokio::test]
async fn pairs_are_scored_as_by_the_reference() {
    let encoder = load("tiny-reranker");
    let expected = json("tiny-reranker", "pairs.json");
    let documents: Vec<String> = serde_json::from_value(expected["documents"].clone()).unwrap();
    let query = expected["query"].as_str().unwrap();
    let options = EncodeOptions::default();
    let scores = encoder
        .score_pairs(query, &documents, options)
        .await
        .unwrap();
    let logits = numbers(&expected["logits"]);
    assert_eq!(scores.len(), logits.len());
    for (score, logit) in scores.iter().zip(logits) {
        assert!((score.score - pooling::logistic(logit)).abs() < 1e-5);
    }
    assert_eq!(scores[1].tokens, 2 + 1 + 3);
    let refused = encoder.embed(text("alpha"), EmbedOptions::default()).await;
    assert!(matches!(
        refused,
        Err(EncodeError::Submit(SubmitError::Invalid {
            param: "model",
            ..
        }))
    ));
}

#[tokio::test]
async fn a_classifier_gives_probabilities_of_its_labels() {
    let encoder = load("tiny-classifier");
    assert_eq!(encoder.labels(), ["billing", "access", "other"]);
    let prompts = json("tiny-classifier", "sluice_probe.json");
    let prompt = &prompts["prompts"][2];
    let input = text(prompt["text"].as_str().unwrap());
    let result = encoder
        .classify(input, EncodeOptions::default())
        .await
        .unwrap();
    let expected = pooling::probabilities(&numbers(&prompt["embedding"]));
    for (got, expected) in result.probabilities.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-5);
    }
    let embedder = load("tiny-encoder");
    assert!(
        embedder
            .classify(text("a"), EncodeOptions::default())
            .await
            .is_err()
    );
    assert!(
        embedder
            .score_pairs("a", &[], EncodeOptions::default())
            .await
            .is_err()
    );
}

#[test]
fn a_model_that_disagrees_with_its_probe_is_refused() {
    for (name, index) in [
        ("tiny-encoder", 1),
        ("tiny-reranker", 0),
        ("tiny-classifier", 3),
    ] {
        let mut probe = json(name, "sluice_probe.json");
        let first = probe["prompts"][index]["embedding"][0].as_f64().unwrap();
        probe["prompts"][index]["embedding"][0] = (first + 0.5).into();
        let dir = falsified(name, "sluice_probe.json", &probe.to_string());
        let refused = try_load(dir.path(), &EncoderOptions::default()).unwrap_err();
        let LoadError::Parity { reason, .. } = refused else {
            panic!("{name}: {refused}");
        };
        assert!(reason.contains(&format!("prompt {index}")), "{reason}");
        let trusted = EncoderOptions {
            probe: false,
            ..EncoderOptions::default()
        };
        assert!(try_load(dir.path(), &trusted).is_ok());
    }
}

#[test]
fn a_probe_of_another_format_is_refused() {
    let probe = r#"{"format":2,"kind":"encoder","prompts":[]}"#;
    let dir = falsified("tiny-encoder", "sluice_probe.json", probe);
    let refused = try_load(dir.path(), &EncoderOptions::default()).unwrap_err();
    assert!(matches!(refused, LoadError::Folder { .. }), "{refused}");
}

#[tokio::test]
async fn a_closed_encoder_is_unavailable() {
    let encoder = load("tiny-encoder");
    encoder.close();
    let refused = encoder.embed(text("alpha"), EmbedOptions::default()).await;
    assert!(matches!(
        refused,
        Err(EncodeError::Submit(SubmitError::Unavailable(_)))
    ));
}

/// Token vectors that are pooled on a device give the embeddings that the host gives:
/// of texts of any length, alone and in crowds, over two workers.
#[tokio::test]
async fn pooling_on_a_device_gives_the_same_embeddings() {
    let standin = Standin::install(&[1 << 30]);
    let host = load("tiny-encoder");
    let options = EncoderOptions {
        workers: 2,
        // As on a GPU.
        wide: false,
        stand_in: true,
        ..EncoderOptions::default()
    };
    let device = Arc::new(try_load(&fixture("tiny-encoder"), &options).unwrap());
    let texts: Vec<String> = (0..40).map(|seed| words(1 + seed % 20, seed)).collect();
    let ask = |text: &String| {
        let (device, text) = (Arc::clone(&device), text.clone());
        tokio::spawn(async move { embed(&device, &text).await })
    };
    let asked: Vec<_> = texts.iter().map(ask).collect();
    for (text, there) in texts.iter().zip(asked) {
        let there = there.await.unwrap();
        let here = embed(&host, text).await;
        assert_eq!(there.tokens, here.tokens);
        let close = |a: &f32, b: &f32| (a - b).abs() < 1e-5;
        let both = here.vector.iter().zip(&there.vector);
        assert!(both.into_iter().all(|(a, b)| close(a, b)), "{text}");
    }
    assert_eq!(standin.alive(0).references, 2, "one a worker");
    drop(device);
    tokio::time::timeout(Duration::from_secs(60), async {
        while !standin.alive(0).is_nothing() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// A classifier has no token vectors to pool; it runs as it does on the host.
#[tokio::test]
async fn a_classifier_needs_no_pooling() {
    let standin = Standin::install(&[1 << 30]);
    let options = EncoderOptions {
        stand_in: true,
        ..EncoderOptions::default()
    };
    let device = try_load(&fixture("tiny-classifier"), &options).unwrap();
    assert!(device.healthy());
    assert!(standin.alive(0).is_nothing());
}

/// Batches have many shapes; a graph would not notice.
#[test]
fn batches_are_never_captured() {
    let gpu = GpuOptions {
        cuda_graphs: true,
        tf32: true,
        ..GpuOptions::default()
    };
    let options = EncoderOptions {
        gpu,
        ..EncoderOptions::on(Provider::Cuda { device: 0 })
    };
    let folder = ModelFolder::open(&fixture("tiny-encoder")).unwrap();
    let ModelKind::Encoder(config) = folder.kind else {
        panic!("it is an encoder");
    };
    let gpu = worker::gpu_options(&config, &options).unwrap();
    assert!(!gpu.cuda_graphs && gpu.tf32);
}
