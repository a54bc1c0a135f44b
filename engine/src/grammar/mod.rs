//! Constrained output: which tokens may come next.
//!
//! A [`GrammarSpec`] (JSON schema, Lark, regex, choice) is compiled once by the
//! model's [`GrammarCompiler`] (llguidance over the tokenizer's byte trie); every
//! sequence takes its own [`Matcher`], which the device thread asks for a mask
//! before each draw and tells what was drawn. With the mask applied the output
//! matches whatever the weights are.
//!
//! It also ends whatever the weights are. A schema is prepared before it is compiled
//! ([`schema`]: references resolved and made finite, numbers and patterns held to a
//! length), and what still has no bound is followed while it is written ([`growth`]).

mod compiler;
mod growth;
mod narrow;
mod numbers;
mod pattern;
mod reasons;
mod references;
mod schema;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use toktrie::{SimpleVob, TokEnv, TokTrie};

pub use compiler::{CompilerOptions, GrammarCompiler};
pub use growth::{Bounds, Form};
use growth::{Growth, TokenClasses};

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
    /// Tool calls as a model writes them.
    Calls(CallsGrammar),
}

/// A grammar of what stands around JSON values, and the schemas of these.
#[derive(Debug, Clone, PartialEq)]
pub struct CallsGrammar {
    /// Lark, without the rules that [`Self::schemas`] bring.
    pub rules: String,
    /// The values.
    pub schemas: Vec<EmbeddedSchema>,
    /// Where in the output they are.
    pub form: Form,
}

/// A JSON value within other text.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedSchema {
    /// The Lark rule that it becomes.
    pub rule: String,
    /// Its schema, or that of the arguments of `call`.
    pub schema: serde_json::Value,
    /// It is a call: `{"name": …, "arguments": …}`.
    pub call: Option<EmbeddedCall>,
    /// Keywords that cannot be enforced are ignored instead of refused.
    pub lenient: bool,
}

/// A call that an [`EmbeddedSchema`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedCall {
    /// The function's name.
    pub name: String,
    /// The field that holds the arguments.
    pub key: &'static str,
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
    vocabulary: Arc<Vocabulary>,
    growth: Growth,
}

/// The tokens' bytes, and what they end.
struct Vocabulary {
    env: TokEnv,
    classes: TokenClasses,
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
            vocabulary: Arc::clone(&self.vocabulary),
            growth: self.growth.clone(),
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
    vocabulary: Arc<Vocabulary>,
    growth: Growth,
}

impl Matcher {
    /// Tokens that may come next, one bit each: token `t` is allowed when bit
    /// `t % 32` of word `t / 32` is set. Tokens beyond the last word (a padded
    /// vocabulary) are not allowed. End-of-sequence tokens are allowed where the
    /// grammar may end. What has grown to its bound ([`Bounds`]) is only left the
    /// tokens that end it, if the grammar allows any of these.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`]: the sequence cannot continue.
    pub fn mask(&mut self) -> Result<&[u32], GrammarError> {
        let mask = self.inner.compute_mask_or_eos().map_err(|e| stuck(&e))?;
        self.mask = self.vocabulary.classes.restrict(mask, &self.growth);
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
        self.inner.consume_token(token).map_err(|e| stuck(&e))?;
        let bytes = self.vocabulary.env.tok_trie().token(token);
        if bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
            self.growth.push(bytes);
        }
        Ok(())
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
