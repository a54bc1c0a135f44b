//! Folders that lie: each is refused at load, in words, and none crashes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use serde_json::{Value, json};

use super::testing::{copy, fixture, load, ready};
use super::*;

fn edit_json(dir: &Path, file: &str, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn refusal(dir: &Path, options: &OnnxOptions) -> LoadError {
    match load(dir, options) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error,
    }
}

#[test]
fn a_declaration_that_does_not_fit_the_graph_is_refused_by_field() {
    let cases = [
        ("num_hidden_layers", json!(1), "past_key_values.1.key"),
        ("num_hidden_layers", json!(3), "num_hidden_layers is 3"),
        (
            "num_attention_heads",
            json!(8),
            "num_attention_heads is 8, the graph has 4",
        ),
        (
            "num_key_value_heads",
            json!(4),
            "num_key_value_heads is 4, the graph has 2",
        ),
        ("head_size", json!(4), "head_size is 4, the graph has 16"),
        ("head_size", json!(32), "head_size is 32, the graph has 16"),
        (
            "head_size",
            json!(128),
            "head_size is 128, the graph has 16",
        ),
        ("hidden_size", json!(64), "hidden_size is 64"),
    ];
    for (field, value, expected) in cases {
        let dir = copy("tiny-llama");
        edit_json(dir.path(), "genai_config.json", |config| {
            config["model"]["decoder"][field] = value.clone();
        });
        let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
        assert!(error.contains(expected), "{field} = {value}: {error}");
    }
}

#[test]
fn other_wrong_declarations_are_refused_too() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 5] = [
        ("vocab_size is 256, the graph's logits have 128", |m| {
            m["vocab_size"] = json!(256)
        }),
        ("no output `scores`", |m| {
            m["decoder"]["outputs"]["logits"] = json!("scores")
        }),
        ("does not know", |m| {
            m["decoder"]["inputs"]["input_ids"] = json!("ids")
        }),
        ("where `swapped.0.value` is declared", |m| {
            m["decoder"]["outputs"]["present_value_names"] = json!("swapped.%d.value");
        }),
        ("layer 1 is declared with a window of 16", |m| {
            m["decoder"]["sliding_window"] = json!({"window_size": 16, "layers": [1]});
        }),
    ];
    for (expected, edit) in cases {
        let dir = copy("tiny-llama");
        edit_json(dir.path(), "genai_config.json", |config| {
            edit(&mut config["model"])
        });
        let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Keys where values are declared, and the reverse: every shape fits, so only the
/// names in the graph can tell.
#[test]
fn swapped_keys_and_values_are_noticed() {
    let dir = copy("tiny-llama");
    edit_json(dir.path(), "genai_config.json", |config| {
        let names = &mut config["model"]["decoder"]["outputs"];
        names["present_key_names"] = json!("present.%d.value");
        names["present_value_names"] = json!("present.%d.key");
    });
    let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
    assert!(
        error.contains("`present.0.key` where `present.0.value` is declared"),
        "{error}"
    );
}

#[test]
fn missing_and_truncated_weights_are_refused_by_file() {
    let dir = copy("tiny-llama");
    let weights = dir.path().join("model.onnx.data");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
    assert!(error.contains("model.onnx.data is truncated"), "{error}");
    std::fs::remove_file(&weights).unwrap();
    let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
    assert!(
        error.contains("model.onnx.data") && error.contains("external weights"),
        "{error}"
    );
}

#[test]
fn a_graph_that_is_cut_anywhere_is_refused_without_a_crash() {
    let dir = copy("tiny-llama");
    let path = dir.path().join("model.onnx");
    let bytes = std::fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(997) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        refusal(dir.path(), &OnnxOptions::default());
    }
}

#[test]
fn a_lost_window_is_refused_unless_a_probe_proves_it_harmless() {
    let dir = copy("tiny-llama");
    edit_json(dir.path(), "genai_config.json", |config| {
        config["model"]["decoder"]["sliding_window"] = json!({"window_size": 16, "layers": []});
    });
    load(dir.path(), &OnnxOptions::default()).unwrap();
    std::fs::remove_file(dir.path().join(probe::FILE)).unwrap();
    let error = refusal(dir.path(), &OnnxOptions::default()).to_string();
    assert!(error.contains("a window of 16 tokens"), "{error}");
}

#[test]
fn memory_is_summed_and_limits_are_kept() {
    let options = |slots, capacity, budget| OnnxOptions {
        slots,
        capacity,
        memory_budget: budget,
        ..OnnxOptions::default()
    };
    let error = refusal(
        &fixture("tiny-llama"),
        &options(Some(64), None, Some(1 << 20)),
    );
    let text = error.to_string();
    assert!(matches!(error, LoadError::DoesNotFit { .. }), "{text}");
    // 2 layers × (key + value) × 2 heads × 16 × 4 bytes = 512 bytes a token.
    assert!(text.contains("64 slots × 128 tokens × 512 B"), "{text}");
    for options in [options(None, Some(129), None), options(Some(0), None, None)] {
        assert!(matches!(
            refusal(&fixture("tiny-llama"), &options),
            LoadError::Unsupported { .. }
        ));
    }
    let lm = load(&fixture("tiny-llama"), &options(None, None, Some(1 << 20))).unwrap();
    let capabilities = lm.capabilities();
    assert_eq!((capabilities.slots, capabilities.capacity), (8, 128));
    assert_eq!(capabilities.kv_bytes, 8 * 128 * 512);
    assert!(capabilities.kv_bytes + capabilities.weight_bytes <= 1 << 20);
}

#[test]
fn the_factory_loads_on_another_thread() {
    ready();
    let factory = language_model(&fixture("tiny-llama"), "tiny", &OnnxOptions::default()).unwrap();
    let capabilities = std::thread::spawn(move || {
        let mut backend = factory().unwrap();
        backend.warmup().unwrap();
        backend.capabilities().clone()
    });
    let capabilities = capabilities.join().unwrap();
    assert_eq!((capabilities.vocab, capabilities.capacity), (128, 128));
    assert_eq!(capabilities.provider, "cpu");
    assert!(language_model(Path::new("/nowhere"), "tiny", &OnnxOptions::default()).is_err());
}

/// The models that the quick start serves: real weights, quantised or not, each with
/// the answers of its checkpoint.
#[test]
fn the_example_models_pass_their_probes() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/helpdesk/models");
    let mut loaded = 0;
    for entry in std::fs::read_dir(models).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("genai_config.json").is_file() {
            assert!(
                Probe::read(&dir).unwrap().is_some(),
                "{} has no probe",
                dir.display()
            );
            load(
                &dir,
                &OnnxOptions {
                    slots: Some(4),
                    ..OnnxOptions::default()
                },
            )
            .unwrap();
            loaded += 1;
        }
    }
    assert!(loaded > 0, "there are no example models");
}
