#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use super::*;

/// A generative folder whose graph is an empty file (it is not opened here).
fn generative(edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json!({"model": {
        "type": "llama", "vocab_size": 1024, "context_length": 256,
        "bos_token_id": 0, "eos_token_id": [1, 5], "pad_token_id": 2,
        "decoder": {
            "filename": "model.onnx", "head_size": 32, "hidden_size": 128,
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
            "inputs": {"past_key_names": "past.%d.k"},
            "sliding_window": {"window_size": 64, "layers": [0]},
        },
    }});
    edit(&mut config["model"]);
    std::fs::write(dir.path().join("genai_config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("model.onnx"), "").unwrap();
    dir
}

fn encoder(pooling: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    };
    std::fs::create_dir(dir.path().join("onnx")).unwrap();
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    write("onnx/model.onnx", &json!(""));
    write("tokenizer.json", &json!({}));
    write(
        "config.json",
        &json!({
            "architectures": ["BertModel"], "hidden_size": 384, "max_position_embeddings": 512,
        }),
    );
    write("sentence_bert_config.json", &json!({"max_seq_length": 256}));
    write(
        "modules.json",
        &json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ]),
    );
    write("1_Pooling/config.json", pooling);
    dir
}

#[test]
fn a_generative_folder_is_read_whole() {
    let dir = generative(|_| {});
    let ModelKind::Generative(config) = ModelFolder::open(dir.path()).unwrap().kind else {
        panic!("not generative");
    };
    assert_eq!(config.eos, [1, 5]);
    assert_eq!(
        (config.layers, config.kv_heads, config.head_size),
        (2, 2, 32)
    );
    assert_eq!(config.names.past_key, "past.%d.k");
    assert_eq!(config.names.past_value, "past_key_values.%d.value");
    assert_eq!(
        GenAiConfig::layer_name(&config.names.past_key, 7),
        "past.7.k"
    );
    assert_eq!(
        config.sliding_window,
        Some(SlidingWindow {
            size: 64,
            layers: vec![0]
        })
    );
}

#[test]
fn wrong_generative_folders_are_refused_by_field() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 12] = [
        ("num_hidden_layers", |m| {
            m["decoder"]["num_hidden_layers"] = json!(0)
        }),
        ("head_size", |m| {
            m["decoder"]["head_size"] = json!(1_u64 << 40)
        }),
        ("no multiple", |m| {
            m["decoder"]["num_key_value_heads"] = json!(3)
        }),
        ("token id 1024", |m| m["eos_token_id"] = json!(1024)),
        ("decoder.filename", |m| {
            m["decoder"]["filename"] = json!("../model.onnx")
        }),
        ("other.onnx", |m| {
            m["decoder"]["filename"] = json!("other.onnx")
        }),
        ("past_key_names", |m| {
            m["decoder"]["inputs"]["past_key_names"] = json!("past")
        }),
        ("is not as expected", |m| m["vocab_size"] = json!("many")),
        ("encoder-decoder", |m| m["encoder"] = json!({})),
        ("multi-modal", |m| m["vision"] = json!({})),
        ("position_ids", |m| {
            m["decoder"]["inputs"]["position_ids"] = json!("position_ids")
        }),
        ("pipeline", |m| m["decoder"]["pipeline"] = json!([])),
    ];
    for (expected, edit) in cases {
        let dir = generative(edit);
        let error = ModelFolder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn an_encoder_folder_is_read_whole() {
    let dir = encoder(&json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}));
    let ModelKind::Encoder(config) = ModelFolder::open(dir.path()).unwrap().kind else {
        panic!("not an encoder");
    };
    assert_eq!((config.hidden_size, config.max_tokens), (384, 256));
    assert_eq!(
        (config.pooling, config.normalize),
        (Some(Pooling::Mean), true)
    );
    assert!(config.model.ends_with("onnx/model.onnx"));
}

