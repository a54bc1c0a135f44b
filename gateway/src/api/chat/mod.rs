//! `POST /v1/chat/completions`.

mod form;
mod logprobs;
mod message;
mod request;
mod response;
mod stream;
mod tools;
mod turn;

use std::sync::Arc;

use http::Response;
use serde_json::json;
use sluice_engine::grammar::{CallsGrammar, Grammar, GrammarCompiler, GrammarError, GrammarSpec};
use sluice_engine::language::LanguageModel;
use sluice_engine::tokenizer::tools::ToolChoice;

use super::ask::Unanswered;
use super::call::Call;
use super::choices::{Choices, not_submitted};
use super::chunk::{ChunkWriter, Identity};
use super::constraint::Constraint;
use super::prompt::Limits;
use super::{ids, prompt, sampling};
use crate::Body;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::router::LocalModel;
pub(crate) use form::{PromptEnd, PromptForm};
pub(crate) use message::take_messages;
use request::ChatRequest;
use stream::ChatChunks;
use turn::Turn;

/// Answers a chat request, whole or as a stream.
pub(crate) async fn create(call: &Call) -> Result<Response<Body>, Unanswered> {
    let LocalModel::Language(model) = &*call.model else {
        return Err(call.wrong_kind("a chat model").into());
    };
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let request = ChatRequest::parse(&call.body)?;
    drop(parsing);
    let answer = begin(call, model, &request).await?;
    match request.sampling.stream {
        Some(options) => {
            let chunks = ChatChunks {
                writer: ChunkWriter::new(&answer.identity, options, answer.choices.prompts()),
                model: answer.model,
                turns: answer.turns,
                echo: answer.echo,
                logprobs: answer.logprobs,
                usage: options.include_usage,
            };
            super::stream::respond(answer.choices, chunks, answer.outcome).await
        }
        None => response::respond(answer).await,
    }
}

/// A chat answer that the engine has begun to write.
struct Answer {
    identity: Identity,
    choices: Choices,
    /// One a choice.
    turns: Vec<Turn>,
    /// What each answer begins with.
    echo: Option<String>,
    model: Arc<LanguageModel>,
    logprobs: bool,
    outcome: Arc<crate::Outcome>,
}

/// Template → tokens → grammar → `n` sequences in the engine.
async fn begin(
    call: &Call,
    model: &Arc<LanguageModel>,
    request: &ChatRequest,
) -> Result<Answer, Unanswered> {
    prompt::check_sequences(model, 1, request.sampling.n)?;
    let tokens = tokens_of(call, model, request).await?;
    let max_tokens = prompt::budget(
        request.max_tokens,
        tokens.len(),
        prompt::context_of(model),
        "messages",
    )?;
    let (grammar, enforced) = grammar_of(&call.context, model, request).await?;
    let sampling = &request.sampling;
    let limits = Limits {
        restriction: prompt::restriction(call, model, sampling, grammar.is_some()).await?,
        grammar,
    };
    let mut streams = Vec::with_capacity(sampling.n);
    for index in 0..sampling.n {
        let mut params = sampling.params_of(index);
        params.max_tokens = max_tokens;
        params.logprobs = request.logprobs;
        let sequence = prompt::sequence(call, sampling, &tokens, params, &limits);
        // One that is refused drops, and so cancels, those before it.
        let generation = model
            .generator
            .submit(sequence)
            .map_err(|error| not_submitted(error, "messages"))?;
        let continuing = request.form.end == PromptEnd::WithinLastMessage;
        let text = prompt::text_of(model, sampling, generation, continuing);
        streams.push(text);
    }
    let outcome = Arc::clone(&call.context.outcome);
    let constraint = request.constraint.as_ref();
    let json = constraint.is_some_and(|it| matches!(it.spec, GrammarSpec::JsonSchema(_)));
    let turn = || match Turn::new(model.tools, &request.tools, enforced) {
        turn if json => turn.beside_json(),
        turn => turn,
    };
    Ok(Answer {
        identity: identity(call, sampling),
        turns: (0..sampling.n).map(|_| turn()).collect(),
        choices: Choices::new(streams, sampling.n, Arc::clone(&outcome)),
        echo: request.echo.clone(),
        model: Arc::clone(model),
        logprobs: request.logprobs.is_some(),
        outcome,
    })
}

fn identity(call: &Call, sampling: &sampling::Sampling) -> Identity {
    let deployment = &call.deployment;
    let tier = sampling::tier_name(sampling.priority(&call.context));
    Identity {
        id: ids::random("chatcmpl-"),
        object: if sampling.stream.is_some() {
            "chat.completion.chunk"
        } else {
            "chat.completion"
        },
        created: ids::now(),
        model: deployment.name.to_string(),
        service_tier: sampling.tier_asked.then_some(tier),
        system_fingerprint: ids::fingerprint(&deployment.name, &deployment.revision),
    }
}

