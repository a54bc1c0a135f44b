//! Fields that other servers document and this one does not do.
//!
//! A field that is taken and ignored is a promise that is not kept: whoever sends `mirostat` gets
//! another text than he asked for and is not told. So what a peer documents (vLLM, SGLang,
//! llama.cpp, text-generation-inference, the rerank and embedding services) and we do not do is
//! refused by its name, unless its value asks for nothing. What nobody documents is ignored, as
//! before: clients send fields of their own. `docs/fields.md` lists them all.

mod encoders;
mod generation;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::fields::Fields;
use crate::error::ApiError;

pub(crate) use encoders::{CLASSIFY, EMBEDDINGS, RERANK, TOKENIZE};
pub(crate) use generation::{CHAT, COMPLETIONS, MESSAGE, STREAM_OPTIONS, STRUCTURED_OUTPUTS};

/// A field that is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// Its name.
    pub(crate) name: &'static str,
    /// The value with which it asks for nothing.
    neutral: Neutral,
    /// What to do instead, or why there is no such thing: what follows "is not supported: ".
    why: &'static str,
}

/// A value that asks for nothing: what the peer takes when the field is absent.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    /// Only `null`, as for every field.
    Null,
    False,
    True,
    Number(f64),
    Words(&'static [&'static str]),
    /// An empty string, list or object.
    Empty,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::False, Value::Bool(false))
            | (Self::True, Value::Bool(true)) => true,
            (Self::Number(neutral), Value::Number(number)) => number.as_f64() == Some(neutral),
            (Self::Words(words), Value::String(word)) => words.contains(&word.as_str()),
            (Self::Empty, Value::String(text)) => text.is_empty(),
            (Self::Empty, Value::Array(items)) => items.is_empty(),
            (Self::Empty, Value::Object(fields)) => fields.is_empty(),
            _ => false,
        }
    }
}

const fn refused(name: &'static str, neutral: Neutral, why: &'static str) -> Refused {
    Refused { name, neutral, why }
}

/// Refuses the first field of an object that is in one of the tables and asks for something.
pub(crate) fn check(object: &Fields, tables: &[&[Refused]]) -> Result<(), ApiError> {
    for (name, value) in object.left() {
        let mut rows = tables.iter().copied().flatten();
        if let Some(row) = rows.find(|row| row.name == name)
            && !row.neutral.is(value)
        {
            let path = object.path_of(name);
            let message = format!("'{path}' is not supported: {}.", row.why);
            return Err(ApiError::unsupported(path, message));
        }
    }
    Ok(())
}
