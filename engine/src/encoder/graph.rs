//! One session of an encoder: which inputs and outputs its graph has, and how a
//! batch of texts runs through it.

use crate::backend::onnx::{Datatype, TensorInfo, TensorSlice, TensorView};
use crate::backend::pooled::Pooled;
use crate::cuda::Float;
use crate::error::{BackendError, LoadError};
use crate::folder::{EncoderConfig, Pooling};

use super::pooling;
use super::runner::Runner;
use super::text::Encoded;

/// What comes out for one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A vector.
    Embedding,
    /// Logits of so many classes.
    Logits { classes: usize },
}

/// What a graph's input is fed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Ids,
    Mask,
    Types,
    Positions,
}

#[derive(Debug, Clone)]
struct Input {
    name: String,
    feed: Feed,
    /// 32-bit instead of 64-bit integers.
    narrow: bool,
}

/// Tensors of one input, in the integer type that the graph wants.
enum Integers {
    Wide(Vec<i64>),
    Narrow(Vec<i32>),
}

/// A session and how to use it.
#[derive(Debug)]
pub(super) struct EncoderSession {
    runner: Runner,
    inputs: Vec<Input>,
    output: String,
    head: Head,
    pooling: Pooling,
    pad: u32,
    /// How token vectors are pooled where they are, on a device.
    pooled: Option<Pooled>,
}

impl EncoderSession {
    pub(super) fn new(
        name: &str,
        config: &EncoderConfig,
        pooling: Pooling,
        runner: Runner,
    ) -> Result<Self, LoadError> {
        let unsupported = |reason: String| LoadError::Unsupported {
            model: name.to_owned(),
            reason,
        };
        let inputs = runner.inputs().iter().map(input);
        let inputs = inputs.collect::<Result<_, _>>().map_err(unsupported)?;
        let (output, head) = head(runner.outputs(), config).map_err(unsupported)?;
        let pooled = match runner.pools() {
            true => pooled(runner.outputs(), &output, head, pooling),
            false => None,
        };
        Ok(Self {
            runner,
            inputs,
            output,
            head,
            pooling,
            pad: config.pad,
            pooled,
        })
    }

    /// The same model for another thread.
    pub(super) fn share(&self) -> Result<Self, LoadError> {
        Ok(Self {
            runner: self.runner.share()?,
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            pooled: self.pooled.clone(),
            ..*self
        })
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The largest batch that is taken, `[texts, tokens]`, if not any.
    pub(super) fn reach(&self) -> Option<[usize; 2]> {
        self.runner.reach()
    }

    /// Gives the device back; the thread that runs the next batch opens it again.
    pub(super) fn leave_thread(&mut self) {
        self.runner.leave_thread();
    }

    /// Runs a batch; one row (embedding or logits) a text. Padded to the longest.
    pub(super) fn run(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, BackendError> {
        let longest = texts.iter().map(|text| text.tokens()).max().unwrap_or(0);
        let shape = [texts.len() as i64, longest as i64];
        let tensors: Vec<_> = self
            .inputs
            .iter()
            .map(|input| (input.name.as_str(), fill(input, texts, longest, self.pad)))
            .collect();
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, integers)| {
                let data = match integers {
                    Integers::Wide(data) => TensorSlice::Int64(data),
                    Integers::Narrow(data) => TensorSlice::Int32(data),
                };
                (
                    *name,
                    TensorView {
                        shape: &shape,
                        data,
                    },
                )
            })
            .collect();
        if let Some(pooled) = &self.pooled {
            let tokens: Vec<u32> = texts.iter().map(|text| text.tokens() as u32).collect();
            return self.runner.run_pooled(&views, pooled, &tokens, longest);
        }
        let (head, pooling) = (self.head, self.pooling);
        self.runner.run(&views, &self.output, |output| {
            rows(output, texts, head, pooling)
        })
    }
}

/// What a device would pool: token vectors of a width that the graph states.
fn pooled(outputs: &[TensorInfo], output: &str, head: Head, pooling: Pooling) -> Option<Pooled> {
    let info = outputs.iter().find(|info| info.name == output)?;
    let float = match info.datatype? {
        Datatype::Fp32 => Float::F32,
        Datatype::Fp16 => Float::F16,
        _ => return None,
    };
    match (head, info.dims().as_slice()) {
        (Head::Embedding, &[_, _, width]) if width > 0 => Some(Pooled {
            output: output.to_owned(),
            float,
            width: width as usize,
            pooling,
        }),
        _ => None,
    }
}

