//! The graph edit that turns an exported decoder into one for slots.
//!
//! `onnxruntime_genai.models.builder` writes a graph for one batch at a time: an
//! `attention_mask` from which it derives each row's length, and logits for
//! every token. For continuous batching over slots
//! - the lengths become inputs (`seqlens_k`, `total_sequence_length`), and the
//!   mask, with what was computed from it, goes;
//! - where the runtime knows it, `query_seqlens` lets rows bring different
//!   numbers of new tokens (GroupQueryAttention's 17th input, ONNX Runtime ≥ 1.32);
//! - `logits_indices` picks the wanted rows of the hidden state *before* the
//!   language-model head, the largest matrix of a small model;
//! - `sliding_window_cache` goes: a slot keeps the whole history, and
//!   `local_window_size` alone masks it.
//!
//! Weights are not touched; those in external files stay there. Whatever the
//! declaration and the graph disagree about is refused here, because the runs
//! later trust both.

mod check;
mod weights;

use std::collections::HashSet;
use std::path::Path;

use self::check::{check_attention, check_inputs, check_logits, inner_size, refuse_foreign_nodes};
use self::weights::weight_bytes;
use super::proto::{Dim, Malformed, Model, Node, ValueInfo, element};
use crate::cuda::Float;
use crate::folder::GenAiConfig;

/// Names of the inputs that the edit adds.
pub(super) mod added {
    /// `int32[batch]`: tokens in the slot after this run, minus one.
    pub(in super::super) const SEQLENS_K: &str = "seqlens_k";
    /// `int32[]`: the longest row after this run.
    pub(in super::super) const TOTAL: &str = "total_sequence_length";
    /// `int32[batch]`: new tokens of each row (right-padded).
    pub(in super::super) const QUERY_SEQLENS: &str = "query_seqlens";
    /// `int64[n]`: wanted rows of the hidden state, flattened over batch and tokens.
    pub(in super::super) const LOGITS_INDICES: &str = "logits_indices";
}

/// Why a graph cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GraphError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The graph uses something this engine does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The graph and `genai_config.json` disagree.
    #[error("genai_config.json does not fit the graph: {0}")]
    Misdeclared(String),
    /// A file of weights is missing or too short.
    #[error("{0}")]
    Weights(String),
}

/// Element type of K/V or logits, from ONNX's code for it.
fn float_of(name: &str, code: u64) -> Result<Float, GraphError> {
    match code {
        element::FLOAT => Ok(Float::F32),
        element::FLOAT16 => Ok(Float::F16),
        element::BFLOAT16 => Ok(Float::Bf16),
        other => Err(GraphError::Unsupported(format!(
            "`{name}` is of ONNX element type {other}; supported are float32, float16 and bfloat16"
        ))),
    }
}

/// Names of one layer's K/V.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerNames {
    pub(super) past_key: String,
    pub(super) past_value: String,
    pub(super) present_key: String,
    pub(super) present_value: String,
}

/// What runs need to know about the edited graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) layers: Vec<LayerNames>,
    pub(super) input_ids: String,
    pub(super) logits: String,
    pub(super) kv_heads: usize,
    pub(super) head_size: usize,
    pub(super) vocab: usize,
    pub(super) kv: Float,
    pub(super) logits_float: Float,
    /// Positions that the rotary tables cover; `None` without fused rotary embedding.
    pub(super) positions: Option<u64>,
    /// Bytes of all weights.
    pub(super) weight_bytes: u64,
    /// A window was declared for the source model, and no layer of the graph has it.
    pub(super) lost_window: Option<u32>,
    /// The graph takes `query_seqlens`.
    pub(super) ragged: bool,
}

/// Edits the serialised graph `bytes` of the folder `dir`.
///
/// # Errors
/// See [`GraphError`].
pub(super) fn edit(
    bytes: &[u8],
    dir: &Path,
    config: &GenAiConfig,
    ragged: bool,
) -> Result<(Vec<u8>, Layout), GraphError> {
    let mut model = Model::read(bytes)?;
    refuse_foreign_nodes(&model)?;
    let layers = layer_names(config);
    check_inputs(&model, config, &layers)?;
    let attention = check_attention(&model, config, &layers)?;
    let (vocab, logits_float) = check_logits(&model, config)?;
    let layout = Layout {
        input_ids: config.names.input_ids.clone(),
        logits: config.names.logits.clone(),
        kv_heads: config.kv_heads as usize,
        head_size: config.head_size as usize,
        vocab,
        kv: attention.kv,
        logits_float,
        positions: attention.positions,
        weight_bytes: weight_bytes(&model.initializers, dir)?,
        lost_window: attention.lost_window,
        ragged,
        layers,
    };
    feed_lengths(&mut model, ragged);
    select_before_head(&mut model, &layout, config.hidden_size)?;
    prune(&mut model);
    drop_mask(&mut model)?;
    model.hints.clear();
    Ok((model.write(), layout))
}

fn layer_names(config: &GenAiConfig) -> Vec<LayerNames> {
    let name = |template: &str, layer| GenAiConfig::layer_name(template, layer);
    (0..config.layers)
        .map(|layer| LayerNames {
            past_key: name(&config.names.past_key, layer),
            past_value: name(&config.names.past_value, layer),
            present_key: name(&config.names.present_key, layer),
            present_value: name(&config.names.present_value, layer),
        })
        .collect()
}

