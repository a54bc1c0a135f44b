#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde_json::json;

use super::*;
use crate::pipelines::{check_params, discover};

/// The pipelines of this repository, by name.
fn pipelines() -> Vec<(String, Json)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let found = discover(&root).unwrap().into_values();
    found
        .filter_map(|it| Some((it.name, it.parameters?)))
        .collect()
}

fn checkpoint(architecture: &str, files: &[(&str, u64)]) -> Checkpoint {
    let config = json!({ "architectures": [architecture] });
    with_config(&config, files)
}

fn with_config(config: &Json, files: &[(&str, u64)]) -> Checkpoint {
    let text = config.to_string().into_bytes();
    let files = files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), *bytes));
    let mut made = Checkpoint::new(files.chain([(CONFIG.to_owned(), text.len() as u64)]));
    made.texts.insert(CONFIG, text);
    made
}

fn told(pipeline: &str, params: &Json, checkpoint: &Checkpoint) -> Vec<String> {
    let all = pipelines();
    let others: Vec<(&str, &Json)> = all.iter().map(|(name, it)| (name.as_str(), it)).collect();
    let (_, schema) = all.iter().find(|(name, _)| name == pipeline).unwrap();
    let wrong = check(schema, params, checkpoint, &others);
    wrong.iter().map(ToString::to_string).collect()
}

const WHOLE: [(&str, u64); 2] = [("model.safetensors", 70_000_000_000), ("tokenizer.json", 1)];

#[test]
fn a_checkpoint_is_what_the_pipeline_takes() {
    let none: Vec<String> = Vec::new();
    let llama = checkpoint("LlamaForCausalLM", &WHOLE);
    assert_eq!(told("convert-causal-lm", &json!({}), &llama), none);
    let bert = checkpoint("BertModel", &WHOLE);
    let pooled = json!({ "pooling": "mean" });
    assert_eq!(told("convert-encoder", &pooled, &bert), none);
    let refused = told("convert-causal-lm", &json!({}), &bert);
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("source: is a BertModel, which this pipeline does not convert")
            && refused[0].ends_with("convert-encoder does"),
        "{refused:?}"
    );
    // Code that comes with it may make anything of it.
    let trusted = json!({ "trust_remote_code": true });
    assert_eq!(told("convert-causal-lm", &trusted, &bert), none);
    let t5 = with_config(
        &json!({ "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": true }),
        &WHOLE,
    );
    let refused = told("convert-encoder", &json!({}), &t5);
    assert!(
        refused[0].contains("is_encoder_decoder: true"),
        "{refused:?}"
    );
}

#[test]
fn a_parameter_is_asked_for_where_no_file_says_it() {
    let needed =
        ["params.pooling: is needed: the checkpoint has no modules.json or 1_Pooling/config.json"];
    let bert = checkpoint("BertModel", &WHOLE);
    assert_eq!(told("convert-encoder", &json!({}), &bert), needed);
    let classifier = checkpoint("BertForSequenceClassification", &WHOLE);
    assert!(told("convert-encoder", &json!({}), &classifier).is_empty());
    assert!(
        told(
            "convert-encoder",
            &json!({ "task": "classification" }),
            &bert
        )
        .is_empty()
    );
    let mut whole = bert;
    whole.files.insert("modules.json".into(), 1);
    assert!(told("convert-encoder", &json!({}), &whole).is_empty());
}

#[test]
fn parameters_that_do_not_go_together_are_refused() {
    let all = pipelines();
    let (_, schema) = all
        .iter()
        .find(|(name, _)| name == "convert-causal-lm")
        .unwrap();
    let told = |mut params: Json| {
        params["source"] = json!("artifact:art_00000000000000000000000000");
        let wrong = check_params(schema, &params);
        wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(json!({ "precision": "fp16", "device": "cpu" })),
        ["params.device: is cpu; for `precision` fp16 it must be cuda or absent"]
    );
    // fp32 is what it is without a word.
    assert_eq!(
        told(json!({ "block_size": 32 })),
        ["params.block_size: is for `precision` int4 and int8"]
    );
    for fine in [
        json!({ "precision": "int4", "block_size": 32, "asymmetric": true }),
        json!({ "asymmetric": false, "device": "cpu" }),
        json!({ "precision": "fp16", "device": "cuda" }),
    ] {
        assert!(told(fine).is_empty());
    }
}

