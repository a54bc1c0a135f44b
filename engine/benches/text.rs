//! Cost of text around a decode step: a grammar's mask and the detokeniser.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use sluice_engine::backend::fake::FakeOptions;
use sluice_engine::grammar::{GrammarCompiler, GrammarSpec};
use sluice_engine::language::LanguageModel;
use sluice_engine::tokenizer::detokenizer::{Detokenizer, DetokenizerOptions};
use sluice_engine::tokenizer::{TextTokenizer, TokenizerFiles};

fn masks(c: &mut Criterion) {
    let model = LanguageModel::fake("bench", FakeOptions::default()).unwrap();
    let schema = json!({"type": "object", "required": ["intent", "reply"], "additionalProperties": false,
        "properties": {"intent": {"enum": ["reset", "order", "other"]}, "reply": {"type": "string"}}});
    let spec = GrammarSpec::JsonSchema(schema);
    let grammar = model.grammar.compile(&spec).unwrap();
    let text = model
        .tokenizer
        .encode("{\"intent\":\"order\",\"reply\":\"on its way\"}", false);
    let ids = text.unwrap();

    c.bench_function("grammar/compile, cached", |b| {
        b.iter(|| model.grammar.compile(black_box(&spec)));
    });
    c.bench_function("grammar/matcher", |b| b.iter(|| grammar.matcher()));
    c.bench_function("grammar/mask and accept, 37 tokens", |b| {
        b.iter(|| {
            let mut matcher = grammar.matcher();
            for &id in &ids {
                black_box(matcher.mask().unwrap());
                matcher.accept(id).unwrap();
            }
        });
    });
}

/// A vocabulary of 70 000: all words of three letters, as they stand and behind a
/// space, in both cases.
fn large_vocabulary() -> TextTokenizer {
    let letters = || (b'a'..=b'z').map(char::from);
    let words = letters().flat_map(|a| {
        letters().flat_map(move |b| letters().map(move |c| [a, b, c].iter().collect::<String>()))
    });
    let words = words.flat_map(|w| {
        let upper = w.to_uppercase();
        [format!("Ġ{w}"), format!("Ġ{upper}"), w, upper]
    });
    let bytes = ('!'..='~').map(String::from);
    let tokens = bytes.chain(words).chain(["<end>".to_owned()]);
    let vocab: serde_json::Map<_, _> = tokens.zip(0..).map(|(t, id)| (t, json!(id))).collect();
    let end = vocab["<end>"].clone();
    let description = json!({
        "version": "1.0",
        "added_tokens": [{"id": end, "content": "<end>", "special": true, "single_word": false,
                          "lstrip": false, "rstrip": false, "normalized": false}],
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let inner = tokenizers::Tokenizer::from_bytes(description.to_string()).unwrap();
    let files = TokenizerFiles {
        eos_ids: vec![u32::try_from(end.as_u64().unwrap()).unwrap()],
        ..TokenizerFiles::default()
    };
    TextTokenizer::new(inner, &files).unwrap()
}

fn masks_of_a_large_vocabulary(c: &mut Criterion) {
    let tokenizer = large_vocabulary();
    let compiler = GrammarCompiler::new(&tokenizer).unwrap();
    let grammar = compiler.compile(&GrammarSpec::JsonObject).unwrap();
    let ids = tokenizer
        .encode("{\"key\":\"value\",\"n\":[1,2]}", false)
        .unwrap();
    c.bench_function(
        "grammar/mask and accept, 23 characters, 70 000 tokens",
        |b| {
            b.iter(|| {
                let mut matcher = grammar.matcher();
                for &id in &ids {
                    black_box(matcher.mask().unwrap());
                    matcher.accept(id).unwrap();
                }
            });
        },
    );
}

fn detokenisation(c: &mut Criterion) {
    let model = LanguageModel::fake("bench", FakeOptions::default()).unwrap();
    let ids = model
        .tokenizer
        .encode("The printer on floor 3 is offline. 打印机离线。", false);
    let ids = ids.unwrap();
    c.bench_function("detokenizer/push, one sentence", |b| {
        b.iter(|| {
            let mut detokenizer = Detokenizer::new(DetokenizerOptions::default());
            let mut text = String::new();
            for &id in &ids {
                detokenizer.push(&model.tokenizer, id, &mut text);
            }
            text
        });
    });
}

criterion_group!(benches, masks, masks_of_a_large_vocabulary, detokenisation);
criterion_main!(benches);
