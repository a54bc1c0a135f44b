//! Reading tool calls out of streamed text.
//!
//! Text goes through as content; what may be the beginning of a mark is held back.
//! After a mark the call's JSON is collected and checked. Marks never reach the
//! content, whatever becomes of the call:
//!
//! - a call of a tool that was not declared is a call like any other, under the name
//!   that the model wrote: whoever asked can tell the model that there is no such tool;
//! - a call that the answer's end cuts off is delivered as far as it came, its
//!   arguments unfinished, if its name is complete; otherwise it is dropped;
//! - an object that is no call is dropped up to its closing mark;
//! - a mark without an object behind it is dropped, and what follows it is text.
//!
//! An object without a mark (Llama) that is no call is an answer in JSON, and stays
//! text. Blanks around calls are layout and are dropped.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::scanner::{Progress, Scanner};
use super::{ToolFormat, ToolSpec};

/// What a piece of text meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text for the user.
    Content(String),
    /// A call begins; see [`ToolFormat::call_id`] for its id.
    CallStart {
        /// 0 for the first call of the answer, and so on.
        index: usize,
        /// Name of the tool.
        name: String,
    },
    /// The next piece of the call's arguments, exactly as produced; the pieces of
    /// one call concatenate to a JSON object.
    CallArguments {
        /// Which call.
        index: usize,
        /// Piece of JSON.
        fragment: String,
    },
    /// The call is complete and its arguments are valid JSON. A call that the
    /// answer's end cuts off has none.
    CallEnd {
        /// Which call.
        index: usize,
    },
}

/// Where in the answer the parser is.
#[derive(Debug, Clone)]
enum State {
    /// At the beginning of an answer whose first character decides (Llama).
    Start,
    /// In text in which a mark may appear.
    Text,
    /// In what is no call, up to its closing mark or the end.
    Dropped,
    /// After a mark, before the call's `{`.
    Opening,
    /// In the call's JSON; bytes of its arguments that are already passed on.
    Body {
        scanner: Scanner,
        sent: Option<usize>,
    },
    /// After the call's `}`.
    Closing,
}

/// Characters of a mark that are no accident at the end of an answer.
const CERTAIN: usize = 4;

/// Separates tool calls from text. Feed it deltas; partial marks are held back.
#[derive(Debug, Clone)]
pub struct ToolCallParser {
    format: ToolFormat,
    names: Vec<String>,
    enforced: bool,
    state: State,
    /// Text not yet understood.
    buffer: String,
    /// What was skipped since the mark before the call; empty where there is no mark.
    mark: String,
    /// Objects without a mark are calls only of these tools: the content may be JSON too.
    declared_only: bool,
    /// Blanks at the end of the content, delivered only if more content follows.
    blanks: String,
    /// There was content since the last call (or from the beginning).
    content_since_call: bool,
    calls: usize,
}

impl ToolCallParser {
    pub(super) fn new(format: ToolFormat, tools: &[ToolSpec], enforced: bool) -> Self {
        Self {
            format,
            names: tools.iter().map(|t| t.name.clone()).collect(),
            enforced,
            state: match format {
                ToolFormat::Llama3Json => State::Start,
                ToolFormat::Hermes | ToolFormat::Mistral => State::Text,
            },
            buffer: String::new(),
            mark: String::new(),
            declared_only: false,
            blanks: String::new(),
            content_since_call: true,
            calls: 0,
        }
    }

    /// The content may be JSON of a form that the request asks for: an object without
    /// a mark is a call only if it names a declared tool.
    #[must_use]
    pub fn beside_json(mut self) -> Self {
        self.declared_only = true;
        self
    }

    /// Takes a piece of the answer.
    pub fn push(&mut self, piece: &str) -> Vec<ToolEvent> {
        self.buffer.push_str(piece);
        let mut events = Vec::new();
        while self.step(false, &mut events) {}
        events
    }

