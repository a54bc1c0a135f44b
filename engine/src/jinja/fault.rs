//! What can go wrong in a template.

/// Why a template could not be compiled or rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// It is not Jinja.
    Syntax,
    /// An expression failed, as the same one does in Jinja2 (a type error, an undefined value).
    Failed,
    /// It called `raise_exception`; the message is the template author's.
    Raised,
    /// It takes more steps, memory or levels than it may.
    TooMuch,
}

/// An error of a template, with the line on which it came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind it is of.
    pub kind: FaultKind,
    /// What happened, in Python's words where Python has some.
    pub message: String,
    /// Line of the template, from 1.
    pub line: Option<u32>,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            line: None,
        }
    }

    pub(super) fn syntax(message: impl Into<String>, line: u32) -> Self {
        Self {
            line: Some(line),
            ..Self::new(FaultKind::Syntax, message)
        }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Failed, message)
    }

    pub(super) fn too_much(message: impl Into<String>) -> Self {
        Self::new(FaultKind::TooMuch, message)
    }

    /// Says where, unless a place further inside has said so.
    pub(super) fn at(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// The outcome of every step of a rendering.
pub(super) type Out<T> = Result<T, Fault>;
