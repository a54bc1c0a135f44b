//! `genai_config.json`, as `onnxruntime_genai.models.builder` 0.18 writes it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{read_json, wrong};
use crate::error::LoadError;

/// A causal language model as declared; the graph may still disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenAiConfig {
    /// The graph's file.
    pub model: PathBuf,
    /// Architecture, for example `llama`.
    pub architecture: String,
    /// Layers, each with its own K/V.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of one head.
    pub head_size: u32,
    /// Elements of the hidden state.
    pub hidden_size: u32,
    /// Logits per token.
    pub vocab: u32,
    /// Tokens of prompt and completion that the model was made for.
    pub context_length: u32,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
    /// Token that begins a sequence.
    pub bos: Option<u32>,
    /// Token for padding.
    pub pad: Option<u32>,
    /// Names of inputs and outputs.
    pub names: TensorNames,
    /// Windowed attention, if the source model has it.
    pub sliding_window: Option<SlidingWindow>,
}

/// Names in the graph. Those of the K/V hold `%d` for the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames {
    /// Token ids, `[batch, tokens]`.
    pub input_ids: String,
    /// Keys so far, `[batch, kv_heads, tokens, head]`.
    pub past_key: String,
    /// Values so far, of the same shape.
    pub past_value: String,
    /// Keys with those of the new tokens.
    pub present_key: String,
    /// Values with those of the new tokens.
    pub present_value: String,
    /// Logits, `[batch, tokens, vocab]`.
    pub logits: String,
}

/// Windowed attention as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Tokens that a windowed layer sees.
    pub size: u32,
    /// Layers that the exporter gave a window.
    pub layers: Vec<u32>,
}

impl GenAiConfig {
    /// Reads `dir/genai_config.json` and checks it against itself.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the field, [`LoadError::Unsupported`] naming
    /// the feature.
    pub(super) fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("genai_config.json");
        let file: ConfigFile = read_json(&path)?;
        unsupported(dir, &file.model)?;
        let config = from_file(dir, file.model).map_err(|reason| wrong(&path, &reason))?;
        if !config.model.is_file() {
            return Err(wrong(
                &config.model,
                "is missing (genai_config.json names it as the decoder)",
            ));
        }
        Ok(config)
    }

    /// The name that `template` gives layer `layer`.
    #[must_use]
    pub fn layer_name(template: &str, layer: u32) -> String {
        template.replacen("%d", &layer.to_string(), 1)
    }
}

#[derive(Deserialize)]
struct ConfigFile {
    model: ModelSection,
}

#[derive(Deserialize)]
struct ModelSection {
    r#type: String,
    vocab_size: u64,
    context_length: u64,
    bos_token_id: Option<TokenIds>,
    eos_token_id: Option<TokenIds>,
    pad_token_id: Option<TokenIds>,
    decoder: DecoderSection,
    encoder: Option<Value>,
    vision: Option<Value>,
    speech: Option<Value>,
    embedding: Option<Value>,
}

#[derive(Deserialize)]
struct DecoderSection {
    filename: Option<String>,
    head_size: u64,
    hidden_size: u64,
    num_attention_heads: u64,
    num_hidden_layers: u64,
    num_key_value_heads: u64,
    #[serde(default)]
    inputs: InputNames,
    #[serde(default)]
    outputs: OutputNames,
    sliding_window: Option<WindowSection>,
    pipeline: Option<Value>,
}

#[derive(Deserialize, Default)]
struct InputNames {
    input_ids: Option<String>,
    past_key_names: Option<String>,
    past_value_names: Option<String>,
    position_ids: Option<String>,
    inputs_embeds: Option<String>,
}

#[derive(Deserialize, Default)]
struct OutputNames {
    logits: Option<String>,
    present_key_names: Option<String>,
    present_value_names: Option<String>,
}

#[derive(Deserialize)]
struct WindowSection {
    window_size: u64,
    #[serde(default)]
    layers: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(i64),
    Several(Vec<i64>),
}

impl TokenIds {
    /// Negative ids are the builder's way to say "none".
    fn list(self) -> Vec<u32> {
        let ids = match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        };
        ids.into_iter()
            .filter_map(|id| u32::try_from(id).ok())
            .collect()
    }
}

