//! The body of `POST /v1/chat/completions`, checked.

use serde_json::Value;
use sluice_engine::tokenizer::tools::ToolChoice;

use super::form::PromptForm;
use super::message::take_messages;
use super::tools::Tools;
use crate::api::constraint::{self, Constraint};
use crate::api::fields::Fields;
use crate::api::peers;
use crate::api::sampling::Sampling;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// Alternatives per token at most (OpenAI's own bound).
const MAX_TOP_LOGPROBS: u32 = 20;

/// A chat request. Whatever is not here is refused by name, where a peer documents it
/// ([`peers`]), or ignored on purpose: fields that OpenAI's clients send and that change nothing
/// (`store`, `prediction`, …).
#[derive(Debug, Clone)]
pub(crate) struct ChatRequest {
    /// In the form of templates, at least one.
    pub(crate) messages: Vec<Value>,
    pub(crate) tools: Tools,
    pub(crate) sampling: Sampling,
    /// What the content must match.
    pub(crate) constraint: Option<Constraint>,
    /// `Some(n)`: log-probabilities with `n` alternatives.
    pub(crate) logprobs: Option<u8>,
    /// `max_completion_tokens` or `max_tokens`; absent: what the context holds.
    pub(crate) max_tokens: Option<usize>,
    /// How the messages become a prompt.
    pub(crate) form: PromptForm,
    /// The last message's text, where the answer is to begin with it: `echo` (vLLM's extension)
    /// after a message of the assistant's.
    pub(crate) echo: Option<String>,
}

impl ChatRequest {
    /// Reads a request. `model` has been read before, by the router.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut request = Fields::parse(body)?;
        let request = &mut request;
        let messages = take_messages(request)?;
        refuse_modalities(request)?;
        let tools = Tools::take(request)?;
        let constraint = constraint::take(request)?;
        let forced = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        if forced && constraint.is_some() {
            return Err(ApiError::invalid_value(
                "tool_choice",
                "A forced 'tool_choice' and a constraint on the content ('response_format', \
                 'guided_…') exclude each other: the answer is a call, not content.",
            ));
        }
        let echo = request.boolean("echo")?.unwrap_or(false);
        let parsed = Self {
            echo: echo.then(|| last_words(&messages)).flatten(),
            messages,
            tools,
            constraint,
            logprobs: take_logprobs(request)?,
            max_tokens: take_max_tokens(request)?,
            form: PromptForm::take(request)?,
            sampling: Sampling::take(request)?,
        };
        peers::check(request, peers::CHAT)?;
        Ok(parsed)
    }
}

/// What the assistant has said last, if the last message is its own.
fn last_words(messages: &[Value]) -> Option<String> {
    let last = messages.last()?;
    let text = match &last["content"] {
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        content => content.as_str()?.to_owned(),
    };
    (last["role"] == "assistant" && !text.is_empty()).then_some(text)
}

fn take_logprobs(request: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = request.boolean("logprobs")?.unwrap_or(false);
    let top = request.count("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(ApiError::invalid_value(
            "top_logprobs",
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
        ));
    }
    let top = u8::try_from(top.unwrap_or(0)).unwrap_or(u8::MAX);
    Ok(wanted.then_some(top))
}

fn take_max_tokens(request: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = request.count("max_tokens", 1..=u32::MAX)?;
    let new = request.count("max_completion_tokens", 1..=u32::MAX)?;
    if old.is_some() && new.is_some() && old != new {
        return Err(ApiError::invalid_value(
            "max_tokens",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported: \
             'max_tokens' is the older name of the other.",
        ));
    }
    Ok(new.or(old))
}

/// Text in, text out.
fn refuse_modalities(request: &mut Fields) -> Result<(), ApiError> {
    if let Some(modalities) = request.array("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(ApiError::bad_request(
            "unsupported_value",
            "Invalid 'modalities': this model writes text only; supported values are: 'text'.",
        )
        .with_param("modalities"));
    }
    Ok(())
}
