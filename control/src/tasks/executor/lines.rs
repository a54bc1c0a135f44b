//! Bytes of a pipe into lines, without trusting whoever writes them.

/// A longer line is cut into several.
const LONGEST: usize = 16 * 1024;

/// Puts lines together that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes, and hands out every line that they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let room = LONGEST - self.rest.len();
            let ahead = &bytes[..bytes.len().min(room)];
            // A progress bar ends its lines by going back to their start.
            let end = ahead.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let taken = end.unwrap_or(ahead.len());
            self.rest.extend_from_slice(&ahead[..taken]);
            bytes = &bytes[end.map_or(taken, |end| end + 1)..];
            if end.is_some() || self.rest.len() == LONGEST {
                self.flush(&mut line);
            }
        }
    }

    /// Hands out what is left when the pipe has ended.
    pub(super) fn flush(&mut self, mut line: impl FnMut(&str)) {
        if !self.rest.is_empty() {
            // A zero byte is text for a program and an error for PostgreSQL.
            line(&String::from_utf8_lossy(&self.rest).replace('\0', "\u{fffd}"));
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| found.push(line.to_owned()));
        }
        lines.flush(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn progress_bars_and_broken_text_are_lines() {
        assert_eq!(
            lines(&[b"10%\r20%\r\n", b"", b"a\0\xff\nlast"]),
            ["10%", "20%", "a\u{fffd}\u{fffd}", "last"]
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_arrive(text in "[a-z\n]{0,300}", cuts in proptest::collection::vec(1usize..20, 1..30)) {
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let whole: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(lines(&pieces), whole);
        }

        #[test]
        fn no_line_is_longer_than_the_limit(length in 0usize..100_000) {
            let found = lines(&[&vec![b'x'; length]]);
            prop_assert!(found.iter().all(|line| line.len() <= LONGEST));
            prop_assert_eq!(found.iter().map(String::len).sum::<usize>(), length);
        }
    }
}
