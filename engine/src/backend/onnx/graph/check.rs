//! What the graph says against what `genai_config.json` declares.

use std::collections::HashSet;

use super::{Float, GQA, GraphError, LayerNames, MASK, float_of};
use crate::backend::onnx::proto::{Dim, Model, Node, ValueInfo, element};
use crate::folder::GenAiConfig;

pub(super) fn refuse_foreign_nodes(model: &Model<'_>) -> Result<(), GraphError> {
    for node in &model.nodes {
        if node.attributes.iter().any(|attribute| attribute.subgraph) {
            return Err(GraphError::Unsupported(format!(
                "control flow in the graph (`{}` at `{}`)",
                node.op, node.name
            )));
        }
        if node.op != GQA && node.op.contains("Attention") {
            return Err(GraphError::Unsupported(format!(
                "attention by `{}` (at `{}`); only {GQA} can share past and present",
                node.op, node.name
            )));
        }
    }
    Ok(())
}

pub(super) fn check_inputs(
    model: &Model<'_>,
    config: &GenAiConfig,
    layers: &[LayerNames],
) -> Result<(), GraphError> {
    let known: HashSet<&str> = layers
        .iter()
        .flat_map(|layer| [layer.past_key.as_str(), layer.past_value.as_str()])
        .chain([config.names.input_ids.as_str(), MASK])
        .collect();
    let weights: HashSet<&str> = model
        .initializers
        .iter()
        .map(|tensor| tensor.name)
        .collect();
    for input in &model.inputs {
        if input.name == "position_ids" {
            return Err(GraphError::Unsupported(
                "the graph wants position_ids: only models whose rotary embedding is fused into \
                 GroupQueryAttention are supported"
                    .to_owned(),
            ));
        }
        if !known.contains(input.name) && !weights.contains(input.name) {
            return Err(GraphError::Unsupported(format!(
                "the graph wants an input `{}` that this engine does not know \
                 (or genai_config.json declares fewer than all layers)",
                input.name
            )));
        }
    }
    let ids = find(&model.inputs, &config.names.input_ids, "input")?;
    if ids.element != element::INT64 {
        return Err(GraphError::Unsupported(format!(
            "`{}` is not of type int64",
            ids.name
        )));
    }
    Ok(())
}

fn find<'m, 'a>(
    infos: &'m [ValueInfo<'a>],
    name: &str,
    what: &str,
) -> Result<&'m ValueInfo<'a>, GraphError> {
    infos
        .iter()
        .find(|info| info.name == name)
        .ok_or_else(|| GraphError::Misdeclared(format!("the graph has no {what} `{name}`")))
}

/// What the attention nodes agree on.
pub(super) struct Attention {
    pub(super) kv: Float,
    pub(super) positions: Option<u64>,
    pub(super) lost_window: Option<u32>,
}

pub(super) fn check_attention(
    model: &Model<'_>,
    config: &GenAiConfig,
    layers: &[LayerNames],
) -> Result<Attention, GraphError> {
    let nodes: Vec<_> = model.nodes.iter().filter(|node| node.op == GQA).collect();
    if nodes.is_empty() {
        return Err(GraphError::Unsupported(format!(
            "the graph has no {GQA}; export it with onnxruntime_genai.models.builder"
        )));
    }
    if nodes.len() != layers.len() {
        return Err(GraphError::Misdeclared(format!(
            "num_hidden_layers is {}, the graph has {} {GQA} nodes",
            layers.len(),
            nodes.len()
        )));
    }
    let mut kv = None;
    let mut positions: Option<u64> = None;
    let mut windows = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let node = nodes
            .iter()
            .find(|node| node.input(3) == layer.past_key)
            .ok_or_else(|| misnamed(number, &layer.past_key))?;
        check_layer(node, layer, config)?;
        check_head_size(model, node, config)?;
        let float = check_kv(model, layer, config)?;
        if *kv.get_or_insert(float) != float {
            return Err(GraphError::Unsupported(
                "layers with K/V of different types".to_owned(),
            ));
        }
        if node.attribute("do_rotary") == Some(1) {
            let rows = rotary_rows(model, node, config)?;
            positions = Some(positions.map_or(rows, |rows_so_far| rows_so_far.min(rows)));
        }
        windows.push(node.attribute("local_window_size").unwrap_or(-1));
    }
    Ok(Attention {
        kv: kv.unwrap_or(Float::F32),
        positions,
        lost_window: lost_window(config, &windows)?,
    })
}

fn misnamed(layer: usize, name: &str) -> GraphError {
    GraphError::Misdeclared(format!("no {GQA} reads `{name}`, the K/V of layer {layer}"))
}

/// One layer's node against the declaration. Reading another layer's present into
/// this layer's past would go unnoticed later, so names must pair up exactly.
fn check_layer(
    node: &Node<'_>,
    layer: &LayerNames,
    config: &GenAiConfig,
) -> Result<(), GraphError> {
    let output = |index: usize| node.outputs.get(index).copied().unwrap_or("");
    for (found, declared) in [
        (node.input(4), &layer.past_value),
        (output(1), &layer.present_key),
        (output(2), &layer.present_value),
    ] {
        if found != declared {
            return Err(GraphError::Misdeclared(format!(
                "the {GQA} of `{}` has `{found}` where `{declared}` is declared",
                layer.past_key
            )));
        }
    }
    for (attribute, field, declared) in [
        ("num_heads", "num_attention_heads", config.heads),
        ("kv_num_heads", "num_key_value_heads", config.kv_heads),
    ] {
        let found = node.attribute(attribute).unwrap_or(0);
        if found != i64::from(declared) {
            return Err(GraphError::Misdeclared(format!(
                "{field} is {declared}, the graph has {found}"
            )));
        }
    }
    for (index, what) in [(9, "position_ids"), (10, "an attention bias")] {
        if !node.input(index).is_empty() {
            return Err(GraphError::Unsupported(format!(
                "{what} as an input of {GQA}"
            )));
        }
    }
    Ok(())
}

