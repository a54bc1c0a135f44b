//! Walks the JSON object of one tool call as its characters arrive.

use std::ops::Range;

/// Keys that a call may have at its top level; any other means that the object is
/// an answer in JSON, not a call.
const KEYS: [&str; 5] = ["name", "arguments", "parameters", "id", "type"];

/// What is known about the object so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More text is needed.
    Incomplete,
    /// Not a call, or not JSON.
    Malformed,
    /// The object ends before this byte.
    Complete(usize),
}

/// Position in the object. Only its outline is checked here; the complete object
/// is parsed as JSON afterwards.
#[derive(Debug, Clone, Default)]
pub(super) struct Scanner {
    at: usize,
    depth: usize,
    string_from: Option<usize>,
    escaped: bool,
    after_colon: bool,
    key: String,
    name: Option<String>,
    arguments_from: Option<usize>,
    arguments_to: Option<usize>,
    failed: bool,
}

impl Scanner {
    /// Scans what is new of `text`, which begins with the object's `{`.
    pub(super) fn scan(&mut self, text: &str) -> Progress {
        while !self.failed && self.at < text.len() {
            let byte = text.as_bytes()[self.at];
            match self.string_from {
                Some(from) => self.in_string(text, from, byte),
                None => self.outside(byte),
            }
            self.at += 1;
            if self.depth == 0 {
                return match self.failed {
                    false => Progress::Complete(self.at),
                    true => Progress::Malformed,
                };
            }
        }
        match self.failed {
            false => Progress::Incomplete,
            true => Progress::Malformed,
        }
    }

    /// The tool's name, once it is complete.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the object has begun to say which tool it calls.
    pub(super) fn names_a_tool(&self) -> bool {
        self.key == "name"
    }

    /// The part of the text scanned so far that belongs to the arguments object.
    pub(super) fn arguments(&self) -> Option<Range<usize>> {
        let from = self.arguments_from?;
        Some(from..self.arguments_to.unwrap_or(self.at))
    }

    fn in_string(&mut self, text: &str, from: usize, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.string_from = None;
                if self.depth == 1 {
                    self.top_level_string(&text[from..=self.at]);
                }
            }
            // JSON has no control characters in strings.
            0..0x20 => self.failed = true,
            _ => {}
        }
    }

    /// A key of the call, or its name.
    fn top_level_string(&mut self, quoted: &str) {
        let Ok(string) = serde_json::from_str::<String>(quoted) else {
            self.failed = true;
            return;
        };
        if !self.after_colon {
            self.failed = !KEYS.contains(&string.as_str());
            self.key = string;
        } else if self.key == "name" {
            self.name = Some(string);
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'"' => self.string_from = Some(self.at),
            b':' if self.depth == 1 => self.after_colon = true,
            b',' if self.depth == 1 => self.after_colon = false,
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(),
            b' ' | b'\t' | b'\r' | b'\n' | b':' | b',' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'a'..=b'z' | b'E' => {}
            _ => self.failed = true,
        }
    }

    fn open(&mut self, byte: u8) {
        let is_arguments = self.key == "arguments" || self.key == "parameters";
        if self.depth == 1 && self.after_colon && is_arguments {
            self.failed |= byte != b'{';
            self.arguments_from.get_or_insert(self.at);
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 1 && self.arguments_from.is_some() {
            self.arguments_to.get_or_insert(self.at + 1);
        }
    }
}
