//! The body of `POST /v1/completions`, checked.

use serde_json::Value;

use crate::api::constraint::{self, Constraint};
use crate::api::fields::{self, Fields};
use crate::api::peers;
use crate::api::sampling::Sampling;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// Prompts in one request at most.
const MAX_PROMPTS: usize = 256;
/// Alternatives per token at most (OpenAI's own bound).
const MAX_LOGPROBS: u32 = 5;

/// Text, or token ids as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A completion request.
#[derive(Debug, Clone)]
pub(crate) struct CompletionRequest {
    /// At least one.
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) sampling: Sampling,
    pub(crate) constraint: Option<Constraint>,
    /// The answer begins with the prompt.
    pub(crate) echo: bool,
    /// `Some(n)`: log-probabilities with `n` alternatives; with `echo` of the
    /// prompt's tokens too.
    pub(crate) logprobs: Option<u8>,
    /// Absent: 16, as at OpenAI. 0 only scores the prompt.
    pub(crate) max_tokens: Option<usize>,
    /// Each choice lists the ids of its generated tokens (vLLM's extension).
    pub(crate) return_token_ids: bool,
    /// Whether text prompts get the model's beginning-of-sequence token.
    pub(crate) add_special: bool,
}

impl CompletionRequest {
    /// Reads a request. `model` has been read before, by the router.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut request = Fields::parse(body)?;
        let request = &mut request;
        let prompts = take_prompts(request, "prompt", MAX_PROMPTS)?;
        if request
            .string("suffix")?
            .is_some_and(|suffix| !suffix.is_empty())
        {
            return Err(ApiError::unsupported(
                "suffix",
                "'suffix' is not supported: this model completes at the end only.",
            ));
        }
        let logprobs = request.count("logprobs", 0..=MAX_LOGPROBS)?;
        let sampling = Sampling::take(request)?;
        let best_of = request.count("best_of", 1..=crate::api::sampling::MAX_N)?;
        if best_of.is_some_and(|best_of| best_of != sampling.n) {
            return Err(ApiError::unsupported(
                "best_of",
                "'best_of' is not supported other than equal to 'n': all choices are returned.",
            ));
        }
        let parsed = Self {
            prompts,
            sampling,
            constraint: constraint::take(request)?,
            echo: request.boolean("echo")?.unwrap_or(false),
            logprobs: logprobs.map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
            max_tokens: request.count("max_tokens", 0..=u32::MAX)?,
            return_token_ids: request.boolean("return_token_ids")?.unwrap_or(false),
            add_special: request.boolean("add_special_tokens")?.unwrap_or(true),
        };
        peers::check(request, peers::COMPLETIONS)?;
        Ok(parsed)
    }
}

/// A string, an array of strings, an array of token ids, or an array of arrays of
/// token ids.
pub(crate) fn take_prompts(
    request: &mut Fields,
    key: &str,
    limit: usize,
) -> Result<Vec<Prompt>, ApiError> {
    let path = request.path_of(key);
    let items = match request.required(key)? {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        other => {
            let expected = "a string, an array of strings, or an array of token ids";
            return Err(fields::wrong_type(path, expected, &other));
        }
    };
    match items.first() {
        None => return Err(fields::empty_array(path)),
        Some(Value::Number(_)) => {
            let ids = fields::token_ids(&Value::Array(items), || path.clone())?;
            return Ok(vec![Prompt::Tokens(ids)]);
        }
        Some(_) => {}
    }
    if items.len() > limit {
        return Err(fields::long_array(path, limit, items.len()));
    }
    // As at OpenAI, all are of one kind: the first says of which.
    let texts = items.first().is_some_and(Value::is_string);
    let read = |(index, item): (usize, Value)| match item {
        Value::String(text) if texts => Ok(Prompt::Text(text)),
        Value::String(_) | Value::Array(_) if texts != item.is_string() => {
            let expected = match texts {
                true => "a string, as the first element is",
                false => "an array of token ids, as the first element is",
            };
            Err(fields::wrong_type(
                format!("{path}[{index}]"),
                expected,
                &item,
            ))
        }
        Value::Array(ids) if ids.is_empty() => Err(fields::empty_array(format!("{path}[{index}]"))),
        item @ Value::Array(_) => {
            fields::token_ids(&item, || format!("{path}[{index}]")).map(Prompt::Tokens)
        }
        other => Err(fields::wrong_type(
            format!("{path}[{index}]"),
            "a string or an array of token ids",
            &other,
        )),
    };
    items.into_iter().enumerate().map(read).collect()
}
