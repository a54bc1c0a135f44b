//! One session of an encoder: which inputs and outputs its graph has, and how a
//! batch of texts runs through it.

use crate::backend::onnx::{
    Datatype, DevicePooling, ModelSource, OnnxSession, Pooled, Provider, SessionOptions,
    TensorInfo, TensorSlice, TensorView,
};
use crate::cuda::Float;
use crate::error::{BackendError, LoadError};
use crate::folder::{EncoderConfig, Pooling};

use super::pooling;
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
    session: OnnxSession,
    inputs: Vec<Input>,
    output: String,
    head: Head,
    pooling: Pooling,
    pad: u32,
    /// CUDA's number of the device on which token vectors are pooled.
    pooled_on: Option<(Provider, u32)>,
    /// That device, once the worker's thread has opened it.
    device: Option<DevicePooling>,
}

impl EncoderSession {
    pub(super) fn open(
        name: &str,
        config: &EncoderConfig,
        pooling: Pooling,
        options: &SessionOptions,
        pooled_on: Option<u32>,
    ) -> Result<Self, LoadError> {
        let session = OnnxSession::open(name, ModelSource::File(&config.model), options)?;
        let unsupported = |reason: String| LoadError::Unsupported {
            model: name.to_owned(),
            reason,
        };
        let inputs = session.inputs().iter().map(input);
        let inputs = inputs.collect::<Result<_, _>>().map_err(unsupported)?;
        let (output, head) = head(session.outputs(), config).map_err(unsupported)?;
        Ok(Self {
            inputs,
            output,
            head,
            pooling,
            pad: config.pad,
            session,
            pooled_on: pooled_on.map(|ordinal| (options.provider, ordinal)),
            device: None,
        })
    }

    /// The same model for another thread.
    pub(super) fn share(&self) -> Result<Self, LoadError> {
        Ok(Self {
            session: self.session.share()?,
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            device: None,
            ..*self
        })
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Gives the device back; the thread that runs the next batch opens it again.
    pub(super) fn leave_thread(&mut self) {
        self.device = None;
    }

    /// Opens the device where token vectors are pooled on it.
    fn open_device(&mut self) -> Result<(), BackendError> {
        let (None, Some((provider, ordinal))) = (&self.device, self.pooled_on) else {
            return Ok(());
        };
        let Some(pooled) = self.pooled() else {
            return Ok(());
        };
        let opened = DevicePooling::open(provider, ordinal, pooled);
        self.device = Some(opened.map_err(|error| BackendError::Step(error.to_string()))?);
        Ok(())
    }

    /// What a device would pool: token vectors of a width that the graph states.
    fn pooled(&self) -> Option<Pooled> {
        let outputs = self.session.outputs();
        let info = outputs.iter().find(|info| info.name == self.output)?;
        let float = match info.datatype? {
            Datatype::Fp32 => Float::F32,
            Datatype::Fp16 => Float::F16,
            _ => return None,
        };
        match (self.head, info.dims().as_slice()) {
            (Head::Embedding, &[_, _, width]) if width > 0 => Some(Pooled {
                output: self.output.clone(),
                float,
                width: width as usize,
                pooling: self.pooling,
            }),
            _ => None,
        }
    }

    /// Runs a batch; one row (embedding or logits) a text. Padded to the longest.
    pub(super) fn run(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, BackendError> {
        let longest = texts.iter().map(|text| text.tokens()).max().unwrap_or(0);
        self.open_device()?;
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
        if let Some(device) = &mut self.device {
            let tokens: Vec<u32> = texts.iter().map(|text| text.tokens() as u32).collect();
            return device.run(&mut self.session, &views, &tokens, longest);
        }
        let (head, pooling) = (self.head, self.pooling);
        let output = self.output.as_str();
        self.session
            .run_with(&views, &[output], |outputs| {
                let output = outputs.first().ok_or_else(|| "no output".to_owned())?;
                rows(output, texts, head, pooling)
            })?
            .map_err(BackendError::Step)
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
