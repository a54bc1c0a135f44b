//! Cost of text around a decode step: a grammar's mask and the detokeniser.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use sluice_engine::backend::fake::FakeOptions;
use sluice_engine::grammar::GrammarSpec;
use sluice_engine::language::LanguageModel;
use sluice_engine::tokenizer::detokenizer::{Detokenizer, DetokenizerOptions};

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

criterion_group!(benches, masks, detokenisation);
criterion_main!(benches);
