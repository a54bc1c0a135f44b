#![expect(clippy::unwrap_used, reason = "tests")]

//! The device thread through its handle, over the fake backend.

mod failures;
mod limits;
mod streams;

use super::*;
use crate::backend::fake::{FakeBackend, FakeControl, FakeOptions, FakeTokens, next_token};
use crate::request::{CacheSalt, Finished, SampledToken, SamplingParams};

/// End-of-sequence in every test; [`model`] never draws it by itself.
const EOS: u32 = 0;

/// 8 slots of 512 tokens over 256 ids, endless.
fn model() -> FakeOptions {
    FakeOptions {
        tokens: FakeTokens::Hash { low: 1, high: 256 },
        ..FakeOptions::default()
    }
}

fn options() -> GeneratorOptions {
    GeneratorOptions {
        eos: vec![EOS],
        ..GeneratorOptions::default()
    }
}

fn request(prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.into(),
        params: SamplingParams {
            temperature: 0.0,
            max_tokens,
            ..SamplingParams::default()
        },
        grammar: None,
        restriction: None,
        priority: Priority::Normal,
        tenant: "tenant".into(),
        salt: CacheSalt::default(),
        deadline: None,
        whole: false,
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
    tokens: Vec<SampledToken>,
    prompt: Option<Vec<Option<SampledToken>>>,
    end: Result<Finished, String>,
}

impl Collected {
    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

async fn collect(mut generation: Generation) -> Collected {
    let (mut tokens, mut prompt) = (Vec::new(), None);
    let end = loop {
        match generation.next().await.unwrap() {
            GenerationEvent::Prompt(all) => {
                assert!(tokens.is_empty() && prompt.is_none(), "one, and first");
                prompt = Some(all);
            }
            GenerationEvent::Token(token) => tokens.push(token),
            GenerationEvent::Finished(finished) => break Ok(finished),
            GenerationEvent::Failed(reason)
            | GenerationEvent::NotBegun(reason)
            | GenerationEvent::Refused(reason) => {
                break Err(reason);
            }
        }
    };
    assert_eq!(generation.next().await, None, "nothing after the end");
    Collected {
        tokens,
        prompt,
        end,
    }
}

/// Until the device thread has come to where the condition holds; it does so by
/// itself, or the test runner's time limit ends the test.
async fn eventually(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
