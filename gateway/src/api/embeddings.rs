//! `POST /v1/embeddings`.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Response;
use serde::Serialize;
use sluice_engine::batcher::{WorkError, WorkTimings};
use sluice_engine::encoder::{
    EmbedOptions, Embedding, EncodeError, EncodeOptions, Encoder, EncoderInput,
};
use sluice_engine::request::{Meter, Timings};

use super::ask::Unanswered;
use super::call::Call;
use super::choices::{not_begun, not_submitted};
use super::completions::{Prompt, take_prompts};
use super::fields::{self, Fields};
use super::{json, peers, prompt};
use crate::Body;
use crate::context::{Outcome, RequestContext};
use crate::error::ApiError;
use crate::router::LocalModel;

#[cfg(test)]
mod tests;

/// Inputs in one request at most (OpenAI's own bound).
pub(crate) const MAX_INPUTS: usize = 2048;
/// Inputs of one request that wait for the model at once. Enough to fill its
/// batches, and small against its queue, so that no request fills that alone.
pub(crate) const IN_FLIGHT: usize = 64;

/// An embeddings request.
#[derive(Debug)]
struct EmbeddingRequest {
    /// At least one, none of them empty.
    inputs: Vec<Prompt>,
    /// Keep the first so many dimensions (Matryoshka), normalised again.
    dimensions: Option<usize>,
    format: Format,
    /// Cut what is too long, instead of refusing it.
    truncate: Truncate,
    /// Scale to length 1; absent: as the model's folder says.
    normalize: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Float,
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truncate {
    Refuse,
    /// At the model's own limit.
    AtLimit,
    /// At this many tokens, which must be the model's own limit or more.
    At(usize),
}

impl EmbeddingRequest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut request = Fields::parse(body)?;
        let request = &mut request;
        let inputs = take_prompts(request, "input", MAX_INPUTS)?;
        let path = |index| match inputs.len() {
            1 => "input".to_owned(),
            _ => format!("input[{index}]"),
        };
        let empty = inputs.iter().position(|input| match input {
            Prompt::Text(text) => text.is_empty(),
            Prompt::Tokens(ids) => ids.is_empty(),
        });
        if let Some(index) = empty {
            return Err(fields::empty_string(path(index)));
        }
        request.string("user")?;
        peers::check(request, peers::EMBEDDINGS)?;
        let formats = [("float", Format::Float), ("base64", Format::Base64)];
        Ok(Self {
            dimensions: request.count("dimensions", 1..=u32::MAX)?,
            format: request
                .choice("encoding_format", &formats)?
                .unwrap_or(Format::Float),
            truncate: take_truncate(request)?,
            normalize: take_normalize(request)?,
            inputs,
        })
    }
}

/// `normalize` as in text-embeddings-inference, which vLLM calls `use_activation`.
fn take_normalize(request: &mut Fields) -> Result<Option<bool>, ApiError> {
    let normalize = request.boolean("normalize")?;
    Ok(normalize.or(request.boolean("use_activation")?))
}

/// `truncate` as in text-embeddings-inference, `truncate_prompt_tokens` as in vLLM
/// (−1: at the model's limit).
pub(crate) fn take_truncate(request: &mut Fields) -> Result<Truncate, ApiError> {
    let truncate = request.boolean("truncate")?.unwrap_or(false);
    let tokens = request.integer("truncate_prompt_tokens", -1..=i64::from(u32::MAX))?;
    Ok(match tokens.map(usize::try_from) {
        Some(Ok(tokens)) => Truncate::At(tokens),
        Some(Err(_)) => Truncate::AtLimit,
        None if truncate => Truncate::AtLimit,
        None => Truncate::Refuse,
    })
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: EncoderUsage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Encoded,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Encoded {
    Float(Vec<f32>),
    /// Little-endian f32, as OpenAI's Python client asks for.
    Base64(String),
}

/// `usage` of embeddings, rerank and classify.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct EncoderUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl EncoderUsage {
    pub(crate) fn new(tokens: usize) -> Self {
        Self {
            prompt_tokens: tokens,
            total_tokens: tokens,
        }
    }
}

