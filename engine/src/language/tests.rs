#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::*;
use crate::backend::fake::FakeTokens;
use crate::grammar::GrammarSpec;
use crate::request::{
    CacheSalt, FinishReason, Finished, GenerateRequest, Priority, SamplingParams,
};
use crate::text::{TextEvent, TextOptions, TextStream};
use crate::tokenizer::tools::{ToolChoice, ToolSpec};

const END: u32 = 258;

fn saying(text: &str) -> LanguageModel {
    let options = FakeOptions {
        tokens: FakeTokens::text(text, END),
        ..FakeOptions::default()
    };
    LanguageModel::fake("fake", options).unwrap()
}

fn random() -> LanguageModel {
    LanguageModel::fake("fake", FakeOptions::default()).unwrap()
}

fn request(model: &LanguageModel, prompt: &str, params: SamplingParams) -> GenerateRequest {
    GenerateRequest {
        prompt: model.tokenizer.encode(prompt, true).unwrap().into(),
        params,
        grammar: None,
        restriction: None,
        priority: Priority::Normal,
        tenant: Arc::from("test"),
        salt: CacheSalt::default(),
        deadline: None,
        whole: false,
    }
}

fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams {
        temperature: 0.0,
        max_tokens,
        ..SamplingParams::default()
    }
}

/// Everything a stream delivers.
struct Answer {
    deltas: Vec<String>,
    ids: Vec<u32>,
    prompt: Option<Vec<crate::text::PromptToken>>,
    finished: Finished,
}

async fn collect(model: &LanguageModel, request: GenerateRequest, options: TextOptions) -> Answer {
    let generation = model.generator.submit(request).unwrap();
    let mut stream = TextStream::new(generation, Arc::clone(&model.tokenizer), options);
    let (mut deltas, mut ids, mut prompt, mut finished) = (vec![], vec![], None, None);
    while let Some(event) = stream.next().await {
        assert!(finished.is_none(), "nothing follows the end");
        match event {
            TextEvent::Prompt(tokens) => prompt = Some(tokens),
            TextEvent::Delta { text, tokens } => {
                deltas.push(text);
                ids.extend(tokens.iter().map(|t| t.id));
            }
            TextEvent::Finished(last) => finished = Some(last),
            TextEvent::Failed(reason)
            | TextEvent::NotBegun(reason)
            | TextEvent::Refused(reason) => panic!("{reason}"),
        }
    }
    let finished = finished.unwrap();
    Answer {
        deltas,
        ids,
        prompt,
        finished,
    }
}

#[tokio::test]
async fn a_fake_model_says_its_text() {
    let model = saying("你好, wörld 😀");
    let answer = collect(
        &model,
        request(&model, "x", greedy(100)),
        TextOptions::default(),
    )
    .await;
    assert_eq!(answer.deltas.concat(), "你好, wörld 😀");
    assert!(answer.deltas.iter().all(|d| !d.contains('\u{FFFD}')));
    assert_eq!(answer.finished.reason, FinishReason::Stop);
    assert_eq!(model.tokenizer.decode(&answer.ids, true), "你好, wörld 😀");
}

#[tokio::test]
async fn a_stop_string_ends_the_sequence_and_does_not_leak() {
    let model = saying("one, two, three");
    for (include_stop, expected) in [(false, "one, t"), (true, "one, two,")] {
        let options = TextOptions {
            stop: vec!["wo,".to_owned(), "two,,".to_owned()],
            include_stop,
            ..TextOptions::default()
        };
        let answer = collect(&model, request(&model, "x", greedy(100)), options).await;
        assert_eq!(answer.deltas.concat(), expected);
        assert_eq!(model.tokenizer.decode(&answer.ids, true), expected);
        assert_eq!(answer.finished.reason, FinishReason::Stop);
        assert_eq!(answer.finished.usage.completion, "one, two,".len());
    }
}

#[tokio::test]
async fn text_held_back_is_flushed_when_the_length_limit_comes_first() {
    let model = saying("one, two, three");
    let options = TextOptions {
        stop: vec!["two!".to_owned()],
        ..TextOptions::default()
    };
    let answer = collect(&model, request(&model, "x", greedy(8)), options).await;
    assert_eq!(answer.deltas.concat(), "one, two");
    assert_eq!(answer.ids.len(), 8);
    assert_eq!(answer.finished.reason, FinishReason::Length);
}

#[tokio::test]
async fn prompt_logprobs_name_every_token() {
    let model = saying("a");
    let params = SamplingParams {
        prompt_logprobs: Some(0),
        ..greedy(1)
    };
    let answer = collect(
        &model,
        request(&model, "xyz", params),
        TextOptions::default(),
    )
    .await;
    let prompt = answer.prompt.unwrap();
    let ids: Vec<u32> = prompt.iter().map(|t| t.id).collect();
    assert_eq!(ids, [120, 121, 122]);
    assert!(prompt[0].sampled.is_none());
    assert!(prompt[1..].iter().all(|t| t.sampled.is_some()));
}

