//! An answer as a stream of server-sent events, judged as it comes.
//!
//! Only whole events are let through, so that an error event is never glued to half of
//! another. A piece that ends where an event ends, as nearly all do, is passed on as it is;
//! of any other the beginning of the last event waits for its end. At most [`MAX_EVENT`]
//! bytes wait. An event is read once, and nothing is allocated for it, unless it is changed:
//! [`Edits`] says what of it a client is to see otherwise.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use sluice_engine::request::FinishReason;

use super::Defect;
use super::change::Change;
use super::chunk::{Chunk, Delta, Finish};
use super::json::is_error;
use super::patch::{Patch, member, span};
use super::scrub::Scrub;
use super::tally::{Reported, Tally};
use crate::endpoint::Protocol;

/// Bytes of one event that are held back for its end at most.
pub const MAX_EVENT: usize = 4 << 20;

/// How servers say that nothing more comes.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Choices of a stream whose ends are followed one by one; a stream with more must end with
/// `[DONE]`.
const MAX_CHOICES: usize = 4096;

/// What a client is to see otherwise than the upstream wrote it.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// The model's name, as a JSON string; `None` leaves the upstream's.
    pub model: Option<Bytes>,
    /// The usage was not asked for by the client: it is read, and left out.
    pub strips_usage: bool,
    /// What error events must not tell.
    pub scrub: Option<Arc<Scrub>>,
}

impl Edits {
    /// An error without what it must not tell; `None` where that is nothing.
    fn scrubbed(&self, json: &[u8]) -> Option<Vec<u8>> {
        let scrub = self.scrub.as_ref()?;
        scrub.json(json, self.model.as_deref())
    }

    /// What of a chunk the client is to see otherwise.
    fn of(&self, chunk: &Chunk<'_>, json: &[u8]) -> Change<'_> {
        let usage = chunk.usage.filter(|_| self.strips_usage);
        let usage = usage.map(|value| value.get().as_bytes());
        if chunk.choices.is_empty() && usage.is_some_and(|value| value.starts_with(b"{")) {
            return Change::Dropped;
        }
        let usage = usage.map(|value| (member(json, span(json, value)), &b""[..]));
        let model = self.model.as_ref().zip(chunk.model);
        let model = model.and_then(|(ours, theirs)| {
            let theirs = theirs.get().as_bytes();
            let differs = theirs.starts_with(b"\"") && theirs != ours;
            differs.then(|| (span(json, theirs), &**ours))
        });
        Change::Parts(match (usage, model) {
            (Some(usage), Some(model)) if model.0.start < usage.0.start => {
                [Some(model), Some(usage)]
            }
            (usage, model) => [usage, model],
        })
    }
}

/// What is known of a stream so far.
#[derive(Debug)]
pub struct Events {
    protocol: Protocol,
    edits: Edits,
    tally: Tally,
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
    pub fn new(protocol: Protocol, edits: Edits) -> Self {
        Self {
            protocol,
            edits,
            tally: Tally::default(),
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
        let mut patch = Patch::default();
        while next == Next::More
            && let Some(end) = boundary(&whole, read)
        {
            let unread = patch.mark();
            let event = self.read(&whole, read..end, &mut patch);
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
            match next {
                // What must not pass is not passed in other words either.
                Next::Broken(_) => patch.back_to(unread),
                Next::More | Next::Nothing | Next::Told => read = end,
            }
        }
        if next == Next::More && self.rest.len() > MAX_EVENT {
            next = Next::Broken(Defect::Large);
        }
        self.over |= next != Next::More;
        Passed {
            events: patch.finish(&whole, read),
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
        let mut patch = Patch::default();
        if !rest.trim_ascii().is_empty() {
            return match self.read(&rest, 0..rest.len(), &mut patch) {
                Ok(Event::Done) => match self.close() {
                    Next::Broken(defect) => Err(defect),
                    Next::More | Next::Nothing | Next::Told => {
                        Ok(End::Missing(Bytes::from_static(DONE)))
                    }
                },
                Ok(Event::Error) => Err(Defect::Error),
                Ok(Event::Other | Event::Output) if self.choices.all_ended() => {
                    let last = patch.finish(&rest, rest.len());
                    let mut missing = BytesMut::from(last.trim_ascii());
                    if !missing.is_empty() {
                        missing.extend_from_slice(b"\n\n");
                    }
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

    /// What the stream has said of itself so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
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

    /// Reads the event that stands at `at` of `whole`, and notes what is to be changed of it.
    fn read(&mut self, whole: &[u8], at: Range<usize>, patch: &mut Patch) -> Result<Event, Defect> {
        let event = &whole[at.clone()];
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
        let json = data.trim_ascii();
        if json == b"[DONE]" {
            return Ok(Event::Done);
        }
        self.count += 1;
        let chunk: Chunk<'_> = serde_json::from_slice(json).map_err(|error| {
            match error.is_data() && json.first() == Some(&b'{') {
                true => Defect::Shape,
                false => Defect::Json,
            }
        })?;
        if let Some(usage) = chunk.usage {
            self.tally.usage = Reported::read(usage.get()).or(self.tally.usage);
        }
        let failed = named_error || is_error(chunk.error, chunk.object.unwrap_or_default());
        // One that came in one line is changed in its place.
        let in_place = matches!(data, Cow::Borrowed(_)).then(|| span(whole, json).start);
        let change = match failed {
            true => Change::Whole(self.edits.scrubbed(json)),
            false => self.edits.of(&chunk, json),
        };
        change.make(whole, at, in_place, json, patch);
        match failed {
            true => Ok(Event::Error),
            false => self.take_choices(&chunk),
        }
    }

    fn take_choices(&mut self, chunk: &Chunk<'_>) -> Result<Event, Defect> {
        let mut event = Event::Other;
        for choice in chunk.choices.iter() {
            let ended = match choice.finish_reason {
                Finish::No => None,
                Finish::Length => Some(FinishReason::Length),
                Finish::Abort => Some(FinishReason::Cancelled),
                Finish::Error => return Err(Defect::Error),
                Finish::Other => Some(FinishReason::Stop),
            };
            let delta = match self.protocol {
                Protocol::Chat => choice.delta,
                Protocol::Completions
                | Protocol::Embeddings
                | Protocol::Rerank
                | Protocol::Classify
                | Protocol::Tokenize
                | Protocol::Detokenize => Delta {
                    there: choice.text.filled.is_there(),
                    says: choice.text.filled.is_some(),
                    bytes: choice.text.bytes,
                },
            };
            if !delta.there && ended.is_none() {
                return Err(Defect::Shape);
            }
            self.choices.note(choice.index, ended.is_some());
            self.tally.finish = ended.or(self.tally.finish);
            self.tally.outputs += usize::from(delta.says);
            self.tally.bytes += delta.bytes;
            // The role alone, or an empty text, is no output.
            if delta.says || ended.is_some() {
                event = Event::Output;
            }
        }
        Ok(event)
    }
}

/// The value of a line of an event, if it is that field's.
pub(super) fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
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
