//! Printing: tables for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde::Serialize;

/// `-o`: how a verb prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document on standard output.
    Json,
}

/// `-o` of verbs whose result is a record or a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Shape {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document on standard output.
    Json,
    /// One YAML document on standard output.
    Yaml,
}

impl Shape {
    /// Prints a document for programs; `false` where a table is asked for.
    pub(crate) fn document(self, value: &impl Serialize) -> Result<bool> {
        match self {
            Self::Table => return Ok(false),
            Self::Json => json(value)?,
            Self::Yaml => fragment(&serde_norway::to_string(value)?)?,
        }
        Ok(true)
    }
}

/// Writes one line to standard output. A closed pipe (`sluice models | head`)
/// is an ordinary way to end, not an error worth a backtrace.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    Ok(())
}

/// Writes without a newline and flushes: a token of a streamed answer.
pub(crate) fn fragment(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a remark to standard error, so that standard output stays clean.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nothing sensible is left to do when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Overwrites the current line of standard error when it is a terminal.
pub(crate) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[2K{text}");
        let _ = err.flush();
    }
}

/// Prints `value` as pretty JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints rows under headings, columns padded to their widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell));
            cells.fold(width(heading), usize::max)
        })
        .collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| -> Result<()> {
        let mut text = String::new();
        for (cell, wide) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(
                ' ',
                wide.saturating_sub(width(cell)) + 2,
            ));
        }
        line(text.trim_end())
    };
    print(&mut headings.iter().copied())?;
    rows.iter()
        .try_for_each(|row| print(&mut row.iter().map(String::as_str)))
}

/// Terminal columns of a string: wide for CJK and full-width forms.
pub(crate) fn width(text: &str) -> usize {
    let wide = |c: char| matches!(c as u32, 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}
