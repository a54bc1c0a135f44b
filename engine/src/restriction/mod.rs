//! Tokens that a request itself rules out: `allowed_token_ids` and `bad_words`.
//!
//! Both become one mask of bits that is laid over the grammar's before each draw, so that no
//! sampler, on whatever device, needs to know of them.
//!
//! A word is kept out of the text however its characters are cut into tokens: banning the
//! spellings that the tokenizer would choose, as vLLM does, leaves a model that may not write
//! `vpn` free to write `vp` and `n`. So the text is watched, not the ids. A token is ruled out
//! where it would complete a word that
//! - begins where a token begins, or behind a character that cannot belong to the same word, and
//! - ends with the token, or before a character that cannot belong to the same word.
//!
//! That covers each sequence of tokens that vLLM bans (the word at the beginning of a text and
//! behind a space), and leaves tokens alone that merely contain the word: whoever bans `he`
//! can still have `the`.

mod spelling;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::tokenizer::TextTokenizer;
use spelling::{Word, joins_before};

/// Why a request's restrictions cannot be held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RestrictionError {
    /// The field at fault: `bad_words[2]`.
    pub param: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestrictionSpec<'a> {
    /// `allowed_token_ids`: nothing else is drawn. Absent: no such limit.
    pub allowed: Option<&'a [u32]>,
    /// `bad_words`: none of them is written.
    pub bad_words: &'a [String],
}

/// Restrictions made ready for one tokenizer, for all sequences of a request.
#[derive(Debug)]
pub struct Restriction {
    tokenizer: Arc<TextTokenizer>,
    /// One bit a token, as in [`crate::grammar::Matcher::mask`]: what may come wherever it stands.
    base: Vec<u32>,
    words: Vec<Word>,
    /// Bytes of text that have to be remembered.
    reach: usize,
}

/// Bytes of the longest character.
const CHARACTER: usize = 4;

impl Restriction {
    /// Looks through the vocabulary once: the cost is its bytes times those of the words.
    /// `vocab` is the size of the logits' last dimension.
    ///
    /// # Errors
    /// An id outside the vocabulary, a word without tokens, or nothing that is left to draw.
    pub fn new(
        tokenizer: &Arc<TextTokenizer>,
        vocab: usize,
        spec: RestrictionSpec<'_>,
    ) -> Result<Self, RestrictionError> {
        let mut base = match spec.allowed {
            Some(allowed) => only(allowed, vocab)?,
            None => all(vocab),
        };
        let mut words = spelling::words(tokenizer, spec.bad_words)?;
        spelling::look_up(tokenizer, &mut words, |id| set(&mut base, id, false));
        if base.iter().all(|word| *word == 0) {
            return Err(RestrictionError {
                param: "bad_words".to_owned(),
                reason: "'bad_words' rules out all that 'allowed_token_ids' allows".to_owned(),
            });
        }
        let longest = words.iter().map(|word| word.text.len()).max().unwrap_or(0);
        Ok(Self {
            tokenizer: Arc::clone(tokenizer),
            base,
            words,
            reach: longest + CHARACTER,
        })
    }

    /// The state of one sequence, before its first token. `eos` are the model's ends.
    #[must_use]
    pub fn begin(self: &Arc<Self>, eos: &[u32]) -> Restricted {
        Restricted {
            restriction: Arc::clone(self),
            eos: eos.to_vec(),
            text: Vec::new(),
            begins: Vec::new(),
            mask: Vec::new(),
        }
    }
}

/// One sequence under a [`Restriction`].
#[derive(Debug)]
pub struct Restricted {
    restriction: Arc<Restriction>,
    eos: Vec<u32>,
    /// The end of the text that was generated.
    text: Vec<u8>,
    /// Whether a token begins at a byte of `text`.
    begins: Vec<bool>,
    mask: Vec<u32>,
}

impl Restricted {
    /// What may come next, within what a grammar allows; false when that is nothing. Where the
    /// text may end says the grammar alone, if there is one: a list of tokens need not hold the
    /// model's end for it.
    pub fn compute(&mut self, grammar: Option<&[u32]>) -> bool {
        self.mask.clone_from(&self.restriction.base);
        for word in &self.restriction.words {
            for (known, completions) in word.completions() {
                if self.ends_with(word, known) {
                    completions
                        .iter()
                        .for_each(|&id| set(&mut self.mask, id, false));
                }
            }
        }
        if let Some(grammar) = grammar {
            for (index, bits) in self.mask.iter_mut().enumerate() {
                *bits &= grammar.get(index).copied().unwrap_or(0);
            }
            for &id in self.eos.iter().filter(|&&id| is_set(grammar, id)) {
                set(&mut self.mask, id, true);
            }
        }
        self.mask.iter().any(|bits| *bits != 0)
    }

    /// The mask as it was last computed.
    #[must_use]
    pub fn mask(&self) -> &[u32] {
        &self.mask
    }

    /// Notes a token that was drawn.
    pub fn observe(&mut self, id: u32) {
        let restriction = &self.restriction;
        if restriction.words.is_empty() || restriction.tokenizer.is_special(id) {
            return;
        }
        let bytes = restriction.tokenizer.token_bytes(id);
        self.begins.resize(self.text.len() + bytes.len(), false);
        if let Some(first) = self.begins.get_mut(self.text.len()) {
            *first = true;
        }
        self.text.extend_from_slice(&bytes);
        // Seldom, so that it costs nothing to speak of.
        if self.text.len() > 8 * restriction.reach {
            let gone = self.text.len() - restriction.reach;
            self.text.drain(..gone);
            self.begins.drain(..gone);
        }
    }

    /// Whether the text ends with the first `known` bytes of a word, at a place where it counts.
    fn ends_with(&self, word: &Word, known: usize) -> bool {
        let Some(from) = self.text.len().checked_sub(known) else {
            return false;
        };
        self.text[from..] == word.text[..known]
            && (self.begins[from] || !word.bounded.0 || !joins_before(&self.text[..from]))
    }
}

fn all(vocab: usize) -> Vec<u32> {
    let mut bits = vec![u32::MAX; vocab.div_ceil(32)];
    if let Some(last) = bits.last_mut()
        && !vocab.is_multiple_of(32)
    {
        *last = (1 << (vocab % 32)) - 1;
    }
    bits
}

fn only(allowed: &[u32], vocab: usize) -> Result<Vec<u32>, RestrictionError> {
    if let Some(at) = allowed.iter().position(|&id| id as usize >= vocab) {
        let param = format!("allowed_token_ids[{at}]");
        let reason = format!(
            "Invalid '{param}': {} is not in this model's vocabulary of {vocab} tokens",
            allowed[at]
        );
        return Err(RestrictionError { param, reason });
    }
    let mut bits = vec![0; vocab.div_ceil(32)];
    allowed.iter().for_each(|&id| set(&mut bits, id, true));
    Ok(bits)
}

fn set(bits: &mut [u32], id: u32, value: bool) {
    if let Some(word) = bits.get_mut(id as usize / 32) {
        let bit = 1 << (id % 32);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

fn is_set(bits: &[u32], id: u32) -> bool {
    bits.get(id as usize / 32)
        .is_some_and(|word| word >> (id % 32) & 1 == 1)
}
