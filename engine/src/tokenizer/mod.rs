//! Text to token ids and back.
//!
//! [`TextTokenizer`] wraps the model's own `tokenizer.json`; [`detokenizer`] turns
//! a stream of ids into text without ever splitting a character; [`stop`] holds
//! back text that may be the beginning of a stop string; [`template`] renders chat
//! messages by the model's own template; [`tools`] knows how models write tool calls.

mod decoding;
pub mod detokenizer;
mod files;
mod growth;
pub mod stop;
pub mod template;
pub mod tools;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::error::LoadError;
use decoding::Decoding;
use detokenizer::{Detokenizer, DetokenizerOptions};
use tools::ToolFormat;

pub use files::{SpecialTokens, TokenizerFiles};

/// Text could not be turned into tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// More tokens than allowed; found before the whole text was tokenised.
    #[error("the text has at least {at_least} tokens, at most {limit} are allowed")]
    TooLong {
        /// A lower bound, or the exact count.
        at_least: usize,
        /// The bound that was asked for.
        limit: usize,
    },
    /// The tokenizer itself refused.
    #[error("the text cannot be tokenised: {0}")]
    Failed(String),
}

/// A model's tokenizer. Immutable; shared by all threads.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    decoding: Decoding,
    tokens: TokenTable,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Vec<u32>,
    tool_marks: Arc<HashSet<u32>>,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` and, where present, `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json`, `genai_config.json`
    /// and `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Folder`] names the file and what is wrong with it.
    pub fn from_folder(dir: &Path) -> Result<Self, LoadError> {
        let files = TokenizerFiles::read(dir)?;
        let path = dir.join("tokenizer.json");
        let folder = |reason: String| LoadError::Folder {
            path: path.clone(),
            reason,
        };
        let json = std::fs::read(&path).map_err(|e| folder(e.to_string()))?;
        growth::check(&json).map_err(folder)?;
        let inner = Tokenizer::from_bytes(&json).map_err(|e| folder(e.to_string()))?;
        Self::new(inner, &files).map_err(folder)
    }

    /// Wraps a tokenizer built in memory.
    ///
    /// # Errors
    /// The decoder is of a kind that cannot be streamed; the message names it.
    pub fn new(mut inner: Tokenizer, files: &TokenizerFiles) -> Result<Self, String> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        let decoding = Decoding::of(&inner)?;
        let tokens = TokenTable::build(&inner, &decoding);
        let special = files.special.clone();
        let id = |token: &str| inner.token_to_id(token);
        let bos = special.bos.as_deref().and_then(id);
        let mut eos = files.eos_ids.clone();
        eos.extend(special.eos.as_deref().and_then(id));
        let mut unique = Vec::new();
        for id in eos {
            if !unique.contains(&id) {
                unique.push(id);
            }
        }
        let tool_marks = Arc::new(ToolFormat::all_marks().filter_map(id).collect());
        Ok(Self {
            tool_marks,
            inner,
            decoding,
            tokens,
            special,
            bos,
            eos: unique,
        })
    }

    /// Token ids of `text`; `add_special` adds what the model's post-processor
    /// adds (a beginning-of-sequence token, `[CLS]` … `[SEP]`). Special tokens
    /// written out in the text become their ids, as chat templates need.
    ///
    /// # Errors
    /// [`TokenizeError::Failed`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizeError> {
        self.inner
            .encode_fast(text, add_special)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| TokenizeError::Failed(e.to_string()))
    }

    /// Token ids and token types of two texts as one input, with the special
    /// tokens of the model's post-processor (`[CLS] A [SEP] B [SEP]`).
    ///
    /// # Errors
    /// [`TokenizeError::Failed`].
    pub fn encode_pair(
        &self,
        first: &str,
        second: &str,
    ) -> Result<(Vec<u32>, Vec<u32>), TokenizeError> {
        self.inner
            .encode_fast((first, second), true)
            .map(|encoding| {
                (
                    encoding.get_ids().to_vec(),
                    encoding.get_type_ids().to_vec(),
                )
            })
            .map_err(|e| TokenizeError::Failed(e.to_string()))
    }

    /// As [`Self::encode`] for a text that must not exceed `max_tokens`: a text
    /// that cannot fit is refused by its length, without tokenising it.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`], [`TokenizeError::Failed`].
    pub fn encode_bounded(
        &self,
        text: &str,
        add_special: bool,
        max_tokens: usize,
    ) -> Result<Vec<u32>, TokenizeError> {
        let too_long = |at_least| TokenizeError::TooLong {
            at_least,
            limit: max_tokens,
        };
        if text.len() > self.max_bytes(max_tokens) {
            return Err(too_long(text.len() / self.longest_token().max(1)));
        }
        let ids = self.encode(text, add_special)?;
        if ids.len() > max_tokens {
            return Err(too_long(ids.len()));
        }
        Ok(ids)
    }

    /// Bytes that `max_tokens` tokens can hold at most; a longer text is longer
    /// in tokens too.
    #[must_use]
    pub fn max_bytes(&self, max_tokens: usize) -> usize {
        max_tokens.saturating_mul(self.longest_token().max(1))
    }

    /// The beginning of a text, of at most so many bytes and whole characters.
    #[must_use]
    pub fn beginning(text: &str, bytes: usize) -> &str {
        &text[..text.floor_char_boundary(bytes)]
    }

    /// Bytes of the longest token.
    #[must_use]
    pub fn longest_token(&self) -> usize {
        self.tokens.longest
    }

    /// Text of `ids`, exactly what a [`Detokenizer`] would deliver in pieces.
    /// Unknown ids are left out; invalid UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let options = DetokenizerOptions {
            skip_special,
            ..DetokenizerOptions::default()
        };
        let mut detokenizer = Detokenizer::new(options);
        let mut text = String::new();
        for &id in ids {
            detokenizer.push(self, id, &mut text);
        }
        detokenizer.finish(&mut text);
        text
    }

    /// The token's text, U+FFFD where its bytes alone are not UTF-8.
    #[must_use]
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.tokens.get(id)).into_owned()
    }

    /// The bytes that this token adds to a text; none for an unknown id.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.tokens.get(id).to_vec()
    }

    /// One more than the largest id. (A model's logits may be padded beyond it.)
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Id of a token by its spelling in the vocabulary.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as the vocabulary spells it (`Ġthe`, `▁the`, `##the`).
    #[must_use]
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the vocabulary has no such token.
    fn spelling_is_unknown(&self, id: u32) -> bool {
        !self
            .tokens
            .known
            .get(id as usize)
            .is_some_and(|&known| known)
    }

    /// Whether `id` is a control token that is not part of the text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.tokens.is_special(id)
    }

    /// Beginning of sequence.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// All ids that end a sequence, gathered from the model's files.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Tokens that mark tool calls. They are text to whoever reads the calls, even
    /// where the vocabulary has them as special tokens.
    #[must_use]
    pub fn tool_marks(&self) -> &Arc<HashSet<u32>> {
        &self.tool_marks
    }

    /// Spellings of the special tokens, as chat templates use them.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The tokenizer as `tokenizer.json` holds it.
    #[cfg(test)]
    pub(crate) fn to_json(&self) -> String {
        self.inner.to_string(false).unwrap_or_default()
    }

    /// What `id` contributes at the beginning of a text (`first`) or after it.
    fn piece(&self, id: u32, first: bool) -> Cow<'_, [u8]> {
        let own = || self.decoding.first_piece(&self.spelling(id)?);
        match if first { own() } else { None } {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(self.tokens.get(id)),
        }
    }
}

/// Bytes of every token in one allocation.
#[derive(Debug)]
struct TokenTable {
    bytes: Vec<u8>,
    /// End of token `i` in `bytes`; its beginning is the end of the one before.
    ends: Vec<usize>,
    special: Vec<bool>,
    /// Ids may have holes.
    known: Vec<bool>,
    longest: usize,
}

impl TokenTable {
    fn build(inner: &Tokenizer, decoding: &Decoding) -> Self {
        let vocab = inner.get_vocab(true);
        let size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let mut spelling: Vec<Option<&str>> = vec![None; size];
        for (token, &id) in &vocab {
            spelling[id as usize] = Some(token);
        }
        let mut special = vec![false; size];
        for (id, token) in inner.get_added_tokens_decoder() {
            if let Some(flag) = special.get_mut(id as usize) {
                *flag = token.special;
            }
        }
        let mut table = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(size),
            special,
            known: spelling.iter().map(Option::is_some).collect(),
            longest: 0,
        };
        for token in spelling {
            let start = table.bytes.len();
            if let Some(token) = token {
                table.bytes.extend(decoding.piece(token));
            }
            table.ends.push(table.bytes.len());
            table.longest = table.longest.max(table.bytes.len() - start);
        }
        table
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }

    fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}
