//! Which tokens spell a word, or its end.

use crate::tokenizer::TextTokenizer;

use super::RestrictionError;

/// A word that must not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Vec<u8>,
    /// Whether characters beside its first and its last one can make it part of another word.
    pub(super) bounded: (bool, bool),
    /// Tokens that complete it behind its first byte, its first two, …
    ends: Vec<Vec<u32>>,
}

impl Word {
    fn new(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            bounded: (
                text.chars().next().is_some_and(joins),
                text.chars().next_back().is_some_and(joins),
            ),
            ends: vec![Vec::new(); text.len().saturating_sub(1)],
        }
    }

    /// Bytes of the word that stand already, and the tokens that would complete it.
    pub(super) fn completions(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let numbered = self.ends.iter().enumerate();
        numbered
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(index, ids)| (index + 1, ids.as_slice()))
    }
}

/// The words as they would come out of the model. A space before one means nothing, as in vLLM.
pub(super) fn words(
    tokenizer: &TextTokenizer,
    bad_words: &[String],
) -> Result<Vec<Word>, RestrictionError> {
    let mut words: Vec<Word> = Vec::with_capacity(bad_words.len());
    for (index, word) in bad_words.iter().enumerate() {
        let wrong = |reason: &str| {
            let param = format!("bad_words[{index}]");
            RestrictionError {
                reason: format!("Invalid '{param}': {reason}"),
                param,
            }
        };
        let word = word.trim_start();
        let ids = tokenizer
            .encode(word, false)
            .map_err(|error| wrong(&error.to_string()))?;
        if word.is_empty() || ids.is_empty() {
            return Err(wrong("expected a word of at least one token"));
        }
        // A tokenizer may normalise what it reads, and then the model writes that.
        let read = tokenizer.decode(&ids, false);
        for text in [word, read.trim_start()] {
            if !text.is_empty() && !words.iter().any(|known| known.text == text.as_bytes()) {
                words.push(Word::new(text));
            }
        }
    }
    Ok(words)
}

/// Finds the tokens that complete a word after part of it, and tells `ban` those that hold one
/// whole.
pub(super) fn look_up(tokenizer: &TextTokenizer, words: &mut [Word], mut ban: impl FnMut(u32)) {
    let index = Index::of(words);
    if words.is_empty() {
        return;
    }
    let vocab = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    for id in 0..vocab {
        let token = tokenizer.token_bytes(id);
        if tokenizer.is_special(id) {
            // No text, so that nothing is spelled by it: only the token itself can be meant.
            if words.iter().any(|word| word.text == token) {
                ban(id);
            }
            continue;
        }
        let holds = |place: usize| {
            let rest = &token[place..];
            let mut begin_here = index.begin_with(rest);
            begin_here.any(|word| {
                let word = &words[word];
                rest.starts_with(&word.text)
                    && may_begin(word, &token, place)
                    && may_end(word, &rest[word.text.len()..])
            })
        };
        if (0..token.len()).any(holds) {
            ban(id);
        }
        for &(word, known) in index.go_on_with(&token) {
            let rest = &words[word].text[known..];
            if token.starts_with(rest) && may_end(&words[word], &token[rest.len()..]) {
                words[word].ends[known - 1].push(id);
            }
        }
    }
}

/// Words and their ends by their first byte, so that most tokens are done with at once.
struct Index {
    begins: Vec<Vec<usize>>,
    ends: Vec<Vec<(usize, usize)>>,
}

impl Index {
    fn of(words: &[Word]) -> Self {
        let mut index = Self {
            begins: vec![Vec::new(); 256],
            ends: vec![Vec::new(); 256],
        };
        for (number, word) in words.iter().enumerate() {
            for (place, byte) in word.text.iter().enumerate() {
                match place {
                    0 => index.begins[usize::from(*byte)].push(number),
                    _ => index.ends[usize::from(*byte)].push((number, place)),
                }
            }
        }
        index
    }

    fn begin_with(&self, text: &[u8]) -> impl Iterator<Item = usize> {
        let first = text.first().map(|byte| &self.begins[usize::from(*byte)]);
        first.into_iter().flatten().copied()
    }

    fn go_on_with(&self, text: &[u8]) -> &[(usize, usize)] {
        text.first()
            .map_or(&[], |byte| self.ends[usize::from(*byte)].as_slice())
    }
}

fn may_begin(word: &Word, token: &[u8], place: usize) -> bool {
    place == 0 || !word.bounded.0 || !joins_before(&token[..place])
}

fn may_end(word: &Word, rest: &[u8]) -> bool {
    !word.bounded.1 || !joins_after(rest)
}

/// Whether the text before a word ends with a character that joins it.
pub(super) fn joins_before(text: &[u8]) -> bool {
    let from = text.len().saturating_sub(super::CHARACTER);
    let first = (from..text.len()).rfind(|&at| text[at] & 0xC0 != 0x80);
    let last = first.and_then(|at| std::str::from_utf8(&text[at..]).ok());
    last.and_then(|last| last.chars().next()).is_some_and(joins)
}

fn joins_after(text: &[u8]) -> bool {
    let text = &text[..text.len().min(super::CHARACTER)];
    let whole = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    };
    whole.chars().next().is_some_and(joins)
}

/// Whether characters of this kind join to words: letters and digits, but not those of scripts
/// that put no space between words, where each place is as good as another.
fn joins(character: char) -> bool {
    let spaceless = matches!(
        character,
        '\u{0E00}'..='\u{0EFF}'
            | '\u{1000}'..='\u{109F}'
            | '\u{1780}'..='\u{17FF}'
            | '\u{3040}'..='\u{30FF}'
            | '\u{3400}'..='\u{9FFF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{20000}'..='\u{3FFFF}'
    );
    (character.is_alphanumeric() && !spaceless) || character == '_'
}