fn unsupported(dir: &Path, model: &ModelSection) -> Result<(), LoadError> {
    let decoder = &model.decoder;
    let reason = if model.encoder.is_some() {
        "encoder-decoder models are not supported, only decoders"
    } else if model.vision.is_some() || model.speech.is_some() {
        "multi-modal models (vision, speech) are not supported, only text"
    } else if model.embedding.is_some() || decoder.inputs.inputs_embeds.is_some() {
        "a decoder that takes embeddings instead of token ids is not supported; \
         export it without exclude_embeds"
    } else if decoder.pipeline.is_some() {
        "decoders cut into a pipeline of graphs are not supported"
    } else if decoder.inputs.position_ids.is_some() {
        "the graph wants position_ids: only models whose rotary embedding is fused into \
         GroupQueryAttention are supported"
    } else {
        return Ok(());
    };
    Err(LoadError::Unsupported {
        model: dir.display().to_string(),
        reason: format!("{reason} (architecture `{}`)", model.r#type),
    })
}

fn from_file(dir: &Path, model: ModelSection) -> Result<GenAiConfig, String> {
    let decoder = model.decoder;
    let layers = count("decoder.num_hidden_layers", decoder.num_hidden_layers, 4096)?;
    let heads = count(
        "decoder.num_attention_heads",
        decoder.num_attention_heads,
        65_536,
    )?;
    let kv_heads = count(
        "decoder.num_key_value_heads",
        decoder.num_key_value_heads,
        65_536,
    )?;
    if heads % kv_heads != 0 {
        return Err(format!(
            "decoder.num_attention_heads is {heads}, which is no multiple of \
             decoder.num_key_value_heads, {kv_heads}"
        ));
    }
    let vocab = count("vocab_size", model.vocab_size, 1 << 28)?;
    let file = decoder.filename.unwrap_or_else(|| "model.onnx".to_owned());
    if Path::new(&file).components().count() != 1 || Path::new(&file).is_absolute() {
        return Err(format!(
            "decoder.filename is `{file}`, it must name a file of this folder"
        ));
    }
    let ids = |ids: Option<TokenIds>| ids.map(TokenIds::list).unwrap_or_default();
    let eos = ids(model.eos_token_id);
    let (bos, pad) = (ids(model.bos_token_id), ids(model.pad_token_id));
    if let Some(id) = eos.iter().chain(&bos).chain(&pad).find(|id| **id >= vocab) {
        return Err(format!(
            "token id {id} is outside the vocabulary of {vocab}"
        ));
    }
    Ok(GenAiConfig {
        model: dir.join(file),
        architecture: model.r#type,
        layers,
        heads,
        kv_heads,
        head_size: count("decoder.head_size", decoder.head_size, 65_536)?,
        hidden_size: count("decoder.hidden_size", decoder.hidden_size, 1 << 24)?,
        vocab,
        context_length: count("context_length", model.context_length, 1 << 30)?,
        eos,
        bos: bos.first().copied(),
        pad: pad.first().copied(),
        names: names(decoder.inputs, decoder.outputs)?,
        sliding_window: decoder.sliding_window.and_then(|window| {
            let size = u32::try_from(window.window_size)
                .ok()
                .filter(|size| *size > 0)?;
            Some(SlidingWindow {
                size,
                layers: window.layers,
            })
        }),
    })
}

fn count(field: &str, value: u64, most: u32) -> Result<u32, String> {
    match u32::try_from(value) {
        Ok(value) if (1..=most).contains(&value) => Ok(value),
        _ => Err(format!("{field} is {value}, it must be in 1..={most}")),
    }
}

fn names(inputs: InputNames, outputs: OutputNames) -> Result<TensorNames, String> {
    let or = |name: Option<String>, default: &str| name.unwrap_or_else(|| default.to_owned());
    let names = TensorNames {
        input_ids: or(inputs.input_ids, "input_ids"),
        past_key: or(inputs.past_key_names, "past_key_values.%d.key"),
        past_value: or(inputs.past_value_names, "past_key_values.%d.value"),
        present_key: or(outputs.present_key_names, "present.%d.key"),
        present_value: or(outputs.present_value_names, "present.%d.value"),
        logits: or(outputs.logits, "logits"),
    };
    for (field, name) in [
        ("past_key_names", &names.past_key),
        ("past_value_names", &names.past_value),
        ("present_key_names", &names.present_key),
        ("present_value_names", &names.present_value),
    ] {
        if name.matches("%d").count() != 1 {
            return Err(format!(
                "{field} is `{name}`, it must hold one %d for the layer"
            ));
        }
    }
    Ok(names)
}