/// Answers an embeddings request.
pub(crate) async fn create(call: &Call) -> Result<Response<Body>, Unanswered> {
    let LocalModel::Encoder(encoder) = &*call.model else {
        return Err(call.wrong_kind("an embedding model").into());
    };
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let request = EmbeddingRequest::parse(&call.body)?;
    drop(parsing);
    let truncate = check_truncate(request.truncate, encoder.max_tokens())?;
    let options = EmbedOptions {
        encode: encode_options(&call.context, truncate),
        normalize: request.normalize,
        dimensions: request.dimensions,
    };
    let inputs = request.inputs.into_iter().map(input_of).collect();
    let embeddings = embed_all(&call.context, encoder, inputs, options, "input").await?;
    let tokens = embeddings.iter().map(|embedding| embedding.tokens).sum();
    let item = |(index, embedding): (usize, Embedding)| Item {
        object: "embedding",
        index,
        embedding: encode(embedding.vector, request.format),
    };
    Ok(json::ok(&Answer {
        object: "list",
        data: embeddings.into_iter().enumerate().map(item).collect(),
        model: &call.deployment.name,
        usage: EncoderUsage::new(tokens),
    })?)
}

/// What the engine calls an input.
pub(crate) fn input_of(input: Prompt) -> EncoderInput {
    match input {
        Prompt::Text(text) => EncoderInput::Text(text),
        Prompt::Tokens(ids) => EncoderInput::Tokens(ids),
    }
}

/// Deadline and class of a request.
pub(crate) fn encode_options(context: &RequestContext, truncate: bool) -> EncodeOptions {
    EncodeOptions {
        deadline: context.deadline,
        priority: context.priority,
        truncate,
    }
}

/// Embeds all inputs, several at once, and returns them in order.
pub(crate) async fn embed_all(
    context: &RequestContext,
    encoder: &Encoder,
    inputs: Vec<EncoderInput>,
    options: EmbedOptions,
    field: &'static str,
) -> Result<Vec<Embedding>, Unanswered> {
    let asked = Instant::now();
    let (metering, encoder) = Metering::of(context, encoder);
    let encoder = &encoder;
    let results: Result<Vec<Embedding>, EncodeError> = stream::iter(inputs)
        .map(|input| encoder.embed(input, options))
        .buffered(IN_FLIGHT)
        .try_collect()
        .await;
    drop(metering);
    context.outcome.add_target_time(asked.elapsed());
    let embeddings = results.map_err(|error| from_encode(error, field))?;
    for embedding in &embeddings {
        note(context, embedding.timings);
    }
    Ok(embeddings)
}

/// Bills what was computed of a request's inputs when it is dropped, whether all of them were,
/// one has failed, or the client has left.
pub(crate) struct Metering {
    meter: Meter,
    outcome: Arc<Outcome>,
}

impl Metering {
    /// And the encoder that counts for it.
    pub(crate) fn of(context: &RequestContext, encoder: &Encoder) -> (Self, Encoder) {
        let meter = Meter::default();
        let metered = encoder.metered(&meter);
        let outcome = Arc::clone(&context.outcome);
        (Self { meter, outcome }, metered)
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        self.outcome.add_usage(self.meter.usage());
    }
}

/// Notes where the time of one input went.
pub(crate) fn note(context: &RequestContext, timings: WorkTimings) {
    context.outcome.add_timings(Timings {
        queue: timings.queue,
        prefill: timings.compute,
        ..Timings::default()
    });
}

/// The mapping from the encoder's failures. `field` holds what was too long.
pub(crate) fn from_encode(error: EncodeError, field: &'static str) -> Unanswered {
    match error {
        EncodeError::Submit(error) => not_submitted(error, field),
        EncodeError::Work(WorkError::Deadline) => ApiError::deadline().into(),
        EncodeError::Work(WorkError::NotBegun(reason)) => Unanswered::NotBegun(not_begun(&reason)),
        EncodeError::Work(WorkError::Failed(reason)) => {
            tracing::error!(reason, "encoding failed");
            ApiError::internal("The model failed while it was answering.").into()
        }
    }
}

/// Whether inputs are cut at the model's limit.
pub(crate) fn check_truncate(truncate: Truncate, limit: usize) -> Result<bool, ApiError> {
    match truncate {
        Truncate::Refuse => Ok(false),
        Truncate::AtLimit => Ok(true),
        Truncate::At(tokens) => check_cut("truncate_prompt_tokens", tokens, limit).map(|()| true),
    }
}

/// Refuses to cut elsewhere than at the model's limit.
pub(crate) fn check_cut(field: &'static str, tokens: usize, limit: usize) -> Result<(), ApiError> {
    if tokens >= limit {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "unsupported_value",
        format!(
            "Invalid '{field}': this model cuts texts at its own limit of {limit} tokens, so that \
             {limit} or more can be asked for, but got {tokens}."
        ),
    )
    .with_param(field))
}

fn encode(vector: Vec<f32>, format: Format) -> Encoded {
    match format {
        Format::Float => Encoded::Float(vector),
        Format::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Encoded::Base64(BASE64_STANDARD.encode(bytes))
        }
    }
}
