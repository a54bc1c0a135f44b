//! Token ids to text, one at a time.

use std::collections::HashSet;
use std::sync::Arc;

use super::TextTokenizer;

/// What is shown of the tokens.
#[derive(Debug, Clone, Default)]
pub struct DetokenizerOptions {
    /// Leave special tokens out.
    pub skip_special: bool,
    /// Special tokens that are shown nevertheless (the marks of tool calls).
    pub keep: Arc<HashSet<u32>>,
    /// The tokens continue a text: the first one keeps its leading space, as in
    /// a completion of `The capital of France is`.
    pub continuation: bool,
}

/// The state between two tokens: at most three bytes of an unfinished character.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    options: DetokenizerOptions,
    pending: Vec<u8>,
    /// No token has been decoded yet.
    first: bool,
    /// Leading characters that may still be stripped; `None` before the first token.
    strip_left: Option<usize>,
}

impl Detokenizer {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(options: DetokenizerOptions) -> Self {
        Self {
            first: !options.continuation,
            strip_left: options.continuation.then_some(0),
            pending: Vec::new(),
            options,
        }
    }

    /// Appends to `text` what `id` completes. Bytes that may be the beginning of
    /// a character wait for the next token; bytes that cannot be one become U+FFFD.
    pub fn push(&mut self, tokenizer: &TextTokenizer, id: u32, text: &mut String) {
        if self.options.skip_special && tokenizer.is_special(id) && !self.options.keep.contains(&id)
        {
            return;
        }
        if tokenizer.spelling_is_unknown(id) {
            return;
        }
        let piece = tokenizer.piece(id, self.first);
        self.first = false;
        self.pending.extend_from_slice(&piece);
        let from = text.len();
        let consumed = decode_complete(&self.pending, text);
        self.pending.drain(..consumed);
        self.strip(tokenizer, text, from);
    }

    /// Ends the text: an unfinished character becomes one U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            text.push_str(&String::from_utf8_lossy(&self.pending));
            self.pending.clear();
        }
    }

    /// Whether a character is unfinished.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Drops leading characters of the whole text, as the decoder's `Strip` says.
    fn strip(&mut self, tokenizer: &TextTokenizer, text: &mut String, from: usize) {
        let Some(strip) = tokenizer.decoding.strip() else {
            return;
        };
        let left = self.strip_left.get_or_insert(strip.count);
        while *left > 0 && text.len() > from {
            if text[from..].starts_with(strip.character) {
                text.remove(from);
                *left -= 1;
            } else {
                *left = 0;
            }
        }
    }
}

/// Decodes all of `bytes` but an unfinished character at the end; returns the
/// number of bytes consumed. Invalid sequences become U+FFFD, one for each maximal
/// subpart, as `String::from_utf8_lossy` does.
fn decode_complete(bytes: &[u8], text: &mut String) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(valid) => {
                text.push_str(valid);
                return bytes.len();
            }
            Err(error) => {
                let valid = &bytes[at..at + error.valid_up_to()];
                text.push_str(&String::from_utf8_lossy(valid));
                at += valid.len();
                match error.error_len() {
                    Some(length) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        at += length;
                    }
                    None => return at,
                }
            }
        }
    }
    at
}
