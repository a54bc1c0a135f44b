//! How many rows content has, and whether they are as its schema says: what a dataset's version says of itself is
//! counted, not believed. Files are fed piece by piece; nothing but a line or a footer is held.

mod lines;
mod parquet;
mod schema;
mod separated;

pub use schema::RowSchema;

use lines::Lines;
use parquet::Parquet;
use separated::Separated;

/// How a file holds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A row a line; blank ones are none.
    JsonLines,
    /// Records as RFC 4180 has them, after a line of names.
    Separated,
    /// Apache Parquet: the footer says it.
    Parquet,
}

impl Form {
    /// By the ending of its name; `None` where rows are not counted.
    pub fn of(path: &str) -> Option<Self> {
        let ending = path.rsplit_once('.')?.1.to_ascii_lowercase();
        match ending.as_str() {
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "csv" | "tsv" => Some(Self::Separated),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// The files of an artifact whose rows are its own: the documents that lie beside them to be found (`corpus.jsonl`) are
/// none.
pub fn holding_rows<T>(files: &[T], path: impl Fn(&T) -> &str) -> Vec<(&T, Form)> {
    let all: Vec<(&T, Form)> = files
        .iter()
        .filter_map(|file| Some((file, Form::of(path(file))?)))
        .collect();
    let is_corpus = |file: &T| path(file) == "corpus.jsonl";
    match all.iter().all(|(file, _)| is_corpus(file)) {
        true => all,
        false => all.into_iter().filter(|it| !is_corpus(it.0)).collect(),
    }
}

/// The count of one file.
#[derive(Debug)]
pub enum Counter<'a> {
    Lines(Lines<'a>),
    Separated(Separated),
    Parquet(Parquet),
}

/// Rows of a file. Where nobody knows whether the first line holds names, there may be one more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    pub rows: u64,
    pub headers: u64,
}

impl Rows {
    /// Of two files together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            headers: self.headers.saturating_add(other.headers),
        }
    }

    /// Whether somebody may have counted so.
    pub fn may_be(self, said: u64) -> bool {
        (self.rows..=self.rows.saturating_add(self.headers)).contains(&said)
    }
}

impl<'a> Counter<'a> {
    /// `schema` is asked of JSON lines.
    pub fn new(form: Form, schema: Option<&'a mut RowSchema>) -> Self {
        match form {
            Form::JsonLines => Self::Lines(Lines::new(schema)),
            Form::Separated => Self::Separated(Separated::default()),
            Form::Parquet => Self::Parquet(Parquet::default()),
        }
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// A row that is not as the schema says.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), String> {
        match self {
            Self::Lines(lines) => lines.feed(piece)?,
            Self::Separated(separated) => separated.feed(piece),
            Self::Parquet(parquet) => parquet.feed(piece),
        }
        Ok(())
    }

    /// The rows; `None` where the file does not tell.
    ///
    /// # Errors
    /// A last row that is not as the schema says.
    pub fn finish(self) -> Result<Option<Rows>, String> {
        Ok(match self {
            Self::Lines(lines) => Some(Rows {
                rows: lines.finish()?,
                headers: 0,
            }),
            Self::Separated(separated) => Some(separated.finish()),
            Self::Parquet(parquet) => parquet.finish().map(|rows| Rows { rows, headers: 0 }),
        })
    }
}

#[cfg(test)]
mod tests;