fn input(info: &TensorInfo) -> Result<Input, String> {
    let feed = match info.name.as_str() {
        "input_ids" => Feed::Ids,
        "attention_mask" => Feed::Mask,
        "token_type_ids" => Feed::Types,
        "position_ids" => Feed::Positions,
        other => {
            return Err(format!(
                "input `{other}` is unknown (supported: input_ids, attention_mask, \
                 token_type_ids, position_ids)"
            ));
        }
    };
    let narrow = match info.datatype {
        Some(Datatype::Int64) => false,
        Some(Datatype::Int32) => true,
        _ => return Err(format!("input `{}` must be INT64 or INT32", info.name)),
    };
    Ok(Input {
        name: info.name.clone(),
        feed,
        narrow,
    })
}

/// Chooses the output: logits of a classifier, else a pooled vector, else the
/// token vectors.
fn head(outputs: &[TensorInfo], config: &EncoderConfig) -> Result<(String, Head), String> {
    let float = |info: &&TensorInfo| {
        matches!(
            info.datatype,
            Some(Datatype::Fp32 | Datatype::Fp16 | Datatype::Fp64)
        )
    };
    let named = |name: &str| outputs.iter().filter(float).find(|info| info.name == name);
    if config.architecture.ends_with("ForSequenceClassification")
        && let Some(logits) = named("logits")
    {
        let classes = match logits.dims().last() {
            Some(&classes) if logits.shape.len() == 2 && classes > 0 => classes as usize,
            _ => config.labels.len(),
        };
        return match classes {
            0 => Err("the number of classes is neither in `logits` nor in id2label".to_owned()),
            classes => Ok(("logits".to_owned(), Head::Logits { classes })),
        };
    }
    named("sentence_embedding")
        .or_else(|| named("last_hidden_state"))
        .or_else(|| {
            outputs
                .iter()
                .filter(float)
                .find(|info| info.shape.len() == 3)
        })
        .or_else(|| {
            outputs
                .iter()
                .filter(float)
                .find(|info| info.shape.len() == 2)
        })
        .map(|info| (info.name.clone(), Head::Embedding))
        .ok_or_else(|| {
            "no output is a vector for each text or token (last_hidden_state, \
             sentence_embedding, or logits of a …ForSequenceClassification)"
                .to_owned()
        })
}

fn fill(input: &Input, texts: &[&Encoded], longest: usize, pad: u32) -> Integers {
    let mut wide = Vec::with_capacity(texts.len() * longest);
    for text in texts {
        let end = wide.len() + longest;
        match input.feed {
            Feed::Ids => wide.extend(text.ids.iter().map(|&id| i64::from(id))),
            Feed::Mask => wide.extend(std::iter::repeat_n(1, text.tokens())),
            Feed::Types => {
                for &(kind, tokens) in &text.types {
                    wide.extend(std::iter::repeat_n(i64::from(kind), tokens));
                }
            }
            Feed::Positions => wide.extend(0..longest as i64),
        }
        let padding = if input.feed == Feed::Ids { pad } else { 0 };
        wide.resize(end, i64::from(padding));
    }
    match input.narrow {
        false => Integers::Wide(wide),
        // Token ids fit: vocabularies are smaller than 2^31.
        true => Integers::Narrow(wide.into_iter().map(|x| x as i32).collect()),
    }
}

/// Splits an output into one row a text.
fn rows(
    output: &TensorView<'_>,
    texts: &[&Encoded],
    head: Head,
    pooling: Pooling,
) -> Result<Vec<Vec<f32>>, String> {
    let converted: Vec<f32>;
    let data = match output.data {
        TensorSlice::Fp32(data) => data,
        TensorSlice::Fp16(data) => {
            converted = data.iter().map(|x| x.to_f32()).collect();
            &converted
        }
        TensorSlice::Fp64(data) => {
            converted = data.iter().map(|&x| x as f32).collect();
            &converted
        }
        other => {
            return Err(format!(
                "the output is {}, not floats",
                other.datatype().name()
            ));
        }
    };
    let per_text = data.len().checked_div(texts.len()).unwrap_or(0);
    let width = output.shape.last().map_or(0, |&width| width as usize);
    let wrong = |expected: &str| {
        Err(format!(
            "the output's shape is {:?}, expected {expected}",
            output.shape
        ))
    };
    if per_text == 0 || output.shape.first() != Some(&(texts.len() as i64)) {
        return wrong("one row a text");
    }
    let rows = texts.iter().zip(data.chunks_exact(per_text));
    match (head, output.shape.len()) {
        (Head::Logits { classes }, _) if per_text != classes => wrong("one logit a class"),
        (Head::Logits { .. }, _) | (Head::Embedding, 2) => {
            Ok(rows.map(|(_, row)| row.to_vec()).collect())
        }
        (Head::Embedding, 3) => Ok(rows
            .map(|(text, hidden)| pooling::pool(pooling, hidden, width, text.tokens()))
            .collect()),
        (Head::Embedding, _) => wrong("[texts, width] or [texts, tokens, width]"),
    }
}
