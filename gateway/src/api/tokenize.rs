//! `POST /tokenize` and `/detokenize`, in vLLM's form.

use http::Response;
use serde::Serialize;
use serde_json::Value;
use sluice_engine::tokenizer::TextTokenizer;

use super::call::Call;
use super::chat::{PromptForm, take_messages};
use super::fields::{self, Fields};
use super::{json, peers, prompt};
use crate::Body;
use crate::error::ApiError;
use crate::router::LocalModel;

/// Bytes of text for each token that may come of it, on average.
const BYTES_A_TOKEN: usize = 8;

#[derive(Serialize)]
struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    /// Each token's text, when `return_token_strs` asks for it.
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Text {
    prompt: String,
}

/// Text or messages to token ids: what a completion or a chat would be computed
/// from. Text longer than the context is tokenised all the same, up to the server's limit.
pub(crate) async fn tokenize(call: &Call) -> Result<Response<Body>, ApiError> {
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let mut request = Fields::parse(&call.body)?;
    drop(parsing);
    peers::check(&request, peers::TOKENIZE)?;
    let want_text = request.boolean("return_token_strs")?.unwrap_or(false);
    let work = {
        let model = call.model.clone();
        let limit = max_tokens(call);
        let wrong_kind = call.wrong_kind("a model with a tokenizer");
        move || -> Result<Tokens, ApiError> {
            let Some((tokenizer, max_model_len)) = tokenizer_of(&model) else {
                return Err(wrong_kind);
            };
            let limit = limit.max(max_model_len);
            let tokens = match request.has("messages") {
                true => of_messages(&model, tokenizer, &mut request, limit)?,
                false => of_prompt(tokenizer, &mut request, limit)?,
            };
            let text = |id: &u32| tokenizer.token_text(*id);
            Ok(Tokens {
                count: tokens.len(),
                max_model_len,
                token_strs: want_text.then(|| tokens.iter().map(text).collect()),
                tokens,
            })
        }
    };
    let tokens = prompt::compute(&call.context, call.body.len(), work).await??;
    json::ok(&tokens)
}

/// Tokens that one request may be about, whatever the model's context.
fn max_tokens(call: &Call) -> usize {
    let shares = call.context.shares.as_ref();
    shares.map_or(usize::MAX, |shares| shares.max_tokenize)
}

fn of_prompt(
    tokenizer: &TextTokenizer,
    request: &mut Fields,
    limit: usize,
) -> Result<Vec<u32>, ApiError> {
    let text = request.required_string("prompt")?;
    let add_special = request.boolean("add_special_tokens")?.unwrap_or(true);
    bounded(tokenizer, &text, add_special, limit, "prompt")
}

/// Token ids of a text within the limit. Longer ones are refused before they take memory: about a
/// hundred bytes for each of theirs.
fn bounded(
    tokenizer: &TextTokenizer,
    text: &str,
    add_special: bool,
    limit: usize,
    field: &'static str,
) -> Result<Vec<u32>, ApiError> {
    let most = limit.saturating_mul(BYTES_A_TOKEN);
    if text.len() > most {
        let message = format!(
            "Invalid '{field}': string too long. Expected at most {most} bytes, but got {}.",
            text.len()
        );
        let error = ApiError::bad_request("string_above_max_length", message);
        return Err(error.with_param(field));
    }
    let tokens = tokenizer
        .encode(text, add_special)
        .map_err(|error| ApiError::invalid_value(field, format!("Invalid '{field}': {error}.")))?;
    match tokens.len() > limit {
        true => Err(fields::long_array(field.into(), limit, tokens.len())),
        false => Ok(tokens),
    }
}

fn of_messages(
    model: &LocalModel,
    tokenizer: &TextTokenizer,
    request: &mut Fields,
    limit: usize,
) -> Result<Vec<u32>, ApiError> {
    let LocalModel::Language(model) = model else {
        return Err(no_template());
    };
    let template = model.template.as_ref().ok_or_else(no_template)?;
    let messages = take_messages(request)?;
    let tools: Option<Vec<Value>> = request.array("tools")?;
    let form = PromptForm::take(request)?;
    let text = form.render(template, &messages, tools.as_deref())?;
    bounded(tokenizer, &text, form.add_special, limit, "messages")
}

fn no_template() -> ApiError {
    ApiError::unsupported(
        "messages",
        "This model has no chat template: send 'prompt' instead of 'messages'.",
    )
}

/// Token ids to text, special tokens included unless `skip_special_tokens`.
pub(crate) async fn detokenize(call: &Call) -> Result<Response<Body>, ApiError> {
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let mut request = Fields::parse(&call.body)?;
    let Some(tokens) = request.token_ids("tokens")? else {
        return Err(ApiError::missing("tokens"));
    };
    let skip_special = request.boolean("skip_special_tokens")?.unwrap_or(false);
    drop((request, parsing));
    let Some((tokenizer, context)) = tokenizer_of(&call.model) else {
        return Err(call.wrong_kind("a model with a tokenizer"));
    };
    let limit = max_tokens(call).max(context);
    if tokens.len() > limit {
        return Err(fields::long_array("tokens".into(), limit, tokens.len()));
    }
    prompt::check_ids(&tokens, tokenizer.vocab_size(), || "tokens".to_owned())?;
    let model = call.model.clone();
    let work = move || tokenizer_of(&model).map(|(found, _)| found.decode(&tokens, skip_special));
    let text = prompt::compute(&call.context, call.body.len(), work).await?;
    json::ok(&Text {
        prompt: text.unwrap_or_default(),
    })
}

/// The tokenizer and the tokens that one request can hold.
fn tokenizer_of(model: &LocalModel) -> Option<(&TextTokenizer, usize)> {
    match model {
        LocalModel::Language(model) => Some((&model.tokenizer, model.info.context_length)),
        LocalModel::Encoder(encoder) => Some((encoder.tokenizer(), encoder.max_tokens())),
        LocalModel::Tensor(_) => None,
    }
}
