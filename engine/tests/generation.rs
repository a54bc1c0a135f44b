#![expect(clippy::unwrap_used, reason = "tests")]

//! The generator over real models: what a sequence says does not depend on who
//! else runs, in fp32 and greedily.

use std::path::{Path, PathBuf};

use sluice_engine::backend::onnx::{OnnxOptions, init_runtime, language_model};
use sluice_engine::generator::{Generation, GeneratorHandle, GeneratorOptions};
use sluice_engine::request::{
    CacheSalt, GenerateRequest, GenerationEvent, Priority, SamplingParams,
};

const TOKENS: usize = 24;

fn start(folder: &Path, slots: u32, options: GeneratorOptions) -> GeneratorHandle {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lib/libonnxruntime.so");
    init_runtime(None)
        .or_else(|_| init_runtime(Some(&checkout)))
        .expect("these tests run real models: `make models` fetches ONNX Runtime");
    let onnx = OnnxOptions {
        threads: 1,
        slots: Some(slots),
        capacity: Some(128),
        ..OnnxOptions::default()
    };
    let factory = language_model(folder, "test", &onnx).unwrap();
    GeneratorHandle::start("test", factory, options).unwrap()
}

fn submit(handle: &GeneratorHandle, prompt: &[u32]) -> Generation {
    let request = GenerateRequest {
        prompt: prompt.into(),
        params: SamplingParams {
            temperature: 0.0,
            max_tokens: TOKENS,
            ..SamplingParams::default()
        },
        grammar: None,
        restriction: None,
        priority: Priority::Normal,
        tenant: "test".into(),
        salt: CacheSalt::default(),
        deadline: None,
        whole: false,
    };
    handle.submit(request).unwrap()
}

async fn tokens(mut generation: Generation) -> Vec<u32> {
    let mut tokens = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Token(token) => tokens.push(token.id),
            GenerationEvent::Failed(reason)
            | GenerationEvent::NotBegun(reason)
            | GenerationEvent::Refused(reason) => {
                panic!("{reason}")
            }
            GenerationEvent::Prompt(_) | GenerationEvent::Finished(_) => {}
        }
    }
    tokens
}

/// 24 prompts of 5–94 tokens; every second one begins like the others.
fn prompts(vocab: u32) -> Vec<Vec<u32>> {
    (0..24u32)
        .map(|i| {
            let shared = (0..(i % 2) * (20 + i)).map(|j| 3 + j * 37);
            let own = (0..5 + i * 2).map(|j| 3 + i * 101 + j * 53);
            shared.chain(own).map(|token| token % vocab).collect()
        })
        .collect()
}

async fn company_changes_nothing(folder: PathBuf) {
    let alone = start(
        &folder,
        1,
        GeneratorOptions {
            prefix_reuse: false,
            ..GeneratorOptions::default()
        },
    );
    let prompts = prompts(alone.capabilities().vocab);
    let mut expected = Vec::new();
    for prompt in &prompts {
        expected.push(tokens(submit(&alone, prompt)).await);
    }
    drop(alone);

    let busy = start(
        &folder,
        6,
        GeneratorOptions {
            // Small chunks, so that every longer prompt takes several steps.
            prefill_chunk: 24,
            step_budget: 40,
            inter_token_target: None,
            ..GeneratorOptions::default()
        },
    );
    let running: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            // For each one that is read to its end another is dropped at once or later.
            let dropped = submit(&busy, prompt);
            let kept = submit(&busy, prompt);
            (dropped, kept)
        })
        .collect();
    for (i, ((mut dropped, kept), expected)) in running.into_iter().zip(&expected).enumerate() {
        if i % 3 == 0 {
            dropped.next().await;
        }
        drop(dropped);
        assert_eq!(&tokens(kept).await, expected, "prompt {i}");
    }
    let stats = busy.stats().snapshot();
    assert!(stats.prefix_hits > 0 && stats.copied_tokens > 0);
    let batched: u64 = stats.batch_sizes[2..].iter().sum();
    assert!(batched > 0, "more than two sequences shared a step");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[tokio::test]
async fn llama_in_company() {
    company_changes_nothing(fixture("tiny-llama")).await;
}

/// Soft-capped logits and windowed layers.
#[tokio::test]
async fn gemma2_in_company() {
    company_changes_nothing(fixture("tiny-gemma2")).await;
}
