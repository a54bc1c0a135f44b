//! Chat templates in Hugging Face's dialect of Jinja.
//!
//! The template is the model's own and decides the prompt to the last newline, so
//! rendering follows `transformers`' `apply_chat_template`: same filters, same
//! JSON, same variables. See [`dialect`] for what differs from plain minijinja and
//! [`messages`] for how OpenAI's messages are put into the shape templates expect.

mod continuing;
mod dialect;
mod json;
pub mod limits;
mod messages;
mod strftime;

#[cfg(test)]
mod tests;

use std::path::Path;

use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::SpecialTokens;
use super::files::read_object;
use crate::error::LoadError;
use dialect::{Bounded, RaisedException};

pub use messages::ContentForm;

/// Bytes of a rendered prompt at most.
const MAX_PROMPT_BYTES: usize = limits::MAX_TEXT;
/// Variables of a rendering that the caller's extra arguments cannot replace.
const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// A template could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template called `raise_exception`, or a message cannot be expressed in
    /// it. The text is meant for the client.
    #[error("{0}")]
    Raised(String),
    /// The last message cannot be continued. The text is meant for the client.
    #[error("{0}")]
    NotContinued(String),
    /// The rendering exceeded its limits.
    #[error("the chat template exceeds its limits: {0}")]
    TooLarge(String),
    /// The template itself failed.
    #[error("the chat template failed: {0}")]
    Failed(String),
}

/// A model's chat template, compiled.
pub struct ChatTemplate {
    /// By the steps that a rendering gets; the same templates in each.
    environments: [Environment<'static>; 2],
    source: String,
    special: SpecialTokens,
    content: ContentForm,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Looks for `chat_template.jinja`, `chat_template.json` and
    /// `tokenizer_config.json`, in this order. `None`: the model has none.
    ///
    /// # Errors
    /// A file is malformed, or the template does not compile.
    pub fn from_folder(dir: &Path) -> Result<Option<Self>, LoadError> {
        let config = read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let special = SpecialTokens::from_config(&config);
        let Some((path, sources)) = find(dir, &config)? else {
            return Ok(None);
        };
        let folder = |reason: String| LoadError::Folder { path, reason };
        Self::compile(sources, special).map(Some).map_err(folder)
    }

    /// Compiles one template.
    ///
    /// # Errors
    /// The template does not compile; the message says where.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self, String> {
        let sources = Sources {
            default: source.to_owned(),
            tool_use: None,
        };
        Self::compile(sources, special)
    }

    fn compile(sources: Sources, special: SpecialTokens) -> Result<Self, String> {
        let mut environment = dialect::environment();
        let mut add = |name: &'static str, source: &str| {
            environment
                .add_template_owned(name, dialect::without_generation_tags(source))
                .map_err(|e| format!("chat template: {}", describe(&e)))
        };
        add(DEFAULT, &sources.default)?;
        if let Some(source) = &sources.tool_use {
            add(TOOL_USE, source)?;
        }
        let mut template = Self {
            environments: limits::steps().map(|steps| {
                let mut environment = environment.clone();
                environment.set_fuel(Some(steps));
                environment
            }),
            source: sources.default + sources.tool_use.as_deref().unwrap_or_default(),
            special,
            content: ContentForm::Text,
        };
        template.content = ContentForm::probe(&template);
        Ok(template)
    }

    /// The template's text (all named templates, one after the other).
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template takes contents as strings or as lists of parts.
    #[must_use]
    pub fn content_form(&self) -> ContentForm {
        self.content
    }

    /// Renders messages (in OpenAI's form) to the model's prompt. `extra` holds
    /// `chat_template_kwargs`, `documents` and the like.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] is the client's fault; the others are the model's.
    pub fn render(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let developer = self.source.contains("developer");
        let messages = messages::normalize(messages, self.content, developer)?;
        self.render_raw(&messages, tools, add_generation_prompt, extra)
    }

    fn render_raw(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let tools = tools.filter(|tools| !tools.is_empty());
        let mut context = self.variables();
        for (key, value) in extra {
            if !RESERVED.contains(&key.as_str()) {
                context.insert(key.clone(), value.clone());
            }
        }
        context.insert("messages".to_owned(), Value::Array(messages.to_vec()));
        context.insert("tools".to_owned(), tools.map_or(Value::Null, Value::from));
        context.insert(
            "add_generation_prompt".to_owned(),
            Value::Bool(add_generation_prompt),
        );
        let kind = limits::kind_of(context.values().map(weight).sum());
        let environment = &self.environments[kind];
        let named = tools.and_then(|_| environment.get_template(TOOL_USE).ok());
        let template = match named {
            Some(template) => template,
            None => environment
                .get_template(DEFAULT)
                .map_err(|e| TemplateError::Failed(describe(&e)))?,
        };
        let mut prompt = Bounded::new(MAX_PROMPT_BYTES);
        // What the rendering leaves behind is dropped there as well.
        limits::on_deep_stack(limits::steps()[kind], || {
            let rendered = template.render_captured_to(&context, &mut prompt);
            rendered.map(drop).map_err(|e| sort_error(&e))
        })?;
        Ok(prompt.into_string())
    }

    /// The variables that `apply_chat_template` always defines.
    fn variables(&self) -> Map<String, Value> {
        let named = [
            ("bos_token", &self.special.bos),
            ("eos_token", &self.special.eos),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, token)| Some((name.to_owned(), token.clone()?)));
        let others = self.special.others.clone();
        let mut variables: Map<String, Value> = named
            .chain(others)
            .map(|(name, token)| (name, Value::String(token)))
            .collect();
        variables.insert("documents".to_owned(), Value::Null);
        variables
    }
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// About the bytes of a value.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 8 + weight(item)).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| name.len() + weight(value))
            .sum(),
    }
}

