//! An answer in one piece, read as it passes, of any size: its tokens, why it ended, and the
//! model's name, which is replaced in its place.
//!
//! Only what stands where it belongs counts: `usage` at the top, not one in a text or in another
//! object. What is of no interest is passed over from bracket to bracket; nothing is kept but
//! names and numbers of a few bytes.

use bytes::Bytes;
use memchr::memchr2;

use super::patch::Patch;
use super::tally::{Count, Reported, Tally, finish_reason, tokens};

/// Bytes of a name or a number that are kept: more than any of those looked for has.
const KEPT: usize = 40;

/// An object or a list that is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    /// `usage`, and Cohere's `meta.tokens` and `meta.billed_units`.
    Usage,
    Details,
    Meta,
    Choices,
    Choice,
    Message,
}

/// What is looked for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The beginning of a value.
    Value,
    /// A name, or the end of the object.
    Key,
    InKey,
    Colon,
    InText(Use),
    InScalar,
    /// Nothing: all has been read, or it is not JSON.
    Over,
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    None,
    /// What a model has said.
    Said,
    Finish,
    Model,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Scanner {
    model: Option<Bytes>,
    levels: Vec<Level>,
    /// Brackets to be closed of a value that is passed over.
    skipped: u32,
    state: State,
    escaped: bool,
    /// The name of the member, or the number.
    word: Vec<u8>,
    /// The new name has been written.
    renamed: bool,
    tally: Tally,
}

impl Scanner {
    /// Puts `model`, a JSON string, in the place of the upstream's name.
    #[must_use]
    pub fn new(model: Option<Bytes>) -> Self {
        Self {
            model,
            levels: Vec::with_capacity(4),
            skipped: 0,
            state: State::Value,
            escaped: false,
            word: Vec::with_capacity(KEPT),
            renamed: false,
            tally: Tally::default(),
        }
    }

    /// What the answer has said of itself so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the model's name is replaced, so that the answer's length may change.
    #[must_use]
    pub fn renames(&self) -> bool {
        self.model.is_some()
    }

