//! Reading tool calls out of streamed text.

use super::{ToolFormat, ToolSpec};

/// What a piece of text meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text for the user.
    Content(String),
    /// A call begins. The caller makes up its id.
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
    /// The call is complete.
    CallEnd {
        /// Which call.
        index: usize,
    },
}

/// Separates tool calls from text. Feed it deltas; partial marks are held back.
#[derive(Debug, Clone)]
pub struct ToolCallParser {
    format: ToolFormat,
    names: Vec<String>,
}

impl ToolCallParser {
    pub(super) fn new(format: ToolFormat, tools: &[ToolSpec]) -> Self {
        Self {
            format,
            names: tools.iter().map(|t| t.name.clone()).collect(),
        }
    }

    /// Takes a piece of the answer.
    pub fn push(&mut self, piece: &str) -> Vec<ToolEvent> {
        let _ = (self.format, &self.names);
        vec![ToolEvent::Content(piece.to_owned())]
    }

    /// Ends the answer; an unfinished or malformed call is delivered as content.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        Vec::new()
    }
}
