//! `POST /v1/completions`.

mod logprobs;
mod request;
mod response;
mod stream;
mod writer;

use std::sync::Arc;

use http::Response;
use sluice_engine::language::LanguageModel;

use super::ask::Unanswered;
use super::call::Call;
use super::choices::{Choices, not_submitted};
use super::chunk::{ChunkWriter, Identity};
use super::constraint::Constraint;
use super::prompt::Limits;
use super::{ids, prompt, sampling};
use crate::error::ApiError;
use crate::router::LocalModel;
use crate::{Body, Outcome};
use request::CompletionRequest;
pub(crate) use request::{Prompt, take_prompts};
use stream::TextChunks;
use writer::{Progress, Ruler};

/// Tokens generated when the request does not say (OpenAI's default).
const DEFAULT_MAX_TOKENS: usize = 16;

/// Answers a completion request, whole or as a stream.
pub(crate) async fn create(call: &Call) -> Result<Response<Body>, Unanswered> {
    let LocalModel::Language(model) = &*call.model else {
        return Err(call.wrong_kind("a language model").into());
    };
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let request = CompletionRequest::parse(&call.body)?;
    drop(parsing);
    let answer = begin(call, model, &request).await?;
    match request.sampling.stream {
        Some(options) => {
            let chunks = TextChunks {
                writer: ChunkWriter::new(&answer.identity, options, answer.choices.prompts()),
                progress: answer.progress,
                usage: options.include_usage,
            };
            super::stream::respond(answer.choices, chunks, answer.outcome).await
        }
        None => response::respond(answer).await,
    }
}

/// A completion that the engine has begun to write. Choice `i` belongs to prompt
/// `i / n`.
struct Answer {
    identity: Identity,
    choices: Choices,
    progress: Vec<Progress>,
    outcome: Arc<Outcome>,
}

async fn begin(
    call: &Call,
    model: &Arc<LanguageModel>,
    request: &CompletionRequest,
) -> Result<Answer, Unanswered> {
    prompt::check_sequences(model, request.prompts.len(), request.sampling.n)?;
    let prompts = tokens_of(call, model, request).await?;
    let grammar = match &request.constraint {
        Some(Constraint { field, spec }) => {
            Some(prompt::compile(&call.context, &model.grammar, spec.clone(), field).await?)
        }
        None => None,
    };
    let sampling = &request.sampling;
    let limits = Limits {
        restriction: prompt::restriction(call, model, sampling, grammar.is_some()).await?,
        grammar,
    };
    let mut streams = Vec::with_capacity(prompts.len() * sampling.n);
    let mut progress = Vec::with_capacity(streams.capacity());
    for (tokens, given) in prompts.iter().zip(&request.prompts) {
        let max_tokens = max_tokens(model, request, tokens.len())?;
        for _ in 0..sampling.n {
            let mut params = sampling.params_of(streams.len());
            params.max_tokens = max_tokens;
            params.logprobs = request.logprobs;
            params.prompt_logprobs = request.logprobs.filter(|_| request.echo);
            let sequence = prompt::sequence(call, sampling, tokens, params, &limits);
            // One that is refused drops, and so cancels, those before it.
            let generation = model
                .generator
                .submit(sequence)
                .map_err(|error| not_submitted(error, "prompt"))?;
            let text = prompt::text_of(model, sampling, generation, true);
            streams.push(text);
            let echo = request.echo.then(|| echo_of(model, given));
            let before = echo.as_ref().map_or(0, |echo| echo.chars().count());
            progress.push(Progress {
                ruler: Ruler::of_answer(&model.tokenizer, sampling.skip_special, before),
                model: Arc::clone(model),
                echo,
                logprobs: request.logprobs.is_some(),
                token_ids: request.return_token_ids,
                prompt_ids: request.return_token_ids.then(|| Arc::clone(tokens)),
            });
        }
    }
    let outcome = Arc::clone(&call.context.outcome);
    Ok(Answer {
        identity: identity(call, sampling),
        choices: Choices::new(streams, sampling.n, Arc::clone(&outcome)),
        progress,
        outcome,
    })
}

fn max_tokens(
    model: &LanguageModel,
    request: &CompletionRequest,
    prompt: usize,
) -> Result<usize, ApiError> {
    let context = prompt::context_of(model);
    let budget = prompt::budget(request.max_tokens, prompt, context, "prompt")?;
    Ok(match request.max_tokens {
        Some(_) => budget,
        None => budget.min(DEFAULT_MAX_TOKENS),
    })
}

/// What `echo` gives back: the text as it came, or that of the token ids.
fn echo_of(model: &LanguageModel, prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => model.tokenizer.decode(ids, false),
    }
}

fn identity(call: &Call, sampling: &sampling::Sampling) -> Identity {
    let deployment = &call.deployment;
    let tier = sampling::tier_name(sampling.priority(&call.context));
    Identity {
        id: ids::random("cmpl-"),
        object: "text_completion",
        created: ids::now(),
        model: deployment.name.to_string(),
        service_tier: sampling.tier_asked.then_some(tier),
        system_fingerprint: ids::fingerprint(&deployment.name, &deployment.revision),
    }
}

/// The token ids of every prompt.
async fn tokens_of(
    call: &Call,
    model: &Arc<LanguageModel>,
    request: &CompletionRequest,
) -> Result<Vec<Arc<[u32]>>, ApiError> {
    let prompts = request.prompts.clone();
    let (add_special, many) = (request.add_special, prompts.len() > 1);
    let model = Arc::clone(model);
    let work = move || {
        let read = |(index, prompt)| {
            let path = || match many {
                true => format!("prompt[{index}]"),
                false => "prompt".to_owned(),
            };
            tokens_of_one(&model, prompt, add_special, path)
        };
        prompts.into_iter().enumerate().map(read).collect()
    };
    prompt::compute(&call.context, call.body.len(), work).await?
}

fn tokens_of_one(
    model: &LanguageModel,
    prompt: Prompt,
    add_special: bool,
    path: impl Fn() -> String,
) -> Result<Arc<[u32]>, ApiError> {
    let limit = prompt::context_of(model);
    let ids = match prompt {
        Prompt::Text(text) => {
            prompt::encode(&model.tokenizer, &text, add_special, limit, "prompt")?
        }
        Prompt::Tokens(ids) if ids.len() > limit => {
            return Err(ApiError::context_length(
                "prompt",
                ids.len(),
                ids.len(),
                limit,
            ));
        }
        Prompt::Tokens(ids) => {
            prompt::check_ids(&ids, model.info.vocab, &path)?;
            ids
        }
    };
    match (ids.is_empty(), model.tokenizer.bos()) {
        (false, _) => Ok(ids.into()),
        // An empty prompt begins a text.
        (true, Some(bos)) => Ok([bos].into()),
        (true, None) => Err(super::fields::empty_string(path())),
    }
}
