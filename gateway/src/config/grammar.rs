//! `[grammar]`: how far constrained output may grow.

use serde::{Deserialize, Serialize};
use sluice_engine::grammar::{Bounds, CompilerOptions};

use super::{Problems, human};

/// `[grammar]`: bounds for what schemas, patterns and tools leave open. What a schema bounds itself is
/// held as it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrammarConfig {
    /// Bytes of a schema, pattern or grammar; more is answered 400.
    #[serde(with = "human::size")]
    pub max_source: usize,
    /// Characters of a number, and digits in a row in a pattern.
    pub max_number: usize,
    /// Bytes of a string, and of a text under `guided_regex`.
    #[serde(with = "human::size")]
    pub max_string: usize,
    /// Characters of a string that has a `pattern`; 16 times as many where the pattern is one of any text.
    pub max_pattern: usize,
    /// Elements of an array and properties of an object.
    pub max_items: usize,
    /// Objects and arrays within each other, and rounds of a schema that refers to itself.
    pub max_depth: usize,
    /// Bytes of the whole value.
    #[serde(with = "human::size")]
    pub max_bytes: usize,
}

impl Default for GrammarConfig {
    fn default() -> Self {
        let CompilerOptions {
            max_source_bytes,
            bounds,
            ..
        } = CompilerOptions::default();
        Self {
            max_source: max_source_bytes,
            max_number: bounds.number_chars,
            max_string: bounds.string_bytes,
            max_pattern: bounds.pattern_chars,
            max_items: bounds.items,
            max_depth: bounds.depth,
            max_bytes: bounds.bytes,
        }
    }
}

impl GrammarConfig {
    /// As the engine takes it.
    #[must_use]
    pub fn options(&self) -> CompilerOptions {
        CompilerOptions {
            max_source_bytes: self.max_source,
            bounds: Bounds {
                number_chars: self.max_number,
                string_bytes: self.max_string,
                pattern_chars: self.max_pattern,
                items: self.max_items,
                depth: self.max_depth,
                bytes: self.max_bytes,
            },
            ..CompilerOptions::default()
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let fields = [
            ("max_source", self.max_source, 1, usize::MAX),
            // The longest integer that is exact in JSON has 17 characters with its sign.
            ("max_number", self.max_number, 17, 1_000),
            ("max_string", self.max_string, 1, usize::MAX),
            ("max_pattern", self.max_pattern, 1, 10_000),
            ("max_items", self.max_items, 1, usize::MAX),
            ("max_depth", self.max_depth, 2, 64),
            ("max_bytes", self.max_bytes, 1, usize::MAX),
        ];
        for (field, value, least, most) in fields {
            let message = match most {
                usize::MAX => format!("must be at least {least}"),
                _ => format!("must lie between {least} and {most}"),
            };
            let field = format!("grammar.{field}");
            problems.expect((least..=most).contains(&value), &field, &message);
        }
    }
}