#[tokio::test]
async fn a_grammar_holds_through_the_whole_engine() {
    let model = random();
    let schema = json!({"type": "object", "required": ["ok", "n"], "additionalProperties": false,
                        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2]}}});
    let grammar = model
        .grammar
        .compile(&GrammarSpec::JsonSchema(schema))
        .unwrap();
    for seed in 0..4 {
        let params = SamplingParams {
            max_tokens: 100,
            seed: Some(seed),
            ..SamplingParams::default()
        };
        let mut request = request(&model, "x", params);
        request.grammar = Some(grammar.clone());
        let answer = collect(&model, request, TextOptions::default()).await;
        let value: Value = serde_json::from_str(&answer.deltas.concat()).unwrap();
        assert!(value["ok"].is_boolean() && value["n"].is_u64());
        assert_eq!(answer.finished.reason, FinishReason::Stop);
    }
}

#[tokio::test]
async fn a_forced_call_holds_with_random_weights() {
    let model = random();
    let tools = [ToolSpec {
        name: "set".to_owned(),
        parameters: json!({"type": "object", "required": ["on"], "additionalProperties": false,
                           "properties": {"on": {"type": "boolean"}}}),
        strict: true,
    }];
    let spec = model
        .tools
        .forced_grammar(&tools, &ToolChoice::Required, false)
        .unwrap();
    let mut request = request(&model, "x", SamplingParams::default());
    request.grammar = Some(model.grammar.compile(&spec).unwrap());
    let answer = collect(&model, request, TextOptions::default()).await;
    let mut parser = model.tools.parser(&tools, true);
    let mut events = parser.push(&answer.deltas.concat());
    events.extend(parser.finish());
    assert_eq!(parser.calls(), 1, "{events:?}");
}

#[tokio::test]
async fn dropping_a_stream_frees_its_slot() {
    let options = FakeOptions {
        slots: 1,
        step_time: Duration::from_millis(1),
        ..FakeOptions::default()
    };
    let model = LanguageModel::fake("fake", options).unwrap();
    let generation = model
        .generator
        .submit(request(&model, "x", greedy(500)))
        .unwrap();
    let mut stream = TextStream::new(
        generation,
        Arc::clone(&model.tokenizer),
        TextOptions::default(),
    );
    assert!(stream.next().await.is_some());
    drop(stream);
    // The only slot is needed for this one.
    let answer = collect(
        &model,
        request(&model, "y", greedy(3)),
        TextOptions::default(),
    )
    .await;
    assert_eq!(answer.finished.usage.completion, 3);
}

#[test]
fn the_fake_template_is_chat_ml() {
    let model = saying("a");
    let template = model.template.as_ref().unwrap();
    let messages = [json!({"role": "user", "content": "Hi"})];
    let prompt = template.render(&messages, None, true, &Map::new()).unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(model.tools, ToolFormat::Hermes);
    assert_eq!(model.info.context_length, 512);
    assert_eq!(model.tokenizer.eos(), [END]);
}

#[test]
fn a_folder_without_language_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = LanguageOptions::default();
    assert!(LanguageModel::load("x", dir.path(), options).is_err());
}

/// The example model of the repository, on ONNX Runtime.
fn helpdesk() -> LanguageModel {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = root.join("data/lib/libonnxruntime.so");
    onnx::init_runtime(None)
        .or_else(|_| onnx::init_runtime(Some(&library)))
        .expect("this test runs a real model: `make models` fetches ONNX Runtime");
    let options = LanguageOptions {
        onnx: OnnxOptions {
            threads: 1,
            slots: Some(2),
            ..OnnxOptions::default()
        },
        ..LanguageOptions::default()
    };
    LanguageModel::load(
        "helpdesk",
        &root.join("examples/helpdesk/models/v2"),
        options,
    )
    .unwrap()
}

#[tokio::test]
async fn the_example_model_answers_a_chat_with_json_and_with_forced_calls() {
    let model = helpdesk();
    let template = model.template.as_ref().unwrap();
    let messages = [json!({"role": "user", "content": "我的电脑连不上 VPN, please help"})];
    let prompt = template.render(&messages, None, true, &Map::new()).unwrap();
    let answer = |grammar| {
        let mut request = request(&model, &prompt, greedy(200));
        request.grammar = grammar;
        collect(
            &model,
            request,
            TextOptions {
                skip_special: true,
                ..TextOptions::default()
            },
        )
    };
    let free = answer(None).await;
    assert_eq!(free.finished.reason, FinishReason::Stop);
    let ticket: Value = serde_json::from_str(free.deltas.concat().trim()).unwrap();
    assert!(ticket.is_object());

    // Constrained to what it says anyway, it says the same.
    let object = model.grammar.compile(&GrammarSpec::JsonObject).unwrap();
    let constrained = answer(Some(object)).await;
    assert_eq!(constrained.deltas.concat(), free.deltas.concat());

    // It was never trained to call this tool.
    let tools = [ToolSpec {
        name: "restart".to_owned(),
        parameters: json!({"type": "object", "required": ["host"], "additionalProperties": false,
                           "properties": {"host": {"enum": ["vpn", "mail"]}}}),
        strict: true,
    }];
    let spec = model
        .tools
        .forced_grammar(&tools, &ToolChoice::Required, false)
        .unwrap();
    let called = answer(Some(model.grammar.compile(&spec).unwrap())).await;
    let mut parser = model.tools.parser(&tools, true);
    let mut events = parser.push(&called.deltas.concat());
    events.extend(parser.finish());
    assert_eq!(parser.calls(), 1, "{events:?}");
    assert_eq!(called.finished.reason, FinishReason::Stop);
}
