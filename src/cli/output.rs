//! Printing: tables for people, JSON for programs.
//!
//! What is printed was written by others: names, descriptions, reasons, logs, answers of models. Characters that would
//! command the terminal, or let a line read as another, are shown escaped, here and so in every verb.

use std::borrow::Cow;
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
            Self::Yaml => yaml(&serde_norway::to_string(value)?)?,
        }
        Ok(true)
    }
}

/// Writes one line to standard output. A closed pipe (`sluice models | head`)
/// is an ordinary way to end, not an error worth a backtrace.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", visible(text.as_ref()))?;
    Ok(())
}

/// Writes a document that a program may read again: exactly, unless it goes to a terminal. YAML itself escapes what
/// commands one, but not what turns the direction of text.
fn yaml(text: &str) -> Result<()> {
    if io::stdout().is_terminal() {
        return fragment(text);
    }
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Writes without a newline and flushes: a token of a streamed answer.
pub(crate) fn fragment(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(visible(text).as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a remark to standard error, so that standard output stays clean.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nothing sensible is left to do when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}", visible(text.as_ref()));
}

/// Overwrites the current line of standard error when it is a terminal.
pub(crate) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[2K{}", in_one_line(text));
        let _ = err.flush();
    }
}

/// A bar that is full at 1, and the percentage.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a bar"
)]
pub(crate) fn bar(fraction: f64) -> String {
    const WIDE: usize = 24;
    let fraction = fraction.clamp(0.0, 1.0);
    let full = (fraction * WIDE as f64).round() as usize;
    format!(
        "[{}{}] {:3.0} %",
        "█".repeat(full),
        "·".repeat(WIDE - full),
        fraction * 100.0
    )
}

/// Prints `value` as pretty JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints rows under headings, columns padded to their widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    // Before they are measured: an escape is wider than what it stands for.
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| in_one_line(cell)).collect())
        .collect();
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
        .try_for_each(|row| print(&mut row.iter().map(AsRef::as_ref)))
}

/// Whether a terminal takes a character as a command, or people would read something else than is written: control
/// characters (also the 8-bit ones), overrides of direction, characters that are not seen, and separators of lines.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
                | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text as it may be printed: lines and tabs as they are, what commands a terminal as JSON escapes it (`\u001b`). So a
/// JSON document still says the same.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// The same where a line must not become two.
pub(crate) fn in_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Terminal columns of a string: wide for CJK and full-width forms.
pub(crate) fn width(text: &str) -> usize {
    let wide = |c: char| matches!(c as u32, 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests;
