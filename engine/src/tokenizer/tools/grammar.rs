//! Grammars that make tool calls hold with any weights.

use super::{ToolChoice, ToolFormat, ToolSpec};
use crate::grammar::GrammarSpec;

pub(super) fn forced(
    _format: ToolFormat,
    _tools: &[ToolSpec],
    _choice: &ToolChoice,
    _parallel: bool,
) -> Option<GrammarSpec> {
    None
}

pub(super) fn strict(
    _format: ToolFormat,
    _tools: &[ToolSpec],
    _parallel: bool,
) -> Option<GrammarSpec> {
    None
}
