//! An answer as a stream of server-sent events, judged as it comes.
//!
//! Only whole events are let through, so that an error event is never glued to half of
//! another. A piece that ends where an event ends, as nearly all do, is passed on as it is;
//! of any other the beginning of the last event waits for its end. At most [`MAX_EVENT`]
//! bytes wait. An event is read once, and nothing is allocated for it.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::Defect;
use super::json::{Filled, is_error};
use crate::endpoint::Protocol;

/// Bytes of one event that are held back for its end at most.
pub const MAX_EVENT: usize = 4 << 20;

/// How servers say that nothing more comes.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Choices of a stream whose ends are followed one by one; a stream with more must end with
/// `[DONE]`.
const MAX_CHOICES: usize = 4096;

/// What is known of a stream so far.
#[derive(Debug)]
pub struct Events {
    protocol: Protocol,
    /// The beginning of an event.
    rest: BytesMut,
    /// Of it, what has been searched for an end.
    searched: usize,
    choices: Choices,
    /// Events with JSON.
    count: usize,
    /// One of them carried output.
    begun: bool,
    over: bool,
}

/// What a piece of a stream amounts to.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whole events, to be passed on.
    pub events: Bytes,
    /// One of them carries output.
    pub output: bool,
    /// What comes behind them.
    pub next: Next,
}

/// What comes behind the events that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More of the stream.
    More,
    /// Nothing: the server has said that it is done.
    Nothing,
    /// Nothing: the last event reported an error, in the server's words, which its clients
    /// know.
    Told,
    /// Something that must not pass.
    Broken(Defect),
}

/// How a stream may end that ends now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Whole,
    /// Each choice has ended, and this was left out: it is to be sent.
    Missing(Bytes),
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A comment, the role alone, the usage.
    Other,
    Output,
    Error,
    Done,
}

impl Events {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            rest: BytesMut::new(),
            searched: 0,
            choices: Choices::default(),
            count: 0,
            begun: false,
            over: false,
        }
    }

    /// Takes a piece as it came off the wire.
    pub fn take(&mut self, piece: Bytes) -> Passed {
        let whole = match self.rest.is_empty() {
            true => self.cut(piece),
            false => self.join(&piece),
        };
        let (mut read, mut output) = (0, false);
        let mut next = Next::More;
        while next == Next::More
            && let Some(end) = boundary(&whole, read)
        {
            let event = self.read(&whole[read..end]);
            next = match event {
                Ok(Event::Output) => {
                    self.begun = true;
                    output = true;
                    Next::More
                }
                Ok(Event::Other) => Next::More,
                Ok(Event::Error) if self.begun => Next::Told,
                Ok(Event::Error) => Next::Broken(Defect::Error),
                Ok(Event::Done) => self.close(),
                Err(defect) => Next::Broken(defect),
            };
            if !matches!(next, Next::Broken(_)) {
                read = end;
            }
        }
        if next == Next::More && self.rest.len() > MAX_EVENT {
            next = Next::Broken(Defect::Large);
        }
        self.over |= next != Next::More;
        Passed {
            events: whole.slice(..read),
            output,
            next,
        }
    }

    /// Says how a stream ends whose connection ended as it should.
    ///
    /// # Errors
    /// It had not come to its end.
    pub fn end(&mut self) -> Result<End, Defect> {
        if self.over {
            return Ok(End::Whole);
        }
        // The last event may lack the empty line behind it.
        let rest = std::mem::take(&mut self.rest).freeze();
        if !rest.trim_ascii().is_empty() {
            return match self.read(&rest) {
                Ok(Event::Done) => match self.close() {
                    Next::Broken(defect) => Err(defect),
                    Next::More | Next::Nothing | Next::Told => {
                        Ok(End::Missing(Bytes::from_static(DONE)))
                    }
                },
                Ok(Event::Error) => Err(Defect::Error),
                Ok(Event::Other | Event::Output) if self.choices.all_ended() => {
                    let mut missing = BytesMut::from(rest.trim_ascii());
                    missing.extend_from_slice(b"\n\n");
                    missing.extend_from_slice(DONE);
                    Ok(End::Missing(missing.freeze()))
                }
                Ok(Event::Other | Event::Output) | Err(_) => Err(Defect::Unfinished),
            };
        }
        match (self.count, self.choices.all_ended()) {
            (0, _) => Err(Defect::Empty),
            (_, true) => Ok(End::Missing(Bytes::from_static(DONE))),
            (_, false) => Err(Defect::Unfinished),
        }
    }

    /// Events with JSON so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// `[DONE]` came: was there anything?
    fn close(&self) -> Next {
        match (self.choices.any, self.count) {
            (true, _) => Next::Nothing,
            (false, 0) => Next::Broken(Defect::Empty),
            (false, _) => Next::Broken(Defect::Shape),
        }
    }

    /// The whole events of a piece; the beginning of another is kept.
    fn cut(&mut self, piece: Bytes) -> Bytes {
        let mut end = 0;
        while let Some(next) = boundary(&piece, end) {
            end = next;
        }
        if end == piece.len() {
            return piece;
        }
        self.rest.extend_from_slice(&piece[end..]);
        self.searched = self.rest.len().saturating_sub(3);
        piece.slice(..end)
    }

    /// The same behind what was kept.
    fn join(&mut self, piece: &[u8]) -> Bytes {
        self.rest.extend_from_slice(piece);
        let mut end = 0;
        let mut from = self.searched;
        while let Some(next) = boundary(&self.rest, from) {
            (end, from) = (next, next);
        }
        let whole = self.rest.split_to(end).freeze();
        self.searched = self.rest.len().saturating_sub(3);
        whole
    }

    fn read(&mut self, event: &[u8]) -> Result<Event, Defect> {
        let mut data: Option<Cow<'_, [u8]>> = None;
        let mut named_error = false;
        for line in event.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(value) = field(line, b"data") {
                data = Some(match data {
                    None => Cow::Borrowed(value),
                    Some(before) => Cow::Owned([&*before, b"\n", value].concat()),
                });
            } else if let Some(value) = field(line, b"event") {
                named_error |= value == b"error";
            }
        }
        let Some(data) = data else {
            return Ok(match named_error {
                true => Event::Error,
                false => Event::Other,
            });
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(Event::Done);
        }
        self.count += 1;
        let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(|error| {
            match error.is_data() && data.first() == Some(&b'{') {
                true => Defect::Shape,
                false => Defect::Json,
            }
        })?;
        if named_error || is_error(chunk.error, chunk.object.unwrap_or_default()) {
            return Ok(Event::Error);
        }
        self.take_choices(&chunk)
    }

    fn take_choices(&mut self, chunk: &Chunk<'_>) -> Result<Event, Defect> {
        let mut event = Event::Other;
        for choice in chunk.choices.iter() {
            let ended = choice.finish_reason.is_some();
            let delta = match self.protocol {
                Protocol::Chat => choice.delta,
                Protocol::Completions
                | Protocol::Embeddings
                | Protocol::Rerank
                | Protocol::Classify
                | Protocol::Tokenize
                | Protocol::Detokenize => Delta {
                    there: choice.text.is_there(),
                    says: choice.text.is_some(),
                },
            };
            if !delta.there && !ended {
                return Err(Defect::Shape);
            }
            self.choices.note(choice.index, ended);
            // The role alone, or an empty text, is no output.
            if delta.says || ended {
                event = Event::Output;
            }
        }
        Ok(event)
    }
}

