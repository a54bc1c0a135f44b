//! Prompt versions: templates that turn a row of a test set into messages.
//!
//! Several versions run side by side over the same rows, so a version is a value
//! with a digest. A template that names a column which the row lacks is an error
//! and not an empty string: a silently empty prompt still gets an answer, and a
//! score that means nothing.

use std::io;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_engine::tokenizer::template::limits;

use super::canonical_digest;
use super::sample::Message;

/// One message before a row is filled in; `content` is a Jinja template over the row's columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageTemplate {
    pub role: String,
    pub content: String,
}

/// What a prompt may cost, so that a mistake neither hangs a run nor floods a model.
///
/// Fuel bounds the steps, and what multiplies a text is looked at before; but one step may still double one. So
/// prompt versions are rendered by a process that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptLimits {
    /// Instructions of the template engine for one message.
    pub fuel: u64,
    /// Bytes of one rendered message.
    pub bytes: usize,
}

impl Default for PromptLimits {
    fn default() -> Self {
        Self {
            fuel: 100_000,
            bytes: 4 << 20,
        }
    }
}

/// Why a prompt version cannot be compiled or a row not rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    #[error("prompt: it has no messages; give at least one")]
    NoMessages,
    #[error("prompt: messages[{message}].role is empty; use system, user or assistant")]
    NoRole { message: usize },
    #[error("prompt: messages[{message}].content is not a template: {problem}")]
    Syntax { message: usize, problem: String },
    #[error(
        "row {row}: messages[{message}] uses `{variable}`, which the row does not have (it has: {columns})"
    )]
    Missing {
        row: String,
        message: usize,
        variable: String,
        columns: String,
    },
    #[error("row {row}: messages[{message}] needs more than {fuel} template steps")]
    OutOfFuel {
        row: String,
        message: usize,
        fuel: u64,
    },
    #[error("row {row}: messages[{message}] is longer than {bytes} bytes")]
    TooLong {
        row: String,
        message: usize,
        bytes: usize,
    },
    #[error("row {row}: messages[{message}] cannot be rendered: {problem}")]
    Render {
        row: String,
        message: usize,
        problem: String,
    },
}

/// A compiled prompt version.
#[derive(Debug)]
pub struct Prompt {
    templates: Vec<MessageTemplate>,
    environment: Environment<'static>,
    limits: PromptLimits,
}

