//! Stop strings over streamed text.
//!
//! Text that may turn out to be the beginning of a stop string is held back, so
//! that nothing of one is ever delivered; it is handed out as soon as it cannot be
//! one any more, or at the end. How the text is cut into pieces does not matter:
//! the match that is complete first wins, the longest of those if several are.

use memchr::memmem;

/// Watches a stream of text for stop strings.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    patterns: Vec<String>,
    /// The longest end of the text that is a proper beginning of some pattern.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopOutcome {
    /// Text that may be delivered now, possibly empty.
    Continue(String),
    /// A stop string is complete: the text before it, and which one it was.
    Stopped {
        /// Text to deliver before the stop string.
        text: String,
        /// The stop string.
        stop: String,
    },
}

impl StopStrings {
    /// Empty strings are ignored.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        Self {
            patterns: patterns.iter().filter(|p| !p.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Adds a piece of text.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.patterns.is_empty() {
            return StopOutcome::Continue(piece.to_owned());
        }
        if piece.is_empty() {
            return StopOutcome::Continue(String::new());
        }
        let mut text = std::mem::take(&mut self.held);
        let held = text.len();
        text.push_str(piece);
        if let Some((start, pattern)) = self.first_match(&text, held) {
            let stop = pattern.to_owned();
            text.truncate(start);
            return StopOutcome::Stopped { text, stop };
        }
        self.held = text.split_off(text.len() - self.hold_back(&text));
        StopOutcome::Continue(text)
    }

    /// Adds a piece of text in which no stop string may end, only begin. Returns what may be
    /// delivered now.
    pub fn pass(&mut self, piece: &str) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        self.held = text.split_off(text.len() - self.hold_back(&text));
        text
    }

    /// Ends the stream: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Start and pattern of the match that ends first (the longest of those), behind the `seen`
    /// first bytes.
    fn first_match(&self, text: &str, seen: usize) -> Option<(usize, &str)> {
        let find = |p: &String| {
            let from = (seen + 1).saturating_sub(p.len());
            let start = memmem::find(text.as_bytes().get(from..)?, p.as_bytes())?;
            Some(from + start)
        };
        self.patterns
            .iter()
            .filter_map(|p| Some((find(p)?, p.as_str())))
            .min_by_key(|(start, p)| (start + p.len(), *start))
    }

    /// Length of the longest end of `text` that is a proper beginning of a pattern.
    fn hold_back(&self, text: &str) -> usize {
        let longest = |p: &String| {
            (1..p.len().min(text.len() + 1))
                .rev()
                .find(|&n| text.as_bytes().ends_with(&p.as_bytes()[..n]))
        };
        self.patterns.iter().filter_map(longest).max().unwrap_or(0)
    }
}
