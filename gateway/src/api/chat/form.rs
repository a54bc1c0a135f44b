//! What a request says about how its messages become a prompt.

use serde_json::{Map, Value};
use sluice_engine::tokenizer::template::{ChatTemplate, TemplateError};

use crate::api::fields::{self, Fields};
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// How a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptEnd {
    /// Where the assistant's turn begins (`add_generation_prompt`, the default).
    NewTurn,
    /// Behind the last message.
    LastMessage,
    /// Within the last message, for the model to go on with it (`continue_final_message`).
    WithinLastMessage,
}

/// Shared by chat and tokenize.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PromptForm {
    pub(crate) end: PromptEnd,
    /// Add what the tokenizer puts around a text to what the template has written.
    pub(crate) add_special: bool,
    /// Further variables of the template.
    variables: Map<String, Value>,
    /// Fields of the request, and the variables one of which a template must read to do them.
    needed: Vec<(&'static str, &'static [&'static str])>,
}

impl PromptForm {
    /// Takes the fields out of a request.
    pub(crate) fn take(request: &mut Fields) -> Result<Self, ApiError> {
        let mut variables = take_variables(request)?;
        let mut needed: Vec<(&'static str, &'static [&'static str])> = Vec::new();
        if let Some(documents) = take_documents(request)? {
            variables.insert("documents".into(), documents);
            needed.push(("documents", &["documents"]));
        }
        if let Some(effort) = request.string("reasoning_effort")? {
            // As vLLM does it: the templates of reasoning models read one or the other.
            let thinks = effort != "none";
            if thinks {
                needed.push(("reasoning_effort", &["reasoning_effort", "enable_thinking"]));
            }
            variables.insert("reasoning_effort".into(), effort.into());
            variables
                .entry("enable_thinking")
                .or_insert(Value::Bool(thinks));
        }
        Ok(Self {
            end: take_end(request)?,
            add_special: request.boolean("add_special_tokens")?.unwrap_or(false),
            variables,
            needed,
        })
    }

    /// The prompt's text.
    pub(crate) fn render(
        &self,
        template: &ChatTemplate,
        messages: &[Value],
        tools: Option<&[Value]>,
    ) -> Result<String, ApiError> {
        for (field, variables) in &self.needed {
            if !variables
                .iter()
                .any(|name| template.source().contains(name))
            {
                return Err(ApiError::unsupported(
                    *field,
                    format!(
                        "'{field}' is not supported: this model's chat template does not read it."
                    ),
                ));
            }
        }
        let rendered = match self.end {
            PromptEnd::NewTurn => template.render(messages, tools, true, &self.variables),
            PromptEnd::LastMessage => template.render(messages, tools, false, &self.variables),
            PromptEnd::WithinLastMessage => {
                template.render_continuing(messages, tools, &self.variables)
            }
        };
        rendered.map_err(template_error)
    }
}

/// A template's refusal is about the messages.
fn template_error(error: TemplateError) -> ApiError {
    match error {
        TemplateError::Raised(reason) => ApiError::invalid_value("messages", reason),
        TemplateError::NotContinued(reason) => {
            ApiError::invalid_value("continue_final_message", reason)
        }
        TemplateError::TooLarge(_) => {
            ApiError::bad_request("context_length_exceeded", error.to_string())
                .with_param("messages")
        }
        TemplateError::Failed(_) => ApiError::invalid_value("messages", error.to_string()),
    }
}

/// `chat_template_kwargs`, without what the request itself says by fields of its own.
fn take_variables(request: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    const OWN: [&str; 4] = [
        "messages",
        "tools",
        "add_generation_prompt",
        "continue_final_message",
    ];
    let Some(variables) = request.object("chat_template_kwargs")? else {
        return Ok(Map::new());
    };
    if let Some(name) = OWN.into_iter().find(|name| variables.has(name)) {
        let path = variables.path_of(name);
        let message = format!("Invalid '{path}': use the request's own field '{name}'.");
        return Err(ApiError::invalid_value(path, message));
    }
    Ok(variables.into_map())
}

/// vLLM's `documents`: objects, for templates that show them to the model.
fn take_documents(request: &mut Fields) -> Result<Option<Value>, ApiError> {
    let path = request.path_of("documents");
    let Some(documents) = request.array("documents")? else {
        return Ok(None);
    };
    match documents.iter().position(|document| !document.is_object()) {
        Some(at) => Err(fields::wrong_type(
            format!("{path}[{at}]"),
            "an object",
            &documents[at],
        )),
        None => Ok((!documents.is_empty()).then_some(Value::Array(documents))),
    }
}

fn take_end(request: &mut Fields) -> Result<PromptEnd, ApiError> {
    let new_turn = request.boolean("add_generation_prompt")?;
    let within = request.boolean("continue_final_message")?.unwrap_or(false);
    match (within, new_turn) {
        (true, Some(true)) => Err(ApiError::invalid_value(
            "continue_final_message",
            "'continue_final_message' and 'add_generation_prompt' exclude each other: the model \
             goes on with the last message, or begins one of its own.",
        )),
        (true, _) => Ok(PromptEnd::WithinLastMessage),
        (false, Some(false)) => Ok(PromptEnd::LastMessage),
        (false, _) => Ok(PromptEnd::NewTurn),
    }
}
