//! What the engine generates without HTTP: the rate that the server's is held to.
//!
//! ```text
//! in-process FOLDER PROMPTS CLIENTS TOKENS SECONDS [SLOTS] [CONTEXT]
//! ```
//!
//! PROMPTS is a file with a JSON string a line. CLIENTS sequences run in a closed loop for SECONDS, each
//! templated and tokenised as a chat request, TOKENS tokens long whatever the model says. Prints JSON.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that may stop at the first surprise"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use sluice_engine::backend::onnx::OnnxOptions;
use sluice_engine::language::{LanguageModel, LanguageOptions};
use sluice_engine::request::{
    CacheSalt, GenerateRequest, GenerationEvent, Priority, SamplingParams,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One prompt as the server's chat endpoint would submit it.
fn request(model: &LanguageModel, prompt: &str, tokens: usize) -> GenerateRequest {
    let messages = [json!({"role": "user", "content": prompt})];
    let template = model.template.as_ref().unwrap();
    let text = template.render(&messages, None, true, &Map::new()).unwrap();
    GenerateRequest {
        prompt: model.tokenizer.encode(&text, false).unwrap().into(),
        params: SamplingParams {
            temperature: 0.0,
            max_tokens: tokens,
            ignore_eos: true,
            ..SamplingParams::default()
        },
        grammar: None,
        restriction: None,
        priority: Priority::Normal,
        tenant: "bench".into(),
        salt: CacheSalt::default(),
        deadline: None,
        whole: false,
    }
}

/// Tokens of one sequence.
async fn generate(model: &LanguageModel, prompt: &str, tokens: usize) -> usize {
    let mut generation = model
        .generator
        .submit(request(model, prompt, tokens))
        .unwrap();
    let mut count = 0;
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Token(_) => count += 1,
            GenerationEvent::Failed(reason)
            | GenerationEvent::NotBegun(reason)
            | GenerationEvent::Refused(reason) => {
                panic!("{reason}")
            }
            GenerationEvent::Prompt(_) | GenerationEvent::Finished(_) => {}
        }
    }
    count
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize| {
        arguments
            .get(index)
            .map(|text| text.parse::<u32>().unwrap())
    };
    let (clients, tokens) = (number(3).unwrap(), number(4).unwrap() as usize);
    let time = Duration::from_secs(number(5).unwrap().into());
    let onnx = OnnxOptions {
        slots: number(6),
        capacity: number(7),
        ..OnnxOptions::default()
    };
    let options = LanguageOptions {
        onnx,
        ..LanguageOptions::default()
    };
    let model = Arc::new(LanguageModel::load("bench", Path::new(&arguments[1]), options).unwrap());
    let lines = std::fs::read_to_string(&arguments[2]).unwrap();
    let prompts: Arc<Vec<String>> = Arc::new(
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    );
    generate(&model, &prompts[0], tokens).await;
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let loops: Vec<_> = (0..clients)
        .map(|_| {
            let (model, prompts) = (Arc::clone(&model), Arc::clone(&prompts));
            let (next, done) = (Arc::clone(&next), Arc::clone(&done));
            tokio::spawn(async move {
                while began.elapsed() < time {
                    let prompt = &prompts[next.fetch_add(1, Relaxed) % prompts.len()];
                    done.fetch_add(generate(&model, prompt, tokens).await, Relaxed);
                }
            })
        })
        .collect();
    for client in loops {
        client.await.unwrap();
    }
    let rate = done.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("{}", json!({"tokens_per_second": rate}));
}
