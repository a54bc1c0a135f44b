//! Comma- or tab-separated records: a line break between quotes ends none.

use super::Rows;

/// Records, blank ones left out.
#[derive(Debug, Default)]
pub struct Separated {
    records: u64,
    quoted: bool,
    holds: bool,
}

impl Separated {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            match byte {
                // A quote within quotes is doubled, and so changes nothing in the end.
                b'"' => {
                    self.quoted = !self.quoted;
                    self.holds = true;
                }
                b'\n' if !self.quoted => self.end_record(),
                byte => self.holds |= !byte.is_ascii_whitespace(),
            }
        }
    }

    fn end_record(&mut self) {
        self.records += u64::from(self.holds);
        self.holds = false;
    }

    pub(super) fn finish(mut self) -> Rows {
        self.end_record();
        Rows {
            rows: self.records.saturating_sub(1),
            headers: self.records.min(1),
        }
    }
}