    /// Ends the answer.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        while self.step(true, &mut events) {}
        let rest = std::mem::take(&mut self.buffer);
        self.content(&rest, &mut events);
        let blanks = std::mem::take(&mut self.blanks);
        if self.content_since_call && !blanks.is_empty() {
            events.push(ToolEvent::Content(blanks));
        }
        events
    }

    /// Calls begun so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Makes progress if it can; `end` says that no more text will come.
    fn step(&mut self, end: bool, events: &mut Vec<ToolEvent>) -> bool {
        match self.state {
            State::Start => self.start(end),
            State::Text => self.text(end, events),
            State::Dropped => self.dropped(end),
            State::Opening => self.opening(end, events),
            State::Body { .. } => self.body(end, events),
            State::Closing => self.closing(end),
        }
    }

    fn start(&mut self, end: bool) -> bool {
        const TAG: &str = "<|python_tag|>";
        let text = self.buffer.trim_start();
        if !end && (text.is_empty() || (TAG.starts_with(text) && text.len() < TAG.len())) {
            return false;
        }
        let blanks = self.buffer.len() - text.len();
        self.state = if text.starts_with(TAG) {
            self.mark = self.buffer.drain(..blanks + TAG.len()).collect();
            State::Opening
        } else if text.starts_with('{') {
            let lead: String = self.buffer.drain(..blanks).collect();
            self.blanks.push_str(&lead);
            State::Opening
        } else {
            State::Text
        };
        true
    }

    fn text(&mut self, end: bool, events: &mut Vec<ToolEvent>) -> bool {
        let marks = self.format.marks();
        let found = marks
            .iter()
            .filter_map(|mark| Some((self.buffer.find(mark)?, *mark)))
            .min();
        if let Some((at, mark)) = found {
            let before: String = self.buffer.drain(..at).collect();
            self.content(&before, events);
            self.buffer.drain(..mark.len());
            // A closing mark without a call before it closes nothing.
            if mark == marks[0] {
                mark.clone_into(&mut self.mark);
                self.state = State::Opening;
            }
            return true;
        }
        let held = marks.iter().map(|mark| overlap(&self.buffer, mark)).max();
        let held = held.unwrap_or(0);
        if end && held < CERTAIN {
            let rest = std::mem::take(&mut self.buffer);
            self.content(&rest, events);
            return false;
        }
        let ready: String = self.buffer.drain(..self.buffer.len() - held).collect();
        self.content(&ready, events);
        if end {
            // A mark that the answer's end cut off.
            self.buffer.clear();
        }
        false
    }

    /// Skips what is no call.
    fn dropped(&mut self, end: bool) -> bool {
        let close = match self.format {
            ToolFormat::Hermes => "</tool_call>",
            ToolFormat::Mistral | ToolFormat::Llama3Json => {
                self.buffer.clear();
                return false;
            }
        };
        match self.buffer.find(close) {
            Some(at) => {
                self.buffer.drain(..at + close.len());
                self.state = State::Text;
                true
            }
            None => {
                let held = if end { 0 } else { overlap(&self.buffer, close) };
                self.buffer.drain(..self.buffer.len() - held);
                false
            }
        }
    }

    /// Skips what stands between the mark and the call's `{`.
    fn opening(&mut self, end: bool, events: &mut Vec<ToolEvent>) -> bool {
        loop {
            // Mistral's mark is followed by one bracket.
            let rest = self.mark.strip_prefix("[TOOL_CALLS]");
            let list = rest.is_some_and(|rest| !rest.contains('['));
            if list && self.buffer.starts_with('[') {
                const MARK: &str = "[TOOL_CALLS]";
                if self.buffer.starts_with(MARK) {
                    // The mark before this one had no call.
                    self.buffer.drain(..MARK.len());
                    MARK.clone_into(&mut self.mark);
                    continue;
                }
                if MARK.starts_with(&*self.buffer) {
                    if !end {
                        return false;
                    }
                    if self.buffer.len() >= CERTAIN {
                        self.buffer.clear();
                    }
                }
            }
            match self.buffer.chars().next() {
                Some('{') => {
                    self.state = State::Body {
                        scanner: Scanner::default(),
                        sent: None,
                    };
                    return true;
                }
                Some(c) if c.is_whitespace() || (c == '[' && list) => {
                    self.buffer.drain(..c.len_utf8());
                    self.mark.push(c);
                }
                None if !end => return false,
                _ => {
                    self.give_up(events);
                    return true;
                }
            }
        }
    }

    fn body(&mut self, end: bool, events: &mut Vec<ToolEvent>) -> bool {
        let State::Body { scanner, sent } = &mut self.state else {
            return false;
        };
        let progress = scanner.scan(&self.buffer);
        let name = scanner.name().map(str::to_owned);
        let arguments = scanner.arguments();
        if progress != Progress::Malformed
            && self.enforced
            && let (Some(name), Some(range)) = (name, arguments)
        {
            if sent.is_none() && self.names.contains(&name) {
                let index = self.calls;
                events.push(ToolEvent::CallStart { index, name });
                *sent = Some(range.start);
                self.blanks.clear();
                self.calls += 1;
            }
            if let Some(from) = sent.filter(|&from| from < range.end) {
                events.push(ToolEvent::CallArguments {
                    index: self.calls - 1,
                    fragment: self.buffer[from..range.end].to_owned(),
                });
                *sent = Some(range.end);
            }
        }
        let streaming = sent.is_some();
        match progress {
            Progress::Complete(length) => self.complete(length, streaming, events),
            Progress::Incomplete if !end => return false,
            Progress::Incomplete => self.cut(streaming, events),
            Progress::Malformed if streaming => {
                // Went wrong in spite of the grammar, after the call was announced:
                // what was passed on stands.
                self.content_since_call = false;
                self.state = State::Dropped;
            }
            Progress::Malformed => self.give_up(events),
        }
        true
    }

    /// The object is complete: a call if it is one.
    fn complete(&mut self, length: usize, streaming: bool, events: &mut Vec<ToolEvent>) {
        if !streaming {
            let Some(call) = self.read_call(&self.buffer[..length]) else {
                self.give_up(events);
                return;
            };
            let (name, fragment) = call;
            let index = self.calls;
            events.push(ToolEvent::CallStart { index, name });
            events.push(ToolEvent::CallArguments { index, fragment });
            self.calls += 1;
        }
        events.push(ToolEvent::CallEnd {
            index: self.calls - 1,
        });
        self.buffer.drain(..length);
        self.called();
        self.state = State::Closing;
    }

    /// The answer ends within the object. What is known of the call is delivered.
    fn cut(&mut self, streaming: bool, events: &mut Vec<ToolEvent>) {
        let State::Body { scanner, .. } = &self.state else {
            return;
        };
        let (name, arguments) = (scanner.name().map(str::to_owned), scanner.arguments());
        let begun = name.is_some() || scanner.names_a_tool();
        let known =
            |name: &String| !self.mark.is_empty() || self.is_call(name, arguments.is_some());
        match name.filter(known) {
            Some(name) if !streaming => {
                let index = self.calls;
                events.push(ToolEvent::CallStart { index, name });
                if let Some(range) = arguments {
                    let fragment = self.buffer[range].to_owned();
                    events.push(ToolEvent::CallArguments { index, fragment });
                }
                self.calls += 1;
            }
            None if self.mark.is_empty() && (!begun || self.declared_only) => {
                // The beginning of any object.
                self.state = State::Text;
                return;
            }
            _ => {}
        }
        self.called();
        self.buffer.clear();
        self.state = State::Text;
    }

    /// There was a call: the blanks before it were layout.
    fn called(&mut self) {
        self.blanks.clear();
        self.mark.clear();
        self.content_since_call = false;
    }

    /// Whether an object without a mark is a call.
    fn is_call(&self, name: &str, arguments: bool) -> bool {
        self.names.iter().any(|it| it == name) || (arguments && !self.declared_only)
    }

    /// Name and arguments of a complete call.
    fn read_call(&self, text: &str) -> Option<(String, String)> {
        #[derive(Deserialize)]
        struct Call<'a> {
            name: String,
            #[serde(borrow, alias = "parameters")]
            arguments: Option<&'a RawValue>,
        }
        let call: Call<'_> = serde_json::from_str(text).ok()?;
        if self.mark.is_empty() && !self.is_call(&call.name, call.arguments.is_some()) {
            return None;
        }
        let arguments = match call.arguments.map(RawValue::get) {
            None => "{}".to_owned(),
            Some(object) if object.starts_with('{') => object.to_owned(),
            // Some models write the arguments as JSON text within JSON.
            Some(other) => serde_json::from_str::<String>(other).ok().filter(|inner| {
                serde_json::from_str::<serde_json::Value>(inner).is_ok_and(|v| v.is_object())
            })?,
        };
        Some((call.name, arguments))
    }

    /// Not a call. Without a mark it is an answer in JSON; with one, what stands in an
    /// object is dropped, and anything else is text.
    fn give_up(&mut self, events: &mut Vec<ToolEvent>) {
        let mark = std::mem::take(&mut self.mark);
        let object = matches!(self.state, State::Body { .. });
        let in_list =
            self.format == ToolFormat::Mistral && self.calls > 0 && !self.content_since_call;
        self.state = match (object && !mark.is_empty()) || in_list {
            true => State::Dropped,
            false => State::Text,
        };
        if in_list {
            self.buffer.clear();
        } else if !object && !self.buffer.is_empty() {
            let skipped = self.format.marks().first();
            let skipped = skipped
                .and_then(|it| mark.strip_prefix(it))
                .unwrap_or_default();
            self.content(skipped, events);
        }
    }

    /// Skips what stands between a call and what comes next.
    fn closing(&mut self, end: bool) -> bool {
        let text = self.buffer.trim_start();
        let blanks = self.buffer.len() - text.len();
        let close = match self.format {
            ToolFormat::Hermes => "</tool_call>",
            ToolFormat::Mistral => "]",
            ToolFormat::Llama3Json => ";",
        };
        if close.starts_with(text) && text.len() < close.len() {
            // At the end it is a closing mark that was cut off.
            if end && !text.is_empty() {
                self.buffer.clear();
            }
            return false;
        }
        if text.starts_with(close) {
            self.buffer.drain(..blanks + close.len());
            self.state = match self.format {
                ToolFormat::Llama3Json => State::Opening,
                ToolFormat::Hermes | ToolFormat::Mistral => State::Text,
            };
        } else if self.format == ToolFormat::Mistral && text.starts_with(',') {
            self.buffer.drain(..=blanks);
            // Still within the list that the mark opened.
            "[TOOL_CALLS][".clone_into(&mut self.mark);
            self.state = State::Opening;
        } else if self.format == ToolFormat::Llama3Json && text.starts_with('{') {
            self.state = State::Opening;
        } else {
            self.state = State::Text;
        }
        true
    }

    fn content(&mut self, text: &str, events: &mut Vec<ToolEvent>) {
        if text.is_empty() {
            return;
        }
        self.blanks.push_str(text);
        let kept = self.blanks.trim_end().len();
        if kept > 0 {
            let rest = self.blanks.split_off(kept);
            let content = std::mem::replace(&mut self.blanks, rest);
            events.push(ToolEvent::Content(content));
            self.content_since_call = true;
        }
    }
}

/// Length of the longest end of `text` that is a proper beginning of `mark`.
fn overlap(text: &str, mark: &str) -> usize {
    (1..mark.len().min(text.len() + 1))
        .rev()
        .find(|&n| text.as_bytes().ends_with(&mark.as_bytes()[..n]))
        .unwrap_or(0)
}
