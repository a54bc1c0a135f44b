//! Constrained output: which tokens may come next.
//!
//! A [`GrammarSpec`] (JSON schema, Lark, regex, choice) is compiled once by the
//! model's [`GrammarCompiler`] (llguidance over the tokenizer's byte trie); every
//! sequence takes its own [`Matcher`], which the device thread asks for a mask
//! before each draw and tells what was drawn. With the mask applied the output
//! matches whatever the weights are.

mod compiler;
pub(crate) mod narrow;
mod schema;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use toktrie::SimpleVob;

pub(crate) use compiler::whitespace_policy;
pub use compiler::{CompilerOptions, GrammarCompiler};
pub use schema::check_schema;

/// What the output must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSpec {
    /// Any JSON object (`response_format: {"type": "json_object"}`).
    JsonObject,
    /// JSON that validates against this schema (`json_schema`).
    JsonSchema(serde_json::Value),
    /// A context-free grammar in llguidance's dialect of Lark.
    Lark(String),
    /// A regular expression (Rust syntax) that the whole output matches.
    Regex(String),
    /// Exactly one of these strings.
    Choice(Vec<String>),
}

/// Why a grammar was refused, or why it can go no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A construct that the compiler cannot enforce.
    #[error("`{keyword}` is not supported: {reason}")]
    Unsupported {
        /// The schema keyword, for example `not`.
        keyword: String,
        /// What to use instead, or the compiler's own words.
        reason: String,
    },
    /// Not a valid schema, grammar or pattern.
    #[error("the grammar is invalid: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// Within the language, but beyond the limits that keep compilation and the
    /// masks fast.
    #[error("the grammar is too complex: {reason}")]
    TooComplex {
        /// Which limit was met.
        reason: String,
    },
    /// A token outside the mask was accepted, or the matcher failed while running.
    #[error("the grammar cannot continue: {reason}")]
    Stuck {
        /// The matcher's words; holds no model output.
        reason: String,
    },
}

/// A compiled grammar; cheap to clone.
#[derive(Clone)]
pub struct Grammar {
    /// Never advanced: each sequence gets a deep copy.
    prototype: Arc<llguidance::Matcher>,
}

impl Grammar {
    /// A matcher at the grammar's beginning, for one sequence.
    ///
    /// The lexer's state cache is copied, not shared, so that the memory of one
    /// long sequence is freed with it and sequences never wait for each other.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        Matcher {
            inner: self.prototype.deep_clone(),
            mask: SimpleVob::new(),
        }
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// The state of one sequence in its grammar.
pub struct Matcher {
    inner: llguidance::Matcher,
    mask: SimpleVob,
}

impl Matcher {
    /// Tokens that may come next, one bit each: token `t` is allowed when bit
    /// `t % 32` of word `t / 32` is set. Tokens beyond the last word (a padded
    /// vocabulary) are not allowed. End-of-sequence tokens are allowed where the
    /// grammar may end.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`]: the sequence cannot continue.
    pub fn mask(&mut self) -> Result<&[u32], GrammarError> {
        self.mask = self.inner.compute_mask_or_eos().map_err(|e| stuck(&e))?;
        Ok(self.mask.as_slice())
    }

    /// The mask as it was last computed.
    #[must_use]
    pub fn last_mask(&self) -> &[u32] {
        self.mask.as_slice()
    }

    /// Advances by a token that was drawn under the mask.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`]: the token was not allowed here.
    pub fn accept(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.inner.is_stopped() {
            return Err(GrammarError::Stuck {
                reason: "a token after the grammar's end".to_owned(),
            });
        }
        self.inner.consume_token(token).map_err(|e| stuck(&e))
    }

    /// The grammar is complete and nothing but end-of-sequence may follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
    }

    /// The text so far is complete, though more may follow.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`]: the matcher has failed before.
    pub fn may_end(&mut self) -> Result<bool, GrammarError> {
        self.inner.is_accepting().map_err(|e| stuck(&e))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

fn stuck(error: &impl fmt::Display) -> GrammarError {
    let reason = error.to_string();
    let reason = reason.lines().next().unwrap_or_default();
    GrammarError::Stuck {
        reason: reason.to_owned(),
    }
}
