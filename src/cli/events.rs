//! Server-sent events as servers really write them, cut out of a byte stream.
//!
//! The line rules are those of the HTML standard, "Parsing an event stream": comments, fields
//! with and without a space, data over several lines, LF and CRLF. What is not UTF-8 is replaced
//! rather than refused, as the standard's decoder does.

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use serde_json::Value;

/// What the stream said next.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// One JSON document.
    Json(Value),
    /// `[DONE]`: nothing follows.
    Done,
}

/// Bytes in, events out.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no line end.
    searched: usize,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    /// Whether the documents are records, whose `error` is a field of theirs.
    records: bool,
}

impl EventParser {
    /// For a stream that tells of records rather than answers a request to a model.
    pub(crate) fn of_records() -> Self {
        Self {
            records: true,
            ..Self::default()
        }
    }

    /// Takes in what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event; `None` until more bytes are there.
    ///
    /// # Errors
    /// The server sent an error, or data that are not JSON.
    pub(crate) fn next(&mut self) -> Result<Option<Event>> {
        while let Some(line) = self.take_line() {
            if line.is_empty() {
                if let Some(event) = self.dispatch()? {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line);
            }
        }
        Ok(None)
    }

    /// The event that the end of the stream completes: not every server writes the last blank line.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) fn finish(&mut self) -> Result<Option<Event>> {
        self.push(b"\n\n");
        self.next()
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let fresh = &self.buffer[self.searched..];
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            // A comment has an empty name; `id` and `retry` are for clients that reconnect.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Result<Option<Event>> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let text = String::from_utf8_lossy(&data);
        if !std::mem::take(&mut self.has_data) || text.trim().is_empty() {
            return Ok(None);
        }
        if text.trim() == "[DONE]" {
            return Ok(Some(Event::Done));
        }
        let parsed = serde_json::from_str::<Value>(&text);
        let told = |value: &Value| !self.records && !value["error"].is_null();
        if name == "error" || parsed.as_ref().is_ok_and(told) {
            bail!("{}", error_message(&parsed.unwrap_or_default(), &text));
        }
        let value = parsed.context("an event is not JSON")?;
        Ok(Some(Event::Json(value)))
    }
}

/// The message in OpenAI's error object, in a bare `error` or `message`, or else all there is.
fn error_message(value: &Value, text: &str) -> String {
    let candidates = ["/error/message", "/error", "/message"];
    let mut found = candidates.iter().filter_map(|path| value.pointer(path));
    let message = found.find_map(Value::as_str);
    message.unwrap_or(text.trim()).to_owned()
}

#[cfg(test)]
mod tests;
