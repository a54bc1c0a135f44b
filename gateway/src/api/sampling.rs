//! The parameters that chat and completions share: how to sample, when to stop,
//! how to deliver.

use std::sync::Arc;

use serde_json::Value;
use sluice_engine::request::{Priority, SamplingParams};

use super::fields::{self, Fields};
use super::peers;
use crate::context::RequestContext;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// Choices of one prompt at most (OpenAI's own bound).
pub(crate) const MAX_N: u32 = 128;
/// Stop strings at most; OpenAI takes 4.
const MAX_STOP: usize = 16;
/// Bytes of one stop string: each is compared with every token's text.
const MAX_STOP_LENGTH: usize = 1024;
/// Words of `bad_words` at most, and the bytes of one: what they cost grows with both.
const MAX_BAD_WORDS: usize = 128;
const MAX_BAD_WORD_LENGTH: usize = 128;
/// Entries of `logit_bias` at most (OpenAI's own bound is 300).
const MAX_BIAS: usize = 1024;

/// What a request says about sampling and delivery, checked.
#[derive(Debug, Clone)]
pub(crate) struct Sampling {
    /// Everything but `logprobs`, `prompt_logprobs` and `max_tokens`, which
    /// chat and completions spell differently.
    pub(crate) params: SamplingParams,
    /// Choices per prompt.
    pub(crate) n: usize,
    /// The only tokens that may come.
    pub(crate) allowed: Option<Vec<u32>>,
    /// Words that must not come.
    pub(crate) bad_words: Vec<String>,
    /// Strings that end a choice.
    pub(crate) stop: Vec<String>,
    /// Leave special tokens out of the text.
    pub(crate) skip_special: bool,
    /// Keep the stop string that was met in the text.
    pub(crate) include_stop: bool,
    /// `Some` when the answer is a stream.
    pub(crate) stream: Option<StreamOptions>,
    /// Only requests of the same reuse each other's K/V, within what the key shares anyway.
    pub(crate) cache_salt: Option<String>,
    /// `service_tier`, when the request says one other than `auto`.
    pub(crate) tier: Option<Priority>,
    /// Whether `service_tier` was named at all, and so is told back.
    pub(crate) tier_asked: bool,
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StreamOptions {
    /// A last chunk without choices carries the usage.
    pub(crate) include_usage: bool,
    /// Each chunk carries the usage so far of its choice (vLLM's extension).
    pub(crate) continuous_usage: bool,
}

impl Sampling {
    /// Takes the shared fields out of a request.
    pub(crate) fn take(request: &mut Fields) -> Result<Self, ApiError> {
        let stream = take_stream(request)?;
        let (tier_asked, tier) = take_tier(request)?;
        // Said by clients for their own bookkeeping; checked so that a mistake
        // shows here as it does at OpenAI's.
        request.string("user")?;
        request.object("metadata")?;
        Ok(Self {
            n: request.count("n", 1..=MAX_N)?.unwrap_or(1),
            allowed: take_allowed(request)?,
            bad_words: take_bad_words(request)?,
            stop: take_stop(request)?,
            skip_special: request.boolean("skip_special_tokens")?.unwrap_or(true),
            include_stop: request
                .boolean("include_stop_str_in_output")?
                .unwrap_or(false),
            params: take_params(request)?,
            cache_salt: take_salt(request)?,
            stream,
            tier,
            tier_asked,
        })
    }

    /// The parameters of choice `index`: the same seed must not give `n` equal texts.
    pub(crate) fn params_of(&self, index: usize) -> SamplingParams {
        let mut params = self.params.clone();
        params.seed = params.seed.map(|seed| seed.wrapping_add(index as u64));
        params
    }

    /// The class in the waiting queue. A key's own class is the highest that its
    /// requests can have.
    pub(crate) fn priority(&self, context: &RequestContext) -> Priority {
        match (self.tier, &context.principal) {
            (None, _) => context.priority,
            (Some(tier), None) => tier,
            (Some(tier), Some(principal)) => tier.min(principal.priority),
        }
    }
}

/// The name of a priority in `service_tier`.
pub(crate) fn tier_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "flex",
        Priority::Normal => "default",
        Priority::High => "priority",
    }
}

fn take_params(request: &mut Fields) -> Result<SamplingParams, ApiError> {
    let defaults = SamplingParams::default();
    let mut number = |key, range, default: f32| -> Result<f32, ApiError> {
        let found = request.number(key, range)?;
        Ok(found.map_or(default, |value| value as f32))
    };
    let temperature = number("temperature", 0.0..=2.0, defaults.temperature)?;
    let top_p = number("top_p", 0.0..=1.0, defaults.top_p)?;
    let min_p = number("min_p", 0.0..=1.0, defaults.min_p)?;
    let presence_penalty = number("presence_penalty", -2.0..=2.0, 0.0)?;
    let frequency_penalty = number("frequency_penalty", -2.0..=2.0, 0.0)?;
    let repetition_penalty = number("repetition_penalty", 0.0..=10.0, 1.0)?;
    for (name, value) in [("top_p", top_p), ("repetition_penalty", repetition_penalty)] {
        if value <= 0.0 {
            return Err(ApiError::invalid_value(
                name,
                format!("Invalid '{name}': expected a number greater than 0, but got {value}."),
            ));
        }
    }
    let top_k = request.integer("top_k", -1..=i64::from(u32::MAX))?;
    let stop_token_ids = request.token_ids("stop_token_ids")?.unwrap_or_default();
    if stop_token_ids.len() > MAX_BIAS {
        return Err(fields::long_array(
            request.path_of("stop_token_ids"),
            MAX_BIAS,
            stop_token_ids.len(),
        ));
    }
    Ok(SamplingParams {
        temperature,
        top_p,
        // vLLM's clients turn it off with −1.
        top_k: top_k.map_or(0, |k| u32::try_from(k.max(0)).unwrap_or(0)),
        min_p,
        presence_penalty,
        frequency_penalty,
        repetition_penalty,
        logit_bias: take_bias(request)?,
        seed: request
            .integer("seed", i64::MIN..=i64::MAX)?
            .map(i64::cast_unsigned),
        min_tokens: request.count("min_tokens", 0..=u32::MAX)?.unwrap_or(0),
        stop_token_ids: stop_token_ids.into(),
        ignore_eos: request.boolean("ignore_eos")?.unwrap_or(false),
        ..defaults
    })
}