#[test]
fn pooling_must_be_one_mode() {
    for pooling in [
        json!({}),
        json!({"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}),
    ] {
        let dir = encoder(&pooling);
        let error = ModelFolder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("1_Pooling/config.json"), "{error}");
    }
}

#[test]
fn other_graphs_are_tensor_models_and_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelFolder::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("genai_config.json"), "{error}");
    std::fs::write(dir.path().join("net.onnx"), "").unwrap();
    let folder = ModelFolder::open(dir.path()).unwrap();
    assert!(matches!(folder.kind, ModelKind::Tensor { ref model } if model.ends_with("net.onnx")));
    std::fs::write(dir.path().join("net2.onnx"), "").unwrap();
    assert!(ModelFolder::open(dir.path()).is_err());
    assert!(ModelFolder::open(&dir.path().join("net2.onnx")).is_ok());
    assert!(ModelFolder::open(&dir.path().join("absent")).is_err());
}

#[test]
fn the_digest_changes_with_content_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let digest = || {
        let kind = ModelKind::Encoder(EncoderConfig {
            model: PathBuf::new(),
            architecture: String::new(),
            hidden_size: 1,
            max_tokens: 1,
            pooling: None,
            normalize: false,
            pad: 0,
            labels: Vec::new(),
        });
        ModelFolder {
            dir: dir.path().to_path_buf(),
            kind,
        }
        .digest()
        .unwrap()
    };
    std::fs::write(dir.path().join("a"), "1").unwrap();
    let first = digest();
    // sha256("<sha256 of "1">  a\n")
    let line = format!("{}  a\n", hex(&Sha256::digest(b"1")));
    assert_eq!(first, hex(&Sha256::digest(line.as_bytes())));
    std::fs::write(dir.path().join("a"), "2").unwrap();
    let second = digest();
    std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    let third = digest();
    assert!(first != second && second != third);
}

/// Two tensor models may differ in their weights' file alone.
#[test]
fn the_digest_of_a_graph_covers_the_weights_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    std::fs::create_dir(dir.path().join("parts")).unwrap();
    put(
        "model.onnx",
        "… location weights.bin … location parts/more.bin …",
    );
    put("weights.bin", "1");
    put("parts/more.bin", "1");
    put("README.md", "1");
    let graph = dir.path().join("model.onnx");
    let digest = || ModelFolder::open(&graph).unwrap().digest().unwrap();
    let first = digest();
    put("README.md", "2");
    assert_eq!(digest(), first, "what the graph does not name is not its");
    put("weights.bin", "2");
    let second = digest();
    put("parts/more.bin", "2");
    let third = digest();
    assert!(first != second && second != third && first != third);
}

#[test]
fn the_digest_of_a_graph_without_other_files_is_that_of_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let graph = dir.path().join("model.onnx");
    // Its own name in it does not count it twice.
    std::fs::write(&graph, "model.onnx").unwrap();
    let line = format!("{}  model.onnx\n", hex(&Sha256::digest(b"model.onnx")));
    let digest = ModelFolder::open(&graph).unwrap().digest().unwrap();
    assert_eq!(digest, hex(&Sha256::digest(line.as_bytes())));
}

/// A graph comes before an engine: nobody can tell whether the engine is of that graph.
#[test]
fn an_engine_stands_for_a_graph_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::write(dir.path().join(name), name).unwrap();
    let model = || match ModelFolder::open(dir.path()).map(|folder| folder.kind) {
        Ok(ModelKind::Tensor { model }) => model.file_name().unwrap().to_str().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    write("a.engine");
    assert_eq!(model(), "a.engine");
    write("b.plan");
    assert!(model().contains("2 engine files and none is model.plan"));
    write("model.plan");
    assert_eq!(model(), "model.plan");
    write("c.onnx");
    assert_eq!(model(), "c.onnx");
    let named = ModelFolder::open(&dir.path().join("b.plan")).unwrap();
    assert_eq!(named.graph_files().unwrap(), [dir.path().join("b.plan")]);
}
