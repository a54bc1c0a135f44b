//! From a request's text to token ids and a sequence in the engine.

use std::sync::Arc;

use sluice_engine::generator::Generation;
use sluice_engine::grammar::{Grammar, GrammarCompiler, GrammarError, GrammarSpec};
use sluice_engine::language::LanguageModel;
use sluice_engine::request::{GenerateRequest, SamplingParams};
use sluice_engine::text::{TextOptions, TextStream};
use sluice_engine::tokenizer::{TextTokenizer, TokenizeError};

use super::call::Call;
use super::sampling::Sampling;
use crate::error::ApiError;

/// Work on longer texts leaves the connection's thread, so that it does not
/// hold up the streams that share it. Below, the hop costs more than the work.
const INLINE: usize = 8 << 10;

/// Runs CPU work on `bytes` bytes of text, off the async threads when it is much.
pub(crate) async fn compute<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= INLINE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::internal("The request could not be prepared."))
}

/// Token ids of a text of at most `limit` tokens. `field` is what the client
/// called the text.
pub(crate) fn encode(
    tokenizer: &TextTokenizer,
    text: &str,
    add_special: bool,
    limit: usize,
    field: &'static str,
) -> Result<Vec<u32>, ApiError> {
    tokenizer
        .encode_bounded(text, add_special, limit)
        .map_err(|error| match error {
            TokenizeError::TooLong { at_least, limit } => {
                ApiError::context_length(field, at_least, at_least, limit)
            }
            TokenizeError::Failed(reason) => {
                ApiError::invalid_value(field, format!("Invalid '{field}': {reason}."))
            }
        })
}

/// Refuses ids that the vocabulary does not have.
pub(crate) fn check_ids(
    ids: &[u32],
    vocab: usize,
    path: impl Fn() -> String,
) -> Result<(), ApiError> {
    match ids.iter().position(|id| *id as usize >= vocab) {
        None => Ok(()),
        Some(at) => Err(ApiError::invalid_value(
            format!("{}[{at}]", path()),
            format!(
                "Invalid '{}[{at}]': {} is not in this model's vocabulary of {vocab} tokens.",
                path(),
                ids[at]
            ),
        )),
    }
}

/// Compiles a grammar off the async threads. `field` is what the client called it.
pub(crate) async fn compile(
    compiler: &Arc<GrammarCompiler>,
    spec: GrammarSpec,
    field: &'static str,
) -> Result<Grammar, ApiError> {
    let compiler = Arc::clone(compiler);
    let compiled = tokio::task::spawn_blocking(move || compiler.compile(&spec))
        .await
        .map_err(|_| ApiError::internal("The grammar could not be compiled."))?;
    compiled.map_err(|error| grammar_error(&error, field))
}

/// A grammar that cannot be had. `field` is what the client called it.
pub(crate) fn grammar_error(error: &GrammarError, field: &'static str) -> ApiError {
    let code = match error {
        GrammarError::Unsupported { .. } => "unsupported_value",
        _ => "invalid_value",
    };
    let reason = error.to_string();
    let reason = reason.trim_end_matches('.');
    ApiError::bad_request(code, format!("Invalid '{field}': {reason}.")).with_param(field)
}

/// The tokens that may be generated after a prompt: what was asked for, or what
/// the context has left.
///
/// # Errors
/// The prompt fills the context.
pub(crate) fn budget(
    asked: Option<usize>,
    prompt: usize,
    context: usize,
    field: &'static str,
) -> Result<usize, ApiError> {
    let left = context.saturating_sub(prompt);
    match asked {
        Some(asked) if asked > left => Err(ApiError::context_length(
            field,
            prompt,
            prompt.saturating_add(asked),
            context,
        )),
        Some(asked) => Ok(asked),
        None if left == 0 => Err(ApiError::context_length(field, prompt, prompt + 1, context)),
        None => Ok(left),
    }
}

/// Refuses a request for more sequences than the engine ever holds: answered as an
/// overload, it would be tried again for ever.
pub(crate) fn check_sequences(
    model: &LanguageModel,
    prompts: usize,
    n: usize,
) -> Result<(), ApiError> {
    let slots = model.generator.capabilities().slots as usize;
    let limit = slots.saturating_add(model.generator.options().max_waiting);
    if prompts.saturating_mul(n) <= limit {
        return Ok(());
    }
    let asked = match prompts {
        1 => format!("{n} choices"),
        _ => format!("{n} choices of each of {prompts} prompts"),
    };
    Err(ApiError::invalid_value(
        "n",
        format!("Invalid 'n': {asked} are more than the {limit} sequences that this model holds."),
    ))
}

/// The engine's request for one choice.
pub(crate) fn sequence(
    call: &Call,
    sampling: &Sampling,
    prompt: &Arc<[u32]>,
    params: SamplingParams,
    grammar: Option<&Grammar>,
) -> GenerateRequest {
    GenerateRequest {
        prompt: Arc::clone(prompt),
        params,
        grammar: grammar.cloned(),
        priority: sampling.priority(&call.context),
        tenant: call.context.tenant(),
        deadline: call.context.deadline,
    }
}

/// A generation as text. `continuation`: it goes on where the prompt ends, maybe
/// within a word, so that its first space counts.
pub(crate) fn text_of(
    model: &LanguageModel,
    sampling: &Sampling,
    generation: Generation,
    continuation: bool,
) -> TextStream {
    let options = TextOptions {
        stop: sampling.stop.clone(),
        skip_special: sampling.skip_special,
        include_stop: sampling.include_stop,
    };
    let text = TextStream::new(generation, Arc::clone(&model.tokenizer), options);
    if continuation {
        text.continuing()
    } else {
        text
    }
}

/// Tokens that one sequence of this model can hold.
pub(crate) fn context_of(model: &LanguageModel) -> usize {
    model.info.context_length
}
