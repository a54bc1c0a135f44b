//! Texts and pairs of texts as token ids that fit the model.

use std::sync::Arc;
use std::time::Duration;

use crate::batcher::{Budget, WorkError, WorkQueue, spawn_worker};
use crate::error::{LoadError, SubmitError};
use crate::tokenizer::TextTokenizer;

/// Bytes from which a text is tokenised on the thread for long texts; what is
/// shorter takes about a millisecond at most.
pub(super) const LONG_TEXT: usize = 8 << 10;

/// Long texts that may wait.
pub(super) const MAX_LONG_TEXTS: usize = 256;

/// A tokenised input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    /// Token types by runs: `(type, tokens)`. Empty: all 0.
    pub(super) types: Vec<(u32, usize)>,
}

impl Encoded {
    pub(super) fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// The ids around one text and around a pair, with their token types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Frame {
    before: Vec<u32>,
    between: Vec<u32>,
    after: Vec<u32>,
    /// Token type of the second text and of what follows it.
    second_type: u32,
}

/// A tokenizer and the shape of the model's inputs.
#[derive(Debug)]
pub(super) struct EncoderText {
    tokenizer: Arc<TextTokenizer>,
    max_tokens: usize,
    single: Frame,
    /// `None` when the post-processor's form for pairs is not
    /// `before A between B after`.
    pair: Option<Frame>,
}

impl EncoderText {
    /// Finds the special tokens by encoding samples. `Err`: why they cannot be told.
    pub(super) fn new(tokenizer: Arc<TextTokenizer>, max_tokens: usize) -> Result<Self, String> {
        let encode =
            |text: &str, special: bool| tokenizer.encode(text, special).map_err(|e| e.to_string());
        let (a, b) = (encode("a", false)?, encode("b", false)?);
        let whole = encode("a", true)?;
        let at =
            position(&whole, &a).ok_or("the tokenizer's special tokens are not around the text")?;
        let single = Frame {
            before: whole[..at].to_vec(),
            after: whole[at + a.len()..].to_vec(),
            ..Frame::default()
        };
        if single.before.len() + single.after.len() >= max_tokens {
            return Err(format!(
                "{max_tokens} tokens leave no room beside the special tokens"
            ));
        }
        let (ids, types) = tokenizer.encode_pair("a", "b").map_err(|e| e.to_string())?;
        let pair = position(&ids, &a).and_then(|first| {
            let rest = first + a.len();
            let second = rest + position(&ids[rest..], &b)?;
            Some(Frame {
                before: ids[..first].to_vec(),
                between: ids[rest..second].to_vec(),
                after: ids[second + b.len()..].to_vec(),
                second_type: types.get(second).copied().unwrap_or(0),
            })
        });
        Ok(Self {
            tokenizer,
            max_tokens,
            single,
            pair,
        })
    }

    pub(super) fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Bytes of a text that are looked at. More cannot matter, whatever the tokenizer leaves out
    /// (blanks) or makes one token of (an unknown word); tokenising takes about a hundred bytes of
    /// memory for each byte of text.
    pub(super) fn max_bytes(&self) -> usize {
        let generous = self.tokenizer.max_bytes(self.max_tokens).saturating_mul(8);
        generous.max(LEAST_TEXT)
    }

    /// A text within [`Self::max_bytes`].
    pub(super) fn bounded(&self, mut text: String, truncate: bool) -> Result<String, SubmitError> {
        let most = self.max_bytes();
        if text.len() <= most {
            return Ok(text);
        }
        if !truncate {
            return Err(self.too_long(text.len() / self.tokenizer.longest_token().max(1)));
        }
        let kept = TextTokenizer::beginning(&text, most).len();
        text.truncate(kept);
        Ok(text)
    }

    /// Token ids of a text.
    pub(super) fn tokenize(&self, text: &str, special: bool) -> Result<Encoded, SubmitError> {
        let ids = self.tokenizer.encode(text, special);
        let ids = ids.map_err(|error| invalid_input(error.to_string()))?;
        Ok(Encoded {
            ids,
            types: Vec::new(),
        })
    }

