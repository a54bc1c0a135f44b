//! `POST /v1/rerank`, in the form of Jina and Cohere.
//!
//! A cross-encoder scores each pair; an embedding model scores by the cosine of
//! query and document.

use std::cmp::Ordering;
use std::time::Instant;

use http::Response;
use serde::Serialize;
use serde_json::Value;
use sluice_engine::encoder::{EmbedOptions, Embedding, Encoder, EncoderInput};

use super::ask::Unanswered;
use super::call::Call;
use super::embeddings::{
    EncoderUsage, Metering, check_cut, embed_all, encode_options, from_encode,
};
use super::fields::{self, Fields};
use super::{ids, json, peers, prompt};
use crate::Body;
use crate::error::ApiError;
use crate::router::LocalModel;

#[cfg(test)]
mod tests;

/// Documents in one request at most (Cohere's own bound).
const MAX_DOCUMENTS: usize = 1000;

/// A rerank request.
#[derive(Debug)]
struct RerankRequest {
    query: String,
    /// At least one.
    documents: Vec<String>,
    /// Results wanted; all when absent.
    top_n: Option<usize>,
    return_documents: bool,
    /// Cut what is too long, instead of refusing it.
    truncate: bool,
    /// Limits of the request's own, by their field.
    cuts: Vec<(&'static str, usize)>,
}

impl RerankRequest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut request = Fields::parse(body)?;
        let request = &mut request;
        peers::check(request, peers::RERANK)?;
        let query = request.required_string("query")?;
        if query.is_empty() {
            return Err(fields::empty_string("query".into()));
        }
        Ok(Self {
            query,
            documents: take_documents(request)?,
            top_n: request.count("top_n", 1..=u32::MAX)?,
            return_documents: request.boolean("return_documents")?.unwrap_or(false),
            truncate: request.boolean("truncate")?.unwrap_or(true),
            cuts: take_cuts(request)?,
        })
    }
}

/// vLLM's `truncate_prompt_tokens`, of which −1 is the model's limit, and Cohere's
/// `max_tokens_per_doc`.
fn take_cuts(request: &mut Fields) -> Result<Vec<(&'static str, usize)>, ApiError> {
    let mut cuts = Vec::new();
    for (field, least) in [("truncate_prompt_tokens", -1), ("max_tokens_per_doc", 1)] {
        let tokens = request.integer(field, least..=i64::from(u32::MAX))?;
        if let Some(tokens) = tokens.and_then(|tokens| usize::try_from(tokens).ok()) {
            cuts.push((field, tokens));
        }
    }
    Ok(cuts)
}

/// Strings, or objects with `text`.
fn take_documents(request: &mut Fields) -> Result<Vec<String>, ApiError> {
    let path = "documents";
    let Some(documents) = request.array(path)? else {
        return Err(ApiError::missing(path));
    };
    if documents.is_empty() {
        return Err(fields::empty_array(path.into()));
    }
    if documents.len() > MAX_DOCUMENTS {
        return Err(fields::long_array(
            path.into(),
            MAX_DOCUMENTS,
            documents.len(),
        ));
    }
    let read = |(index, document)| {
        let path = format!("{path}[{index}]");
        match document {
            Value::String(text) => Ok(text),
            object @ Value::Object(_) => Fields::nested(object, path)?.required_string("text"),
            other => Err(fields::wrong_type(
                path,
                "a string or an object with 'text'",
                &other,
            )),
        }
    };
    documents.into_iter().enumerate().map(read).collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    object: &'static str,
    model: &'a str,
    results: Vec<Ranked<'a>>,
    usage: EncoderUsage,
}

#[derive(Serialize)]
struct Ranked<'a> {
    /// Place in the request.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    text: &'a str,
}

/// Answers a rerank request.
pub(crate) async fn create(call: &Call) -> Result<Response<Body>, Unanswered> {
    let LocalModel::Encoder(encoder) = &*call.model else {
        return Err(call.wrong_kind("an embedding or rerank model").into());
    };
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let request = RerankRequest::parse(&call.body)?;
    drop(parsing);
    for (field, tokens) in &request.cuts {
        check_cut(field, *tokens, encoder.max_tokens())?;
    }
    let (scores, tokens) = if encoder.scores_pairs() {
        score_pairs(call, encoder, &request).await?
    } else {
        score_by_cosine(call, encoder, &request).await?
    };
    let ranked = |(index, relevance_score)| Ranked {
        index,
        relevance_score,
        document: request.return_documents.then(|| Document {
            text: &request.documents[index],
        }),
    };
    Ok(json::ok(&Answer {
        id: ids::random("rerank-"),
        object: "list",
        model: &call.deployment.name,
        results: rank(scores, request.top_n)
            .into_iter()
            .map(ranked)
            .collect(),
        usage: EncoderUsage::new(tokens),
    })?)
}

/// Scores in 0..=1 by a cross-encoder, and the tokens computed.
async fn score_pairs(
    call: &Call,
    encoder: &Encoder,
    request: &RerankRequest,
) -> Result<(Vec<f32>, usize), Unanswered> {
    let context = &call.context;
    let options = encode_options(context, request.truncate);
    let asked = Instant::now();
    let (metering, encoder) = Metering::of(context, encoder);
    let scores = encoder
        .score_pairs(&request.query, &request.documents, options)
        .await;
    drop(metering);
    context.outcome.add_target_time(asked.elapsed());
    let scores = scores.map_err(|error| from_encode(error, "documents"))?;
    let tokens = scores.iter().map(|pair| pair.tokens).sum();
    Ok((scores.iter().map(|pair| pair.score).collect(), tokens))
}

/// Cosines in −1..=1 by an embedding model, and the tokens computed.
async fn score_by_cosine(
    call: &Call,
    encoder: &Encoder,
    request: &RerankRequest,
) -> Result<(Vec<f32>, usize), Unanswered> {
    let texts = std::iter::once(&request.query)
        .chain(&request.documents)
        .map(|text| EncoderInput::Text(text.clone()))
        .collect();
    let options = EmbedOptions {
        encode: encode_options(&call.context, request.truncate),
        normalize: Some(true),
        dimensions: None,
    };
    let embeddings = embed_all(&call.context, encoder, texts, options, "documents").await?;
    let tokens = embeddings.iter().map(|embedding| embedding.tokens).sum();
    let Some((query, documents)) = embeddings.split_first() else {
        return Err(ApiError::internal("The model gave no embedding.").into());
    };
    let cosine = |document: &Embedding| dot(&query.vector, &document.vector);
    Ok((documents.iter().map(cosine).collect(), tokens))
}

/// Places and scores, best first; equal scores keep their order.
fn rank(scores: Vec<f32>, top: Option<usize>) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
    ranked.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    ranked.truncate(top.unwrap_or(usize::MAX));
    ranked
}

/// The cosine, as both vectors have length 1.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