const GQA: &str = "GroupQueryAttention";
const MASK: &str = "attention_mask";

fn feed_lengths(model: &mut Model<'_>, ragged: bool) {
    const QUERY_SEQLENS_INPUT: usize = 16;
    for node in model.nodes.iter_mut().filter(|node| node.op == GQA) {
        let node = node.changed();
        node.inputs.resize(node.inputs.len().max(7), "");
        node.inputs[5] = added::SEQLENS_K;
        node.inputs[6] = added::TOTAL;
        if ragged {
            node.inputs.resize(QUERY_SEQLENS_INPUT, "");
            node.inputs.push(added::QUERY_SEQLENS);
        }
        node.attributes
            .retain(|attribute| attribute.name != "sliding_window_cache");
    }
    let rows = || vec![Dim::Free("batch_size")];
    model
        .inputs
        .push(ValueInfo::new(added::SEQLENS_K, element::INT32, rows()));
    model
        .inputs
        .push(ValueInfo::new(added::TOTAL, element::INT32, Vec::new()));
    if ragged {
        model
            .inputs
            .push(ValueInfo::new(added::QUERY_SEQLENS, element::INT32, rows()));
    }
}

/// Puts a gather of the wanted rows before the language-model head.
fn select_before_head(
    model: &mut Model<'_>,
    layout: &Layout,
    hidden_size: u32,
) -> Result<(), GraphError> {
    const FLAT: &str = "sluice_hidden_flat";
    const WANTED: &str = "sluice_hidden_wanted";
    let head = head_position(model, &layout.logits)?;
    if let Some(found) = inner_size(model, &model.nodes[head])
        && found != u64::from(hidden_size)
    {
        return Err(GraphError::Misdeclared(format!(
            "hidden_size is {hidden_size}, the graph has {found}"
        )));
    }
    let hidden = model.nodes[head].input(0);
    model.nodes[head].changed().inputs[0] = WANTED;
    let flatten = Node::new("Flatten", vec![hidden], FLAT, ("axis", 2));
    let gather = Node::new(
        "Gather",
        vec![FLAT, added::LOGITS_INDICES],
        WANTED,
        ("axis", 0),
    );
    model.nodes.splice(head..head, [flatten, gather]);
    let indices = vec![Dim::Free("num_logits")];
    model.inputs.push(ValueInfo::new(
        added::LOGITS_INDICES,
        element::INT64,
        indices,
    ));
    for output in &mut model.outputs {
        if output.name == layout.logits {
            let shape = vec![Dim::Free("num_logits"), Dim::Fixed(layout.vocab as u64)];
            *output = ValueInfo::new(output.name, output.element, shape);
        }
    }
    Ok(())
}

/// The matrix product that makes the logits: up from the output through
/// element-wise nodes (bias, scale, soft cap, cast), each with one input that is
/// not a constant.
fn head_position(model: &Model<'_>, logits: &str) -> Result<usize, GraphError> {
    let constants: HashSet<&str> = model
        .nodes
        .iter()
        .filter(|node| node.op == "Constant")
        .flat_map(|node| node.outputs.iter().copied())
        .chain(model.initializers.iter().map(|tensor| tensor.name))
        .collect();
    let mut tensor = logits;
    // A graph has no cycles, but a malformed file may.
    for _ in 0..model.nodes.len() {
        let position = model
            .nodes
            .iter()
            .position(|node| node.outputs.contains(&tensor));
        let Some(position) = position else { break };
        let node = &model.nodes[position];
        match node.op {
            "MatMul" | "MatMulNBits" => return Ok(position),
            "Add" | "Sub" | "Mul" | "Div" | "Tanh" | "Cast" | "Identity" => {
                let mut varying = node
                    .inputs
                    .iter()
                    .filter(|input| !constants.contains(*input));
                match (varying.next(), varying.next()) {
                    (Some(input), None) => tensor = input,
                    _ => break,
                }
            }
            _ => break,
        }
    }
    Err(GraphError::Unsupported(format!(
        "the language-model head cannot be found: `{logits}` does not come from a MatMul or \
         MatMulNBits through element-wise nodes"
    )))
}

/// Drops nodes that no output needs any more.
fn prune(model: &mut Model<'_>) {
    let mut needed: HashSet<&str> = model.outputs.iter().map(|output| output.name).collect();
    let mut keep = vec![false; model.nodes.len()];
    for (keep, node) in keep.iter_mut().zip(&model.nodes).rev() {
        *keep = node.outputs.iter().any(|output| needed.contains(output));
        if *keep {
            needed.extend(node.inputs.iter().copied());
        }
    }
    let mut keep = keep.into_iter();
    model.nodes.retain(|_| keep.next().unwrap_or(true));
}

fn drop_mask(model: &mut Model<'_>) -> Result<(), GraphError> {
    if let Some(node) = model.nodes.iter().find(|node| node.inputs.contains(&MASK)) {
        return Err(GraphError::Unsupported(format!(
            "`{}` (`{}`) uses the attention mask for more than lengths",
            node.name, node.op
        )));
    }
    model.inputs.retain(|input| input.name != MASK);
    Ok(())
}

#[cfg(test)]
mod tests;
