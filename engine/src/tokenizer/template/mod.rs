//! Chat templates, as `transformers` renders them.
//!
//! The template is the model's own and decides the prompt to the last newline, so
//! rendering follows `transformers`' `apply_chat_template`: the same language
//! ([`crate::jinja`]), the same variables. See [`messages`] for how OpenAI's messages
//! are put into the shape that the template at hand expects.

mod continuing;
pub mod limits;
mod messages;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value};

use super::SpecialTokens;
use super::files::read_object;
use crate::error::LoadError;
use crate::jinja::{Fault, FaultKind, Limits, Template};

pub use messages::{ArgumentForm, ContentForm, MessageForm};

/// An input of at most so many bytes has a tenth of the steps: it needs no more, and there may be many such requests.
const SMALL_INPUT: usize = 32 << 10;
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

/// What one rendering of a chat template may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Bytes of a rendered prompt, and of any text that a template makes.
    pub text: usize,
    /// Bytes of all that a template has made and still holds.
    pub memory: usize,
    /// Steps of a rendering; a tenth of them for an input of up to 32 KiB. A conversation of 10,000 short messages
    /// takes fewer than the default.
    pub steps: u64,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self {
            text: 16 << 20,
            memory: 64 << 20,
            steps: 5_000_000,
        }
    }
}

impl TemplateLimits {
    /// For an input of so many bytes.
    fn of(self, bytes: usize) -> Limits {
        let steps = match bytes <= SMALL_INPUT {
            true => self.steps.div_ceil(10),
            false => self.steps,
        };
        Limits {
            steps,
            memory: self.memory,
            text: self.text,
        }
    }
}

/// A model's chat template, compiled.
pub struct ChatTemplate {
    default: Template,
    /// For requests with tools.
    tool_use: Option<Template>,
    source: String,
    special: SpecialTokens,
    form: MessageForm,
    limits: TemplateLimits,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("form", &self.form)
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
        let read =
            |source: &str| Template::new(source).map_err(|fault| format!("chat template: {fault}"));
        let mut template = Self {
            default: read(&sources.default)?,
            tool_use: sources.tool_use.as_deref().map(read).transpose()?,
            source: sources.default + sources.tool_use.as_deref().unwrap_or_default(),
            special,
            form: MessageForm::default(),
            limits: TemplateLimits::default(),
        };
        template.form = MessageForm::probe(&template);
        Ok(template)
    }

    /// The same within other limits.
    #[must_use]
    pub fn within(self, limits: TemplateLimits) -> Self {
        Self { limits, ..self }
    }

    /// The template's text (all named templates, one after the other).
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How the template takes messages.
    #[must_use]
    pub fn form(&self) -> MessageForm {
        self.form
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
        let render = |form: MessageForm| {
            let messages = messages::normalize(messages, form)?;
            self.render_raw(&messages, tools, add_generation_prompt, extra)
        };
        match render(self.form) {
            // The form was found by a conversation of our own; this one may show another side.
            Err(error @ TemplateError::Failed(_)) if messages.iter().any(messages::has_calls) => {
                render(self.form.with_other_arguments()).map_err(|_| error)
            }
            rendered => rendered,
        }
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
        let named = tools.and(self.tool_use.as_ref());
        let template = named.unwrap_or(&self.default);
        let limits = self.limits.of(context.values().map(weight).sum());
        // Nothing that is known of panics; whatever does is the template's failure, not the server's.
        catch_unwind(AssertUnwindSafe(|| template.render(&context, limits)))
            .unwrap_or_else(|_| {
                let message = "it could not be evaluated".to_owned();
                let (kind, line) = (FaultKind::Failed, None);
                Err(Fault {
                    kind,
                    message,
                    line,
                })
            })
            .map_err(|fault| match fault.kind {
                FaultKind::Raised => TemplateError::Raised(fault.message),
                FaultKind::TooMuch => TemplateError::TooLarge(fault.to_string()),
                FaultKind::Failed | FaultKind::Syntax => TemplateError::Failed(fault.to_string()),
            })
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