/// The prompt's token ids. The template writes all special tokens itself, as a rule.
async fn tokens_of(
    call: &Call,
    model: &Arc<LanguageModel>,
    request: &ChatRequest,
) -> Result<Arc<[u32]>, ApiError> {
    let Some(template) = model.template.clone() else {
        return Err(call.wrong_kind("a chat model (it has no chat template)"));
    };
    let tools = request.tools.offered().then(|| request.tools.raw.clone());
    let (messages, form) = (request.messages.clone(), request.form.clone());
    let model = Arc::clone(model);
    let work = move || {
        let text = form.render(&template, &messages, tools.as_deref())?;
        let limit = prompt::context_of(&model);
        prompt::encode(&model.tokenizer, &text, form.add_special, limit, "messages").map(Arc::from)
    };
    prompt::compute(&call.context, call.body.len(), work).await?
}

/// What the output must match: the request's own constraint, or that of its tools
/// (then `true`: calls are valid by construction).
async fn grammar_of(
    context: &RequestContext,
    model: &Arc<LanguageModel>,
    request: &ChatRequest,
) -> Result<(Option<Grammar>, bool), ApiError> {
    let compiler = &model.grammar;
    let Some(calls) = grammar_of_tools(model, request) else {
        // Patterns and grammars of one's own leave no room for calls.
        return Ok(match &request.constraint {
            None => (None, false),
            Some(Constraint { field, spec }) => {
                let grammar = prompt::compile(context, compiler, spec.clone(), field).await?;
                (Some(grammar), false)
            }
        });
    };
    match prompt::try_compile(context, compiler, calls.clone()).await? {
        Ok(grammar) => Ok((Some(grammar), request.constraint.is_none())),
        Err(error) => Err(blame(context, compiler, request, calls, &error).await?),
    }
}

/// The error of a grammar of calls, with the field that it is about: the one whose schema cannot be
/// had by itself.
async fn blame(
    context: &RequestContext,
    compiler: &Arc<GrammarCompiler>,
    request: &ChatRequest,
    calls: GrammarSpec,
    error: &GrammarError,
) -> Result<ApiError, ApiError> {
    if let Some(Constraint { field, spec }) = &request.constraint {
        prompt::compile(context, compiler, spec.clone(), field).await?;
    }
    // What is too much may be so only together, and each part would be compiled to find out.
    let GrammarSpec::Calls(calls) = calls else {
        return Ok(prompt::grammar_error(error, "tools"));
    };
    if matches!(error, GrammarError::TooComplex { .. }) {
        return Ok(prompt::grammar_error(error, "tools"));
    }
    for schema in calls.schemas {
        let Some(call) = &schema.call else { continue };
        let tools = &request.tools.specs;
        let Some(index) = tools.iter().position(|tool| tool.name == call.name) else {
            continue;
        };
        let alone = GrammarSpec::Calls(CallsGrammar {
            rules: format!("start: {}\n", schema.rule),
            schemas: vec![schema],
            form: calls.form,
        });
        if let Err(error) = prompt::try_compile(context, compiler, alone).await? {
            let field = format!("tools[{index}].function.parameters");
            return Ok(prompt::grammar_error(&error, field));
        }
    }
    Ok(prompt::grammar_error(error, "tools"))
}

/// A grammar under which the answer may be (or has to be) calls.
fn grammar_of_tools(model: &LanguageModel, request: &ChatRequest) -> Option<GrammarSpec> {
    let tools = &request.tools;
    let content = match request.constraint.as_ref().map(|c| &c.spec) {
        None => None,
        Some(GrammarSpec::JsonObject) => Some(json!({"type": "object"})),
        Some(GrammarSpec::JsonSchema(schema)) => Some(schema.clone()),
        Some(_) => return None,
    };
    match (&tools.choice, content) {
        (ToolChoice::None, _) => None,
        (ToolChoice::Auto, None) => model.tools.strict_grammar(&tools.specs, tools.parallel),
        // As at OpenAI: the model calls, or it answers in the format that was asked for.
        (ToolChoice::Auto, Some(content)) => {
            model
                .tools
                .calls_or_content_grammar(&tools.specs, tools.parallel, content)
        }
        (ToolChoice::Required | ToolChoice::Named(_), _) => {
            model
                .tools
                .forced_grammar(&tools.specs, &tools.choice, tools.parallel)
        }
    }
}
