//! JSON lines.

use super::RowSchema;

/// Longest line that is held to be looked into; a longer one counts, and is not looked into.
const LONGEST: usize = 16 << 20;

/// Lines that hold more than blanks.
#[derive(Debug)]
pub struct Lines<'a> {
    rows: u64,
    /// The line so far holds something.
    holds: bool,
    /// The line so far, where it is looked into.
    line: Vec<u8>,
    too_long: bool,
    schema: Option<&'a mut RowSchema>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(schema: Option<&'a mut RowSchema>) -> Self {
        Self {
            rows: 0,
            holds: false,
            line: Vec::new(),
            too_long: false,
            schema,
        }
    }

    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), String> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.holds |= part.iter().any(|byte| !byte.is_ascii_whitespace());
            if self.schema.is_some() {
                self.too_long |= self.line.len() + part.len() > LONGEST;
                if self.too_long {
                    self.line.clear();
                } else {
                    self.line.extend_from_slice(part);
                }
            }
            if part.ends_with(b"\n") {
                self.end_line()?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), String> {
        if self.holds {
            self.rows += 1;
            if let Some(schema) = self.schema.as_mut().filter(|_| !self.too_long) {
                schema.look(self.rows, &self.line)?;
            }
        }
        self.holds = false;
        self.too_long = false;
        self.line.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<u64, String> {
        self.end_line()?;
        Ok(self.rows)
    }
}