#[test]
fn what_is_missing_is_named() {
    let without_tokenizer = checkpoint("LlamaForCausalLM", &WHOLE[..1]);
    let refused = told("convert-causal-lm", &json!({}), &without_tokenizer);
    assert!(
        refused[0].starts_with("source: has no tokenizer (tokenizer.json"),
        "{refused:?}"
    );
    let named = json!({ "tokenizer": "artifact:art_x" });
    assert!(told("convert-causal-lm", &named, &without_tokenizer).is_empty());

    let bare = Checkpoint::new([
        ("model.safetensors".to_owned(), 1),
        ("tokenizer.json".to_owned(), 1),
    ]);
    let refused = told("convert-causal-lm", &json!({}), &bare);
    assert!(
        refused[0].starts_with("source: has no config.json"),
        "{refused:?}"
    );
    let empty = with_config(&json!({}), &WHOLE);
    let refused = told("convert-causal-lm", &json!({}), &empty);
    assert!(refused[0].contains("without architectures"), "{refused:?}");

    let weightless = checkpoint("LlamaForCausalLM", &WHOLE[1..]);
    let refused = told("convert-causal-lm", &json!({}), &weightless);
    assert!(
        refused[0].starts_with("source: has no weights"),
        "{refused:?}"
    );
    let pickled = checkpoint(
        "LlamaForCausalLM",
        &[("pytorch_model.bin", 1), ("tokenizer.json", 1)],
    );
    let refused = told("convert-causal-lm", &json!({}), &pickled);
    assert!(refused[0].contains("pytorch_model.bin"), "{refused:?}");
    assert!(
        told(
            "convert-causal-lm",
            &json!({ "allow_pickle": true }),
            &pickled
        )
        .is_empty()
    );
}

#[test]
fn shards_are_whole() {
    let index = json!({
        "metadata": { "total_size": 200 },
        "weight_map": { "a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors" },
    });
    let sharded = |files: &[(&str, u64)]| {
        let mut made = checkpoint("LlamaForCausalLM", files);
        made.files.insert("tokenizer.json".into(), 1);
        let text = index.to_string().into_bytes();
        made.files.insert(INDEX.into(), text.len() as u64);
        made.texts.insert(INDEX, text);
        assert_eq!(made.reads(), [CONFIG, INDEX]);
        told("convert-causal-lm", &json!({}), &made)
    };
    assert!(sharded(&[("m-1.safetensors", 110), ("m-2.safetensors", 100)]).is_empty());
    let refused = sharded(&[("m-1.safetensors", 110)]);
    assert!(
        refused[0].contains("lacks 1 of the 2 files") && refused[0].contains("m-2.safetensors"),
        "{refused:?}"
    );
    let refused = sharded(&[("m-1.safetensors", 110), ("m-2.safetensors", 10)]);
    assert!(refused[0].contains("120 bytes of weights"), "{refused:?}");
}

#[test]
fn a_pipeline_that_wants_nothing_is_given_anything() {
    let nothing = json!({ "properties": { "source": { "type": "string", "x-content": "path" } } });
    assert!(!looks_into(&nothing));
    assert!(check(&nothing, &json!({}), &Checkpoint::default(), &[]).is_empty());
    assert!(matches("*ForCausalLM", "LlamaForCausalLM") && !matches("*ForCausalLM", "BertModel"));
    assert!(matches("vocab.*", "vocab.txt") && matches("a", "a") && !matches("a", "ab"));
}