/// The templates of a model: Hugging Face allows a second one for requests with tools.
struct Sources {
    default: String,
    tool_use: Option<String>,
}

/// Finds the template and the file it stands in.
fn find(
    dir: &Path,
    config: &Map<String, Value>,
) -> Result<Option<(std::path::PathBuf, Sources)>, LoadError> {
    let jinja = dir.join("chat_template.jinja");
    if let Some(default) = read_text(&jinja)? {
        let tool_use = read_text(&dir.join("additional_chat_templates/tool_use.jinja"))?;
        return Ok(Some((jinja, Sources { default, tool_use })));
    }
    let json = dir.join("chat_template.json");
    let from_json = read_object(&json)?;
    let in_config = dir.join("tokenizer_config.json");
    let candidates = [
        (
            json,
            from_json.as_ref().and_then(|o| o.get("chat_template")),
        ),
        (in_config, config.get("chat_template")),
    ];
    for (path, value) in candidates {
        match value.map(named_sources) {
            None => {}
            Some(Some(sources)) => return Ok(Some((path, sources))),
            Some(None) => {
                return Err(LoadError::Folder {
                    path,
                    reason: "`chat_template` must be a string, or a list of \
                             {\"name\", \"template\"} with one named `default`"
                        .to_owned(),
                });
            }
        }
    }
    Ok(None)
}

/// A template, or a list of named ones.
fn named_sources(value: &Value) -> Option<Sources> {
    if let Some(source) = value.as_str() {
        return Some(Sources {
            default: source.to_owned(),
            tool_use: None,
        });
    }
    let named = |name: &str| {
        let entry = value.as_array()?.iter().find(|e| e["name"] == name)?;
        entry["template"].as_str().map(str::to_owned)
    };
    Some(Sources {
        default: named(DEFAULT)?,
        tool_use: named(TOOL_USE),
    })
}

fn read_text(path: &Path) -> Result<Option<String>, LoadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LoadError::Folder {
            path: path.to_owned(),
            reason: e.to_string(),
        }),
    }
}

/// Tells what the template said from what went wrong in it.
fn sort_error(error: &minijinja::Error) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(raised) = current.downcast_ref::<RaisedException>() {
            return TemplateError::Raised(raised.0.clone());
        }
        source = current.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooLarge("it takes too many steps".to_owned()),
        ErrorKind::WriteFailure => {
            TemplateError::TooLarge(format!("the prompt exceeds {MAX_PROMPT_BYTES} bytes"))
        }
        _ => TemplateError::Failed(describe(error)),
    }
}

/// One line, with the place in the template.
fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let line = error
        .line()
        .map_or(String::new(), |n| format!(" (line {n})"));
    format!("{}: {detail}{line}", error.kind())
}
