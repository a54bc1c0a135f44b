//! Chat templates in Hugging Face's dialect of Jinja.

use std::path::Path;

use serde_json::{Map, Value};

use super::SpecialTokens;
use crate::error::LoadError;

/// A template could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template called `raise_exception`: the messages are not acceptable to
    /// this model. The text is meant for the client.
    #[error("{0}")]
    Raised(String),
    /// The rendering exceeded its limits.
    #[error("the chat template exceeds its limits: {0}")]
    TooLarge(String),
    /// The template itself failed.
    #[error("the chat template failed: {0}")]
    Failed(String),
}

/// A model's chat template, compiled.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    special: SpecialTokens,
}

impl ChatTemplate {
    /// Looks for `chat_template.jinja`, `chat_template.json` and
    /// `tokenizer_config.json`, in this order. `None`: the model has none.
    ///
    /// # Errors
    /// A file is malformed, or the template does not compile.
    pub fn from_folder(dir: &Path) -> Result<Option<Self>, LoadError> {
        let path = dir.join("chat_template.jinja");
        match std::fs::read_to_string(&path) {
            Ok(source) => Ok(Some(Self::new(&source, SpecialTokens::default())?)),
            Err(_) => Ok(None),
        }
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// The template does not compile.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self, LoadError> {
        Ok(Self {
            source: source.to_owned(),
            special,
        })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders messages (OpenAI's form) to the model's prompt.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn render(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let _ = (messages, tools, add_generation_prompt, extra, &self.special);
        Err(TemplateError::Failed("not compiled".to_owned()))
    }
}
