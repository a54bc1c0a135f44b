//! Tool calls: how models write them, how to force them, how to read them back.

mod grammar;
mod parser;
mod scanner;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::grammar::GrammarSpec;

pub use parser::{ToolCallParser, ToolEvent};

/// A function the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name; see [`valid_tool_name`].
    pub name: String,
    /// JSON schema of the arguments object.
    pub parameters: Value,
    /// Arguments must follow the schema even when calling is the model's choice.
    pub strict: bool,
}

/// OpenAI's `tool_choice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Answer with text.
    None,
    /// The model decides.
    Auto,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}

/// A tool name as OpenAI allows them: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn valid_tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// How a family of models writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, one element a call
    /// (Hermes, Qwen). The default for templates that show no other.
    Hermes,
    /// `{"name": …, "parameters": …}`, several separated by `; ` (Llama 3.x).
    Llama3Json,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}, …]` (Mistral).
    Mistral,
}

impl ToolFormat {
    /// Recognises the format by the marks that the chat template uses.
    #[must_use]
    pub fn detect(template_source: &str) -> Self {
        let has = |mark: &str| template_source.contains(mark);
        if has("<tool_call>") {
            Self::Hermes
        } else if has("[TOOL_CALLS]") {
            Self::Mistral
        } else if has("<|python_tag|>") || (has("<|start_header_id|>") && has("\"parameters\"")) {
            Self::Llama3Json
        } else {
            Self::Hermes
        }
    }

    /// Every mark of every format.
    pub fn all_marks() -> impl Iterator<Item = &'static str> {
        [Self::Hermes, Self::Llama3Json, Self::Mistral]
            .into_iter()
            .flat_map(|format| format.marks().iter().copied())
    }

    /// Marks that may be special tokens in the vocabulary and must reach the
    /// parser although special tokens are not shown.
    #[must_use]
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Llama3Json => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
        }
    }

    /// A grammar under which the output is nothing but tool calls, their arguments
    /// valid: of any tool for [`ToolChoice::Required`], of one for
    /// [`ToolChoice::Named`]; exactly one call unless `parallel`.
    /// `None` for the choices that do not force a call, and when no tool remains.
    #[must_use]
    pub fn forced_grammar(
        self,
        tools: &[ToolSpec],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Option<GrammarSpec> {
        grammar::forced(self, tools, choice, parallel)
    }

    /// For [`ToolChoice::Auto`] with strict tools: free text, but a call once begun
    /// follows its tool's schema. `None` when no tool is strict.
    #[must_use]
    pub fn strict_grammar(self, tools: &[ToolSpec], parallel: bool) -> Option<GrammarSpec> {
        grammar::strict(self, tools, parallel)
    }

    /// For [`ToolChoice::Auto`] beside a schema for the content: the output is either
    /// JSON of that schema, or nothing but calls whose arguments are valid. `None`
    /// without tools. Parse with `enforced` false: in some formats both begin alike.
    #[must_use]
    pub fn calls_or_content_grammar(
        self,
        tools: &[ToolSpec],
        parallel: bool,
        content: Value,
    ) -> Option<GrammarSpec> {
        grammar::calls_or_content(self, tools, parallel, content)
    }

    /// A parser for one streamed answer. `enforced`: the answer is generated under
    /// [`Self::forced_grammar`] or [`Self::strict_grammar`], so arguments are passed
    /// on while they are produced. Otherwise each call waits until it is complete
    /// and known to be valid: what turns out not to be a call stays text.
    #[must_use]
    pub fn parser(self, tools: &[ToolSpec], enforced: bool) -> ToolCallParser {
        ToolCallParser::new(self, tools, enforced)
    }

    /// A call id in the form that the model's template accepts (Mistral's insist on
    /// nine letters and digits), from a number that the caller draws.
    #[must_use]
    pub fn call_id(self, random: u128) -> String {
        let (prefix, length) = match self {
            Self::Mistral => ("", 9),
            Self::Hermes | Self::Llama3Json => ("call_", 24),
        };
        let mut left = random;
        let digits = std::iter::repeat_with(|| {
            let digit = ALPHABET[usize::try_from(left % 36).unwrap_or(0)];
            left /= 36;
            char::from(digit)
        });
        prefix.chars().chain(digits.take(length)).collect()
    }
}
