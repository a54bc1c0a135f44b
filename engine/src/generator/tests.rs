#![expect(clippy::unwrap_used, reason = "tests")]

//! The device thread through its handle, over the fake backend.

use super::*;
use crate::backend::fake::{FakeBackend, FakeControl, FakeOptions, next_token};
use crate::request::{FinishReason, Finished, SamplingParams};

fn request(prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.into(),
        params: SamplingParams {
            temperature: 0.0,
            max_tokens,
            ..SamplingParams::default()
        },
        grammar: None,
        priority: Priority::Normal,
        tenant: "tenant".into(),
        deadline: None,
    }
}

fn start(fake: &FakeOptions, options: GeneratorOptions) -> (GeneratorHandle, FakeControl) {
    let control = FakeControl::new();
    let factory = FakeBackend::factory(fake.clone(), control.clone());
    let handle = GeneratorHandle::start("fake", factory, options).unwrap();
    (handle, control)
}

/// What a sequence must be, computed alone.
fn alone(fake: &FakeOptions, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let mut history = prompt.to_vec();
    for _ in 0..max_tokens.min(fake.capacity as usize - prompt.len()) {
        let next = next_token(&fake.tokens, fake.vocab, &history);
        history.push(next);
    }
    history.split_off(prompt.len())
}

struct Collected {
    tokens: Vec<u32>,
    end: Result<Finished, String>,
}

async fn collect(mut generation: Generation) -> Collected {
    let mut tokens = Vec::new();
    let end = loop {
        match generation.next().await.unwrap() {
            GenerationEvent::Prompt(_) => {}
            GenerationEvent::Token(token) => tokens.push(token.id),
            GenerationEvent::Finished(finished) => break Ok(finished),
            GenerationEvent::Failed(reason) => break Err(reason),
        }
    };
    assert_eq!(generation.next().await, None, "nothing after the end");
    Collected { tokens, end }
}

#[tokio::test]
async fn one_sequence_is_what_the_model_says() {
    let fake = FakeOptions::default();
    let (handle, _) = start(&fake, GeneratorOptions::default());
    let got = collect(handle.submit(request(&[1, 2, 3], 20)).unwrap()).await;
    assert_eq!(got.tokens, alone(&fake, &[1, 2, 3], 20));
    let end = got.end.unwrap();
    assert_eq!(end.reason, FinishReason::Length);
    assert_eq!((end.usage.prompt, end.usage.completion), (3, 20));
}

#[tokio::test]
async fn sixty_four_at_once_are_never_mixed_up() {
    let fake = FakeOptions::default();
    let (handle, control) = start(&fake, GeneratorOptions::default());
    let prompts: Vec<Vec<u32>> = (0..64u32)
        .map(|i| {
            // Half of them share a long prefix.
            let shared = (i % 2) * 100;
            (0..shared)
                .chain((0..1 + i * 3).map(|j| (i * 31 + j) % 256))
                .collect()
        })
        .collect();
    let tasks: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(i, prompt)| tokio::spawn(collect(handle.submit(request(prompt, 5 + i)).unwrap())))
        .collect();
    for (i, (task, prompt)) in tasks.into_iter().zip(&prompts).enumerate() {
        let got = task.await.unwrap();
        assert_eq!(got.tokens, alone(&fake, prompt, 5 + i), "sequence {i}");
    }
    let stats = handle.stats().snapshot();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_tokens_used),
        (0, 0, 0)
    );
    assert!(stats.prefix_hits > 0 && stats.finished_length == 64);
    assert!(control.most_rows() > 1, "they were batched");
}