/// The value of a line of an event, if it is that field's.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Where the next event ends, behind its empty line, if it does. Lines end with LF or CR LF.
fn boundary(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// Which choices there are, and which of them have ended.
#[derive(Debug, Default)]
struct Choices {
    seen: Vec<u64>,
    ended: Vec<u64>,
    any: bool,
    /// There were more than can be followed.
    many: bool,
}

impl Choices {
    fn note(&mut self, index: usize, ended: bool) {
        self.any = true;
        if index >= MAX_CHOICES {
            self.many = true;
            return;
        }
        let (word, bit) = (index / 64, 1 << (index % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
            self.ended.resize(word + 1, 0);
        }
        self.seen[word] |= bit;
        if ended {
            self.ended[word] |= bit;
        }
    }

    fn all_ended(&self) -> bool {
        self.any && !self.many && self.seen == self.ended
    }
}

/// What may stand at the top of an event.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    error: Filled,
    #[serde(default, borrow, deserialize_with = "plain")]
    object: Option<&'a str>,
    #[serde(default)]
    choices: List,
}

/// A string that is written without escapes; anything else is passed over.
fn plain<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de str>, D::Error> {
    struct Plain;
    impl<'de> Visitor<'de> for Plain {
        type Value = Option<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    input.deserialize_any(Plain)
}

/// The choices of one event. There is nearly always one, and it needs no allocation.
#[derive(Default)]
struct List {
    first: Option<Choice>,
    more: Vec<Choice>,
}

impl List {
    fn iter(&self) -> impl Iterator<Item = &Choice> {
        self.first.iter().chain(&self.more)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Listing;
        impl<'de> Visitor<'de> for Listing {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<List, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let first = seq.next_element()?;
                let mut more = Vec::new();
                while let Some(choice) = seq.next_element()? {
                    more.push(choice);
                }
                Ok(List { first, more })
            }
        }
        input.deserialize_any(Listing)
    }
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    finish_reason: Filled,
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    text: Filled,
}

/// What a choice of a chat adds.
#[derive(Debug, Clone, Copy, Default)]
struct Delta {
    there: bool,
    /// It says something beside who speaks.
    says: bool,
}

impl<'de> Deserialize<'de> for Delta {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Delta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Delta, E> {
                Ok(Delta::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "snake_case")]
                enum Key {
                    Role,
                    #[serde(other)]
                    Other,
                }
                let mut says = false;
                while let Some(key) = map.next_key()? {
                    let value: Filled = map.next_value()?;
                    match key {
                        Key::Role => {}
                        Key::Other => says |= value.is_some(),
                    }
                }
                Ok(Delta { there: true, says })
            }
        }
        input.deserialize_any(Reading)
    }
}