    /// Ids as a client sent them.
    pub(super) fn check_ids(&self, ids: Vec<u32>) -> Result<Encoded, SubmitError> {
        let vocab = self.tokenizer.vocab_size();
        if ids.is_empty() {
            return Err(invalid_input("there must be at least one token".to_owned()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            let message = format!("token {id} is not in the vocabulary of {vocab} tokens");
            return Err(invalid_input(message));
        }
        Ok(Encoded {
            ids,
            types: Vec::new(),
        })
    }

    /// Cuts the text, not the special tokens after it.
    pub(super) fn fit(&self, mut encoded: Encoded, truncate: bool) -> Result<Encoded, SubmitError> {
        let tokens = encoded.ids.len();
        if tokens > self.max_tokens {
            if !truncate {
                return Err(self.too_long(tokens));
            }
            let after = &self.single.after;
            if encoded.ids.ends_with(after) {
                encoded.ids.truncate(self.max_tokens - after.len());
                encoded.ids.extend_from_slice(after);
            } else {
                encoded.ids.truncate(self.max_tokens);
            }
        }
        Ok(encoded)
    }

    /// A query and a document, both without special tokens, as one input. Cutting
    /// takes from the longer one first, as Hugging Face's `longest_first`.
    pub(super) fn pair(
        &self,
        first: &[u32],
        second: &[u32],
        truncate: bool,
    ) -> Result<Encoded, SubmitError> {
        let Some(frame) = &self.pair else {
            return Err(invalid_input(
                "the model's tokenizer does not encode pairs".to_owned(),
            ));
        };
        let special = frame.before.len() + frame.between.len() + frame.after.len();
        let total = special + first.len() + second.len();
        if total > self.max_tokens && !truncate {
            return Err(self.too_long(total));
        }
        let room = self.max_tokens.saturating_sub(special);
        let (keep_first, keep_second) = shares(first.len(), second.len(), room);
        let ids = [
            frame.before.as_slice(),
            &first[..keep_first],
            &frame.between,
            &second[..keep_second],
            &frame.after,
        ]
        .concat();
        let head = frame.before.len() + keep_first + frame.between.len();
        let types = vec![(0, head), (frame.second_type, ids.len() - head)];
        Ok(Encoded { ids, types })
    }

    fn too_long(&self, tokens: usize) -> SubmitError {
        SubmitError::TooLong {
            prompt: tokens,
            requested: tokens,
            limit: self.max_tokens,
        }
    }
}

/// How much of two texts fits into `room`, taking from the longer one first.
fn shares(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let half = room / 2;
    if first <= half {
        (first, room - first)
    } else if second <= room - half {
        (room - second, second)
    } else {
        (half, room - half)
    }
}

fn position(ids: &[u32], part: &[u32]) -> Option<usize> {
    if part.is_empty() {
        return None;
    }
    ids.windows(part.len()).position(|window| window == part)
}

fn invalid_input(message: String) -> SubmitError {
    SubmitError::Invalid {
        param: "input",
        message,
    }
}

/// Bytes of text that every model takes, however short its context.
const LEAST_TEXT: usize = 128 << 10;

/// A text that takes long to tokenise.
#[derive(Debug)]
pub(super) struct LongText {
    pub(super) text: String,
    pub(super) special: bool,
}

/// Starts the thread that tokenises long texts, one at a time.
pub(super) fn start(
    name: &str,
    queue: &Arc<WorkQueue<LongText, Encoded>>,
    text: &Arc<EncoderText>,
) -> Result<(), LoadError> {
    let one = Budget {
        tokens: usize::MAX,
        items: 1,
        padding: 0,
        max_age: Duration::from_secs(2),
    };
    let text = Arc::clone(text);
    spawn_worker(
        Arc::clone(queue),
        format!("{name} tokens"),
        one,
        move |batch| {
            let tokenize = |job: &LongText| {
                let encoded = text.tokenize(&job.text, job.special);
                encoded.map_err(|error| WorkError::Failed(error.to_string()))
            };
            let results: Vec<_> = batch.jobs().map(tokenize).collect();
            batch.answer(results);
            Ok(())
        },
    )
    .map_err(|error| LoadError::Runtime(format!("cannot start a thread: {error}")))
}

#[cfg(test)]
mod tests;