    /// The next piece, as it may pass.
    pub fn take(&mut self, piece: &Bytes) -> Bytes {
        let mut patch = Patch::default();
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at = match self.state {
                State::Over => piece.len(),
                State::InText(purpose) => self.text(piece, at, purpose, &mut patch),
                State::InKey => self.key(piece, at),
                State::InScalar => self.scalar(byte, at),
                _ if self.skipped > 0 => self.skip(piece, at),
                State::Key => self.between(byte, at),
                State::Colon => {
                    if byte == b':' {
                        self.state = State::Value;
                    }
                    at + 1
                }
                State::Value => self.value(byte, at),
            };
        }
        patch.finish(piece, piece.len())
    }

    /// Within a text: to its end, to the next escape, or to the end of the piece.
    fn text(&mut self, piece: &[u8], at: usize, purpose: Use, patch: &mut Patch) -> usize {
        let (end, next, closed) = match self.string(piece, at) {
            Some((quote, true)) => (quote, quote + 1, true),
            Some((escape, false)) => (escape, escape + 1, false),
            None => (piece.len(), piece.len(), false),
        };
        match purpose {
            Use::None => {}
            Use::Said => self.tally.bytes += next - at - usize::from(closed),
            Use::Finish => self.keep(&piece[at..end]),
            Use::Model => self.rename(piece, at..end, patch),
        }
        if closed {
            if purpose == Use::Finish && !self.word.is_empty() {
                self.tally.finish = Some(finish_reason(&self.word));
            }
            self.close();
        }
        next
    }

    /// Where the next quote (`true`) or escape stands. What is escaped has been passed over.
    fn string(&mut self, piece: &[u8], at: usize) -> Option<(usize, bool)> {
        let from = at + usize::from(std::mem::take(&mut self.escaped));
        let found = from + memchr2(b'"', b'\\', piece.get(from..)?)?;
        self.escaped = piece[found] == b'\\';
        Some((found, !self.escaped))
    }

    /// Replaces a part of the model's name: the first by the new name, all others by nothing.
    fn rename(&mut self, piece: &[u8], part: std::ops::Range<usize>, patch: &mut Patch) {
        let Some(model) = &self.model else { return };
        // The escape behind the part belongs to it.
        let end = part.end + usize::from(self.escaped);
        let name = match std::mem::replace(&mut self.renamed, true) {
            // Its quotes stay where they are.
            false => &model[1..model.len() - 1],
            true => &[],
        };
        patch.put(piece, part.start..end.min(piece.len()), name);
    }

    fn key(&mut self, piece: &[u8], at: usize) -> usize {
        let (end, next) = match self.string(piece, at) {
            Some((quote, true)) => {
                self.state = State::Colon;
                (quote, quote + 1)
            }
            Some((escape, false)) => (escape + 1, escape + 1),
            None => (piece.len(), piece.len()),
        };
        self.keep(&piece[at..end]);
        next
    }

    fn scalar(&mut self, byte: u8, at: usize) -> usize {
        if !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
            self.keep(&[byte]);
            return at + 1;
        }
        self.state = State::Key;
        if let Some((count, number)) = self.counted() {
            self.usage().set(count, number);
        }
        self.close();
        at
    }

    /// The count that has just been read: its name and its number are kept behind one another.
    fn counted(&self) -> Option<(Count, Option<usize>)> {
        let mut parts = self.word.splitn(2, |byte| *byte == b':');
        let (name, number) = (parts.next()?, parts.next()?);
        let within = match self.levels.last()? {
            Level::Usage => true,
            Level::Details => name == b"cached_tokens",
            _ => false,
        };
        let number = std::str::from_utf8(number).ok()?.parse().ok();
        within.then_some((Count::named(name)?, number.and_then(tokens)))
    }

    fn usage(&mut self) -> &mut Reported {
        self.tally.usage.get_or_insert_default()
    }

    fn keep(&mut self, part: &[u8]) {
        let room = KEPT.saturating_sub(self.word.len());
        self.word.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Passes over a value of no interest, from one bracket or text to the next.
    fn skip(&mut self, piece: &[u8], at: usize) -> usize {
        const STOPS: [bool; 256] = {
            let mut stops = [false; 256];
            stops[b'"' as usize] = true;
            stops[b'{' as usize] = true;
            stops[b'}' as usize] = true;
            stops[b'[' as usize] = true;
            stops[b']' as usize] = true;
            stops
        };
        let rest = &piece[at..];
        let Some(found) = rest.iter().position(|byte| STOPS[usize::from(*byte)]) else {
            return piece.len();
        };
        match rest[found] {
            b'"' => {
                let said = self.levels.last() == Some(&Level::Message);
                self.state = State::InText(if said { Use::Said } else { Use::None });
            }
            b'{' | b'[' => self.skipped = self.skipped.saturating_add(1),
            _ => {
                self.skipped -= 1;
                if self.skipped == 0 {
                    self.close();
                }
            }
        }
        at + found + 1
    }

    /// Between two members.
    fn between(&mut self, byte: u8, at: usize) -> usize {
        match byte {
            b'"' => {
                self.word.clear();
                self.state = State::InKey;
            }
            b'}' => self.pop(),
            _ => {}
        }
        at + 1
    }

    /// The beginning of a value, or the end of a list.
    fn value(&mut self, byte: u8, at: usize) -> usize {
        let level = self.levels.last().copied();
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
            b'"' => self.begin_text(level),
            b'{' | b'[' => match self.opened(level, byte) {
                Some(inner) => {
                    self.levels.push(inner);
                    self.state = if byte == b'{' {
                        State::Key
                    } else {
                        State::Value
                    };
                }
                None if level.is_none() => self.state = State::Over,
                None => {
                    self.state = State::Value;
                    self.skipped = 1;
                }
            },
            b']' => self.pop(),
            _ if level.is_none() => self.state = State::Over,
            _ => {
                self.keep(b":");
                self.keep(&[byte]);
                self.state = State::InScalar;
            }
        }
        at + 1
    }

    fn begin_text(&mut self, level: Option<Level>) {
        let purpose = match (level, &*self.word) {
            (Some(Level::Root), b"model") => Use::Model,
            (Some(Level::Choice), b"finish_reason") => Use::Finish,
            (Some(Level::Choice), b"text") => Use::Said,
            (Some(Level::Message), key) if key != b"role" => Use::Said,
            _ => Use::None,
        };
        self.renamed = false;
        self.word.clear();
        self.state = match level {
            Some(_) => State::InText(purpose),
            None => State::Over,
        };
    }

    /// What an object or a list is that begins here; `None` for one of no interest.
    fn opened(&self, level: Option<Level>, bracket: u8) -> Option<Level> {
        match (level, &*self.word, bracket) {
            (None, _, b'{') => Some(Level::Root),
            (Some(Level::Root), b"usage", b'{') => Some(Level::Usage),
            (Some(Level::Root), b"meta", b'{') => Some(Level::Meta),
            (Some(Level::Meta), b"tokens" | b"billed_units", b'{') => Some(Level::Usage),
            (Some(Level::Usage), b"prompt_tokens_details" | b"input_tokens_details", b'{') => {
                Some(Level::Details)
            }
            (Some(Level::Root), b"choices", b'[') => Some(Level::Choices),
            (Some(Level::Choices), _, b'{') => Some(Level::Choice),
            (Some(Level::Choice), b"message", b'{') => Some(Level::Message),
            _ => None,
        }
    }

    /// A value has ended.
    fn close(&mut self) {
        self.word.clear();
        self.state = match self.levels.last() {
            // Within what is passed over, names and values are all the same.
            _ if self.skipped > 0 => State::Value,
            None => State::Over,
            Some(Level::Choices) => State::Value,
            Some(_) => State::Key,
        };
    }

    fn pop(&mut self) {
        self.levels.pop();
        self.close();
    }
}
