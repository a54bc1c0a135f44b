//! One choice's text, told apart into content and tool calls.

use sluice_engine::tokenizer::tools::{ToolCallParser, ToolEvent, ToolFormat};

use super::tools::Tools;

#[cfg(test)]
mod tests;

/// What a piece of a choice's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text for the user.
    Content(String),
    /// A call begins.
    CallStart {
        index: usize,
        id: String,
        name: String,
    },
    /// More of its arguments.
    CallArguments { index: usize, fragment: String },
}

/// The state of one choice.
#[derive(Debug)]
pub(super) struct Turn {
    /// `None`: all text is content.
    calls: Option<Calls>,
    opened: bool,
}

#[derive(Debug)]
struct Calls {
    parser: ToolCallParser,
    format: ToolFormat,
    /// Calls delivered at most.
    limit: usize,
    /// Calls begun so far.
    begun: usize,
}

impl Turn {
    /// All text is content, unless the request offers tools. `enforced`: a grammar
    /// makes the calls valid.
    pub(super) fn new(format: ToolFormat, tools: &Tools, enforced: bool) -> Self {
        let calls = tools.offered().then(|| Calls {
            parser: format.parser(&tools.specs, enforced),
            format,
            limit: if tools.parallel { usize::MAX } else { 1 },
            begun: 0,
        });
        Self {
            calls,
            opened: false,
        }
    }

    /// The content is JSON of a form that the request asks for.
    pub(super) fn beside_json(mut self) -> Self {
        self.calls = self.calls.map(|calls| Calls {
            parser: calls.parser.beside_json(),
            ..calls
        });
        self
    }

    /// True the first time: the choice's first chunk is to be written.
    pub(super) fn open(&mut self) -> bool {
        !std::mem::replace(&mut self.opened, true)
    }

    /// Takes a delta; `take` gets its pieces in order.
    pub(super) fn push(&mut self, text: String, mut take: impl FnMut(Piece)) {
        if text.is_empty() {
            return;
        }
        match &mut self.calls {
            None => take(Piece::Content(text)),
            Some(calls) => {
                let events = calls.parser.push(&text);
                calls.pieces(events, &mut take);
            }
        }
    }

    /// The text has ended; what was held back comes out.
    pub(super) fn finish(&mut self, mut take: impl FnMut(Piece)) {
        if let Some(calls) = &mut self.calls {
            let events = calls.parser.finish();
            calls.pieces(events, &mut take);
        }
    }

    /// `finish_reason`: a choice that called something and was not cut short ends
    /// with `tool_calls`, also when the call was forced by name.
    pub(super) fn reason(&self, word: &'static str) -> &'static str {
        match &self.calls {
            Some(calls) if word == "stop" && calls.begun > 0 => "tool_calls",
            _ => word,
        }
    }
}

impl Calls {
    fn pieces(&mut self, events: Vec<ToolEvent>, take: &mut impl FnMut(Piece)) {
        for event in events {
            match event {
                ToolEvent::Content(text) if text.is_empty() => {}
                ToolEvent::Content(text) => take(Piece::Content(text)),
                ToolEvent::CallStart { index, name } if index < self.limit => {
                    self.begun += 1;
                    let id = self.format.call_id(rand::random());
                    take(Piece::CallStart { index, id, name });
                }
                ToolEvent::CallArguments { index, fragment } if index < self.limit => {
                    take(Piece::CallArguments { index, fragment });
                }
                // With `parallel_tool_calls: false` the model's further calls are dropped.
                ToolEvent::CallStart { .. }
                | ToolEvent::CallArguments { .. }
                | ToolEvent::CallEnd { .. } => {}
            }
        }
    }
}