/// Where the heads' output is projected, the weight tells the size of a head.
fn check_head_size(
    model: &Model<'_>,
    node: &Node<'_>,
    config: &GenAiConfig,
) -> Result<(), GraphError> {
    let output = node.outputs.first().copied().unwrap_or("");
    let mut projections = model.nodes.iter().filter(|next| next.input(0) == output);
    let Some(rows) = projections.find_map(|next| inner_size(model, next)) else {
        return Ok(());
    };
    let declared = u64::from(config.heads) * u64::from(config.head_size);
    if rows != declared {
        return Err(GraphError::Misdeclared(format!(
            "head_size is {}, the graph has {} ({rows} for {} heads)",
            config.head_size,
            rows / u64::from(config.heads),
            config.heads
        )));
    }
    Ok(())
}

/// The size that a matrix product sums over, where its weight is a constant.
pub(super) fn inner_size(model: &Model<'_>, node: &Node<'_>) -> Option<u64> {
    let weight = |name: &str| model.initializers.iter().find(|tensor| tensor.name == name);
    match node.op {
        "MatMul" => weight(node.input(1))?.dims.first().copied(),
        "MatMulNBits" => u64::try_from(node.attribute("K")?).ok(),
        _ => None,
    }
}

fn check_kv(
    model: &Model<'_>,
    layer: &LayerNames,
    config: &GenAiConfig,
) -> Result<Float, GraphError> {
    let mut types = Vec::new();
    for (infos, name, what) in [
        (&model.inputs, &layer.past_key, "input"),
        (&model.inputs, &layer.past_value, "input"),
        (&model.outputs, &layer.present_key, "output"),
        (&model.outputs, &layer.present_value, "output"),
    ] {
        let info = find(infos, name, what)?;
        types.push(float_of(name, info.element)?);
        let [_, heads, _, head] = info.shape.as_slice() else {
            return Err(GraphError::Unsupported(format!(
                "`{name}` has {} dimensions instead of [batch, heads, tokens, head]",
                info.shape.len()
            )));
        };
        for (dim, field, declared) in [
            (heads, "num_key_value_heads", config.kv_heads),
            (head, "head_size", config.head_size),
        ] {
            if let Dim::Fixed(found) = dim
                && *found != u64::from(declared)
            {
                return Err(GraphError::Misdeclared(format!(
                    "{field} is {declared}, `{name}` has {found}"
                )));
            }
        }
    }
    match types.as_slice() {
        [first, rest @ ..] if rest.iter().all(|float| float == first) => Ok(*first),
        _ => Err(GraphError::Unsupported(
            "past and present of different types".to_owned(),
        )),
    }
}

/// Rows of the rotary tables: no token may sit beyond them.
fn rotary_rows(
    model: &Model<'_>,
    node: &Node<'_>,
    config: &GenAiConfig,
) -> Result<u64, GraphError> {
    let table = |name: &str| model.initializers.iter().find(|tensor| tensor.name == name);
    let mut least = u64::MAX;
    for index in [7, 8] {
        let name = node.input(index);
        let dims = table(name).map(|tensor| tensor.dims.as_slice());
        let Some([rows, half]) = dims else {
            return Err(GraphError::Unsupported(format!(
                "rotary table `{name}` is not a two-dimensional constant"
            )));
        };
        if half.saturating_mul(2) > u64::from(config.head_size) {
            return Err(GraphError::Misdeclared(format!(
                "head_size is {}, the rotary table turns {} elements",
                config.head_size,
                half.saturating_mul(2)
            )));
        }
        least = least.min(*rows);
    }
    Ok(least)
}

/// The declared window if it is shorter than the context and no layer has it.
fn lost_window(config: &GenAiConfig, windows: &[i64]) -> Result<Option<u32>, GraphError> {
    let Some(window) = &config.sliding_window else {
        return Ok(None);
    };
    for layer in &window.layers {
        let found = windows.get(*layer as usize).copied();
        if found != Some(i64::from(window.size)) {
            return Err(GraphError::Misdeclared(format!(
                "layer {layer} is declared with a window of {}, the graph has {}",
                window.size,
                found.map_or("no such layer".to_owned(), |size| size.to_string())
            )));
        }
    }
    let lost = window.size < config.context_length && windows.iter().all(|size| *size <= 0);
    Ok(lost.then_some(window.size))
}

pub(super) fn check_logits(
    model: &Model<'_>,
    config: &GenAiConfig,
) -> Result<(usize, Float), GraphError> {
    let logits = find(&model.outputs, &config.names.logits, "output")?;
    let float = float_of(logits.name, logits.element)?;
    let [_, _, vocab] = logits.shape.as_slice() else {
        return Err(GraphError::Unsupported(format!(
            "`{}` has {} dimensions instead of [batch, tokens, vocabulary]",
            logits.name,
            logits.shape.len()
        )));
    };
    match vocab {
        Dim::Fixed(found) if *found != u64::from(config.vocab) => {
            Err(GraphError::Misdeclared(format!(
                "vocab_size is {}, the graph's logits have {found}",
                config.vocab
            )))
        }
        _ => Ok((config.vocab as usize, float)),
    }
}