impl Prompt {
    /// Compiles all messages, so that a mistake shows before the first row is asked.
    ///
    /// # Errors
    /// Names the message and what is wrong with it.
    pub fn compile(
        templates: Vec<MessageTemplate>,
        limits: PromptLimits,
    ) -> Result<Self, PromptError> {
        if templates.is_empty() {
            return Err(PromptError::NoMessages);
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_keep_trailing_newline(true);
        environment.set_fuel(Some(limits.fuel));
        environment.add_filter("tojson", plain_json);
        limits::guard(&mut environment);
        for (message, template) in templates.iter().enumerate() {
            if template.role.trim().is_empty() {
                return Err(PromptError::NoRole { message });
            }
            environment
                .add_template_owned(message.to_string(), template.content.clone())
                .map_err(|error| PromptError::Syntax {
                    message,
                    problem: describe(&error),
                })?;
        }
        Ok(Self {
            templates,
            environment,
            limits,
        })
    }

    /// As they were given.
    #[must_use]
    pub fn templates(&self) -> &[MessageTemplate] {
        &self.templates
    }

    /// What a rendering may cost.
    #[must_use]
    pub const fn limits(&self) -> PromptLimits {
        self.limits
    }

    /// `sha256:…` over roles and contents; limits are not part of what a prompt says.
    #[must_use]
    pub fn digest(&self) -> String {
        canonical_digest(&self.templates)
    }

    /// The messages for one row; its columns are the templates' variables.
    ///
    /// # Errors
    /// Names the row, the message and, for a missing column, the variable.
    pub fn render(
        &self,
        row: &str,
        columns: &Map<String, Value>,
    ) -> Result<Vec<Message>, PromptError> {
        self.templates
            .iter()
            .enumerate()
            .map(|(message, template)| {
                let content = self.render_one(message, columns);
                Ok(Message {
                    role: template.role.clone(),
                    content: content
                        .map_err(|error| self.explain(&error, row, message, columns))?,
                })
            })
            .collect()
    }

    fn render_one(
        &self,
        message: usize,
        columns: &Map<String, Value>,
    ) -> Result<String, minijinja::Error> {
        let template = self.environment.get_template(&message.to_string())?;
        let mut out = Bounded {
            bytes: Vec::new(),
            left: self.limits.bytes,
        };
        limits::on_deep_stack(self.limits.fuel, || {
            template.render_captured_to(columns, &mut out).map(drop)
        })?;
        String::from_utf8(out.bytes)
            .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
    }

    fn explain(
        &self,
        error: &minijinja::Error,
        row: &str,
        message: usize,
        columns: &Map<String, Value>,
    ) -> PromptError {
        let row = row.to_owned();
        match error.kind() {
            ErrorKind::OutOfFuel => PromptError::OutOfFuel {
                row,
                message,
                fuel: self.limits.fuel,
            },
            ErrorKind::WriteFailure => PromptError::TooLong {
                row,
                message,
                bytes: self.limits.bytes,
            },
            ErrorKind::UndefinedError => match self.missing(message, columns) {
                Some(variable) => {
                    let columns = columns
                        .keys()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(", ");
                    PromptError::Missing {
                        row,
                        message,
                        variable,
                        columns,
                    }
                }
                None => PromptError::Render {
                    row,
                    message,
                    problem: describe(error),
                },
            },
            _ => PromptError::Render {
                row,
                message,
                problem: describe(error),
            },
        }
    }

    /// The variables of a template, with their attributes, that the row cannot fill.
    fn missing(&self, message: usize, columns: &Map<String, Value>) -> Option<String> {
        let template = self.environment.get_template(&message.to_string()).ok()?;
        let globals: Vec<_> = self
            .environment
            .globals()
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut missing: Vec<String> = template
            .undeclared_variables(true)
            .into_iter()
            .filter(|path| !globals.contains(path) && !resolves(path, columns))
            .collect();
        missing.sort();
        (!missing.is_empty()).then(|| missing.join("`, `"))
    }
}

/// Whether `a.b.c` leads to a value; an attribute of something other than an object may be a
/// method of the template engine and is not held against the row.
fn resolves(path: &str, columns: &Map<String, Value>) -> bool {
    let mut parts = path.split('.');
    let Some(mut value) = parts.next().and_then(|first| columns.get(first)) else {
        return false;
    };
    for part in parts {
        match value {
            Value::Object(members) => match members.get(part) {
                Some(found) => value = found,
                None => return false,
            },
            _ => return true,
        }
    }
    true
}

fn describe(error: &minijinja::Error) -> String {
    let line = error
        .line()
        .map(|line| format!(" (line {line})"))
        .unwrap_or_default();
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("{detail}{line}")
}

/// The template engine's own `tojson` escapes `<`, `>`, `&` and `'` for web pages; a model is to
/// read the text as it is.
fn plain_json(value: &minijinja::Value) -> Result<String, minijinja::Error> {
    let mut out = Bounded {
        bytes: Vec::new(),
        left: limits::MAX_TEXT,
    };
    match serde_json::to_writer(&mut out, value) {
        Ok(()) => String::from_utf8(out.bytes)
            .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())),
        Err(error) if error.is_io() => Err(limits::too_long()),
        Err(error) => Err(minijinja::Error::new(
            ErrorKind::BadSerialization,
            error.to_string(),
        )),
    }
}

/// Refuses to grow beyond its bound.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(chunk.len())
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