/// `{"<token id>": bias}`; the field at fault is `logit_bias` itself, as OpenAI says it.
fn take_bias(request: &mut Fields) -> Result<Arc<[(u32, f32)]>, ApiError> {
    let Some(bias) = request.object("logit_bias")? else {
        return Ok(Arc::from([]));
    };
    let entries = bias.into_map();
    if entries.len() > MAX_BIAS {
        return Err(ApiError::invalid_value(
            "logit_bias",
            format!(
                "Invalid 'logit_bias': at most {MAX_BIAS} entries, but got {}.",
                entries.len()
            ),
        ));
    }
    entries
        .iter()
        .map(|(key, value)| {
            let id: u32 = key.parse().map_err(|_| {
                ApiError::invalid_value(
                    "logit_bias",
                    "Invalid key in 'logit_bias': expected a token id written as a string of \
                     digits, such as \"50256\".",
                )
            })?;
            let bias = fields::number(value, || "logit_bias".to_owned(), -100.0..=100.0)?;
            Ok((id, bias as f32))
        })
        .collect()
}

fn take_stop(request: &mut Fields) -> Result<Vec<String>, ApiError> {
    let path = request.path_of("stop");
    let stops = match request.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => {
            if many.len() > MAX_STOP {
                return Err(fields::long_array(path, MAX_STOP, many.len()));
            }
            let read = |(index, value)| match value {
                Value::String(one) => Ok(one),
                other => Err(fields::wrong_type(
                    format!("{path}[{index}]"),
                    "a string",
                    &other,
                )),
            };
            many.into_iter()
                .enumerate()
                .map(read)
                .collect::<Result<_, _>>()?
        }
        Some(other) => {
            let expected = "a string or an array of strings";
            return Err(fields::wrong_type(path, expected, &other));
        }
    };
    if stops.iter().any(String::is_empty) {
        return Err(fields::empty_string(path));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > MAX_STOP_LENGTH) {
        return Err(too_long(path, MAX_STOP_LENGTH, long.len()));
    }
    Ok(stops)
}

/// vLLM's `allowed_token_ids`; whether the vocabulary has them is looked at later.
fn take_allowed(request: &mut Fields) -> Result<Option<Vec<u32>>, ApiError> {
    match request.token_ids("allowed_token_ids")? {
        Some(ids) if ids.is_empty() => {
            Err(fields::empty_array(request.path_of("allowed_token_ids")))
        }
        found => Ok(found),
    }
}

/// vLLM's `bad_words`.
fn take_bad_words(request: &mut Fields) -> Result<Vec<String>, ApiError> {
    let path = request.path_of("bad_words");
    let words = request.array("bad_words")?.unwrap_or_default();
    if words.len() > MAX_BAD_WORDS {
        return Err(fields::long_array(path, MAX_BAD_WORDS, words.len()));
    }
    let read = |(index, word)| {
        let path = format!("{path}[{index}]");
        match word {
            Value::String(word) if word.trim().is_empty() => Err(fields::empty_string(path)),
            Value::String(word) if word.len() > MAX_BAD_WORD_LENGTH => {
                Err(too_long(path, MAX_BAD_WORD_LENGTH, word.len()))
            }
            Value::String(word) => Ok(word),
            other => Err(fields::wrong_type(path, "a string", &other)),
        }
    };
    words.into_iter().enumerate().map(read).collect()
}

fn too_long(path: String, limit: usize, found: usize) -> ApiError {
    let message = format!(
        "Invalid '{path}': string too long. Expected at most {limit} bytes, but got {found}."
    );
    ApiError::bad_request("string_above_max_length", message).with_param(path)
}

/// vLLM's `cache_salt`: any text that is not empty.
fn take_salt(request: &mut Fields) -> Result<Option<String>, ApiError> {
    match request.string("cache_salt")? {
        Some(text) if text.is_empty() => Err(fields::empty_string(request.path_of("cache_salt"))),
        found => Ok(found),
    }
}

fn take_stream(request: &mut Fields) -> Result<Option<StreamOptions>, ApiError> {
    let stream = request.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = request.object("stream_options")? else {
        return Ok(stream.then(StreamOptions::default));
    };
    if !stream {
        return Err(ApiError::invalid_value(
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ));
    }
    peers::check(&options, peers::STREAM_OPTIONS)?;
    let continuous = options.boolean("continuous_usage_stats")?.unwrap_or(false);
    let include_usage = options.boolean("include_usage")?.unwrap_or(continuous);
    Ok(Some(StreamOptions {
        include_usage,
        continuous_usage: include_usage && continuous,
    }))
}

/// Whether a tier was named, and which queue class it means.
fn take_tier(request: &mut Fields) -> Result<(bool, Option<Priority>), ApiError> {
    let tier = request.choice(
        "service_tier",
        &[
            ("auto", None),
            ("default", Some(Priority::Normal)),
            ("flex", Some(Priority::Low)),
            ("priority", Some(Priority::High)),
        ],
    )?;
    Ok((tier.is_some(), tier.flatten()))
}
