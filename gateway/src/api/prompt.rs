//! From a request's text to token ids and a sequence in the engine.

use std::borrow::Cow;
use std::sync::Arc;

use sluice_engine::generator::Generation;
use sluice_engine::grammar::{Grammar, GrammarCompiler, GrammarError, GrammarSpec};
use sluice_engine::language::LanguageModel;
use sluice_engine::request::{GenerateRequest, SamplingParams};
use sluice_engine::restriction::{Restriction, RestrictionSpec};
use sluice_engine::text::{TextOptions, TextStream};
use sluice_engine::tokenizer::{TextTokenizer, TokenizeError};

use super::call::Call;
use super::sampling::Sampling;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::limits::share::Working;

/// Work on longer texts leaves the connection's thread, so that it does not
/// hold up the streams that share it. Below, the hop costs more than the work.
const INLINE: usize = 8 << 10;

/// Bodies above this are parsed in their turn.
const PARSED_INLINE: usize = 128 << 10;

/// Runs CPU work on `bytes` bytes of text, off the async threads when it is much: then as many at
/// once as [`share`](crate::limits::share) says, so that the memory that texts take is bounded and
/// nobody waits behind another's long ones.
pub(crate) async fn compute<T: Send + 'static>(
    context: &RequestContext,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= INLINE {
        return Ok(work());
    }
    on_cpu(context, bytes, work)
        .await
        .ok_or_else(|| ApiError::internal("The request could not be prepared."))
}

/// The turn of a text of so many bytes, held until it is dropped. `None`: nothing is counted.
pub(crate) async fn turn(context: &RequestContext, bytes: usize) -> Option<Working> {
    context.share()?.work(bytes).await
}

/// The same for a body that is to be parsed: what JSON becomes in memory is many times as long.
/// To be dropped as soon as it has been read, before anything else is waited for.
pub(crate) async fn parsing(context: &RequestContext, body: &[u8]) -> Option<Working> {
    match body.len() <= PARSED_INLINE {
        true => None,
        false => turn(context, body.len()).await,
    }
}

/// Runs CPU work beside the async threads, in its turn. `None`: it panicked, or the process ends.
async fn on_cpu<T: Send + 'static>(
    context: &RequestContext,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let working = turn(context, bytes).await;
    let worked = tokio::task::spawn_blocking(move || {
        // Held to the end of the work, also of one that nobody waits for any more.
        let _working = working;
        work()
    });
    worked.await.ok()
}

/// Bytes that a token of a text has on average at most.
const MAX_BYTES_A_TOKEN: usize = 32;

/// Token ids of a text of at most `limit` tokens. `field` is what the client
/// called the text.
pub(crate) fn encode(
    tokenizer: &TextTokenizer,
    text: &str,
    add_special: bool,
    limit: usize,
    field: &'static str,
) -> Result<Vec<u32>, ApiError> {
    // A text can be long and few tokens, but not by that much: what is refused here would take
    // its memory only to be refused.
    if text.len() > limit.saturating_mul(MAX_BYTES_A_TOKEN) {
        let at_least = text.len() / MAX_BYTES_A_TOKEN;
        return Err(ApiError::context_length(field, at_least, at_least, limit));
    }
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
    context: &RequestContext,
    compiler: &Arc<GrammarCompiler>,
    spec: GrammarSpec,
    field: &'static str,
) -> Result<Grammar, ApiError> {
    let compiled = try_compile(context, compiler, spec).await?;
    compiled.map_err(|error| grammar_error(&error, field))
}

/// The same, with the compiler's own words.
pub(crate) async fn try_compile(
    context: &RequestContext,
    compiler: &Arc<GrammarCompiler>,
    spec: GrammarSpec,
) -> Result<Result<Grammar, GrammarError>, ApiError> {
    let compiler = Arc::clone(compiler);
    on_cpu(context, 0, move || compiler.compile(&spec))
        .await
        .ok_or_else(|| ApiError::internal("The grammar could not be compiled."))
}

/// A grammar that cannot be had. `field` is what the client called it.
pub(crate) fn grammar_error(error: &GrammarError, field: impl Into<Cow<'static, str>>) -> ApiError {
    let field = field.into();
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

/// What a request says about which tokens may come.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) grammar: Option<Grammar>,
    pub(crate) restriction: Option<Arc<Restriction>>,
}

/// `allowed_token_ids` and `bad_words`, made ready for the model. `constrained`: a grammar says
/// where the text may end.
pub(crate) async fn restriction(
    call: &Call,
    model: &Arc<LanguageModel>,
    sampling: &Sampling,
    constrained: bool,
) -> Result<Option<Arc<Restriction>>, ApiError> {
    let (allowed, bad_words) = (sampling.allowed.clone(), sampling.bad_words.clone());
    if allowed.is_none() && bad_words.is_empty() {
        return Ok(None);
    }
    if !constrained {
        check_allowed(model, sampling)?;
    }
    let model = Arc::clone(model);
    // The whole vocabulary is looked through for words.
    let bytes = match bad_words.is_empty() {
        true => 0,
        false => model.info.vocab,
    };
    let work = move || {
        let spec = RestrictionSpec {
            allowed: allowed.as_deref(),
            bad_words: &bad_words,
        };
        Restriction::new(&model.tokenizer, model.info.vocab, spec)
    };
    let made = compute(&call.context, bytes, work).await?;
    let made =
        made.map_err(|error| ApiError::invalid_value(error.param, format!("{}.", error.reason)))?;
    Ok(Some(Arc::new(made)))
}

/// Refuses a text that must go on and may only end.
fn check_allowed(model: &LanguageModel, sampling: &Sampling) -> Result<(), ApiError> {
    let Some(allowed) = &sampling.allowed else {
        return Ok(());
    };
    let params = &sampling.params;
    let ends = |id: &u32| {
        params.stop_token_ids.contains(id) || (!params.ignore_eos && model.info.eos.contains(id))
    };
    match params.min_tokens > 0 && allowed.iter().all(ends) {
        true => Err(ApiError::invalid_value(
            "allowed_token_ids",
            "'min_tokens' and 'allowed_token_ids' exclude each other: every token that is allowed \
             ends the text.",
        )),
        false => Ok(()),
    }
}

/// The engine's request for one choice.
pub(crate) fn sequence(
    call: &Call,
    sampling: &Sampling,
    prompt: &Arc<[u32]>,
    params: SamplingParams,
    limits: &Limits,
) -> GenerateRequest {
    GenerateRequest {
        prompt: Arc::clone(prompt),
        params,
        grammar: limits.grammar.clone(),
        restriction: limits.restriction.clone(),
        priority: sampling.priority(&call.context),
        tenant: call.context.tenant(),
        salt: call.context.cache_salt(sampling.cache_salt.as_deref()),
        deadline: call.context.deadline,
        whole: sampling.stream.is_none(),
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
        min_tokens: sampling.params.min_tokens,
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
