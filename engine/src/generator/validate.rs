//! Whether a request can be served at all, by the numbers alone.

use crate::backend::Capabilities;
use crate::error::SubmitError;
use crate::request::{GenerateRequest, SamplingParams};

/// Checks a request and cuts `max_tokens` to the context.
pub(super) fn check(
    request: &mut GenerateRequest,
    capabilities: &Capabilities,
) -> Result<(), SubmitError> {
    check_prompt(&request.prompt, capabilities.vocab)?;
    check_params(&request.params, capabilities.vocab)?;
    let prompt = request.prompt.len();
    let limit = capabilities.capacity as usize;
    // The last token drawn needs no place in the slot, but its predecessor does.
    let needed = prompt + request.params.max_tokens.min(1);
    if needed > limit {
        return Err(SubmitError::TooLong {
            prompt,
            requested: prompt.saturating_add(request.params.max_tokens),
            limit,
        });
    }
    request.params.max_tokens = request.params.max_tokens.min(limit - prompt);
    Ok(())
}

fn check_prompt(prompt: &[u32], vocab: u32) -> Result<(), SubmitError> {
    if prompt.is_empty() {
        return invalid("prompt", "must hold at least one token".to_owned());
    }
    match prompt.iter().find(|&&token| token >= vocab) {
        Some(token) => invalid(
            "prompt",
            format!("token id {token} is outside the vocabulary of {vocab}"),
        ),
        None => Ok(()),
    }
}

fn check_params(params: &SamplingParams, vocab: u32) -> Result<(), SubmitError> {
    range("temperature", params.temperature, 0.0, 2.0)?;
    range("top_p", params.top_p, f32::MIN_POSITIVE, 1.0)?;
    range("min_p", params.min_p, 0.0, 1.0)?;
    range("presence_penalty", params.presence_penalty, -2.0, 2.0)?;
    range("frequency_penalty", params.frequency_penalty, -2.0, 2.0)?;
    range(
        "repetition_penalty",
        params.repetition_penalty,
        f32::MIN_POSITIVE,
        f32::MAX,
    )?;
    for &(token, bias) in params.logit_bias.iter() {
        if token >= vocab {
            return invalid(
                "logit_bias",
                format!("token id {token} is outside the vocabulary of {vocab}"),
            );
        }
        range("logit_bias", bias, -100.0, 100.0)?;
    }
    if params.min_tokens > params.max_tokens {
        return invalid(
            "min_tokens",
            format!(
                "must be at most max_tokens ({}), and is {}",
                params.max_tokens, params.min_tokens
            ),
        );
    }
    Ok(())
}

/// NaN is in no range.
fn range(param: &'static str, value: f32, low: f32, high: f32) -> Result<(), SubmitError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let wanted = if low == f32::MIN_POSITIVE && high == f32::MAX {
        "greater than 0".to_owned()
    } else if low == f32::MIN_POSITIVE {
        format!("greater than 0 and at most {high}")
    } else {
        format!("between {low} and {high}")
    };
    invalid(param, format!("`{param}` must be {wanted}, and is {value}"))
}

fn invalid(param: &'static str, message: String) -> Result<(), SubmitError> {
    Err(SubmitError::Invalid { param, message })
}
