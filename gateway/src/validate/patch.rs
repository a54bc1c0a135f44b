//! Changes to bytes that pass by: what is not changed is neither copied nor read again.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memrchr;

/// The changes to one piece, made from its beginning to its end.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    out: BytesMut,
    /// What lies before has been dealt with.
    from: usize,
    touched: bool,
}

/// How far a [`Patch`] has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize, usize, bool);

impl Patch {
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.out.len(), self.from, self.touched)
    }

    /// Forgets all changes since.
    pub(crate) fn back_to(&mut self, Mark(length, from, touched): Mark) {
        self.out.truncate(length);
        (self.from, self.touched) = (from, touched);
    }

    /// Puts `with` in the place of `range` of `whole`. Ranges come in order and do not overlap.
    pub(crate) fn put(&mut self, whole: &[u8], range: Range<usize>, with: &[u8]) {
        if !self.touched {
            self.touched = true;
            self.out.reserve(whole.len() + with.len() + 64);
        }
        self.out.extend_from_slice(&whole[self.from..range.start]);
        self.out.extend_from_slice(with);
        self.from = range.end;
    }

    /// `whole` up to `end`, with the changes.
    pub(crate) fn finish(mut self, whole: &Bytes, end: usize) -> Bytes {
        if !self.touched {
            return whole.slice(..end);
        }
        // A change may reach beyond it.
        if self.from < end {
            self.out.extend_from_slice(&whole[self.from..end]);
        }
        self.out.freeze()
    }
}

/// Where `part`, which is a part of `whole`, stands in it.
pub(crate) fn span(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The member of an object whose value stands at `value`, with the comma that goes with it.
pub(crate) fn member(json: &[u8], value: Range<usize>) -> Range<usize> {
    let before = |end: usize| json[..end].trim_ascii_end();
    let colon = before(value.start).len().saturating_sub(1);
    let key_end = before(colon).len().saturating_sub(1);
    let key = memrchr(b'"', &json[..key_end]).unwrap_or(key_end);
    match before(key) {
        [start @ .., b','] => start.len()..value.end,
        _ => {
            let rest = &json[value.end..];
            let blanks = rest.len() - rest.trim_ascii_start().len();
            match rest.get(blanks) {
                Some(b',') => key..value.end + blanks + 1,
                _ => key..value.end,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn what_is_not_changed_is_not_copied() {
        let whole = Bytes::from_static(b"abcdef");
        let same = Patch::default().finish(&whole, 4);
        assert_eq!((&*same, same.as_ptr()), (&b"abcd"[..], whole.as_ptr()));
        let mut patch = Patch::default();
        patch.put(&whole, 1..2, b"XY");
        patch.put(&whole, 3..3, b"-");
        assert_eq!(patch.finish(&whole, 5), "aXYc-de");
    }

    #[test]
    fn a_member_goes_with_its_comma() {
        for (json, left) in [
            (r#"{"usage":null,"a":1}"#, r#"{"a":1}"#),
            (r#"{ "usage" : {"b":[]} , "a":1}"#, r#"{  "a":1}"#),
            (r#"{"a":"," , "usage":null}"#, r#"{"a":"," }"#),
            (
                r#"{"a":"usage","usage" :{},"b":2}"#,
                r#"{"a":"usage","b":2}"#,
            ),
            (r#"{"usage":null}"#, "{}"),
            (r#"{"\u0075sage":null,"a":1}"#, r#"{"a":1}"#),
        ] {
            #[derive(serde::Deserialize)]
            struct Fields<'a> {
                #[serde(borrow, deserialize_with = "raw")]
                usage: &'a serde_json::value::RawValue,
            }
            fn raw<'de, D: serde::Deserializer<'de>>(
                input: D,
            ) -> Result<&'de serde_json::value::RawValue, D::Error> {
                serde::Deserialize::deserialize(input)
            }
            let fields: Fields<'_> = serde_json::from_str(json).unwrap();
            let value = span(json.as_bytes(), fields.usage.get().as_bytes());
            let mut patch = Patch::default();
            patch.put(json.as_bytes(), member(json.as_bytes(), value), b"");
            let whole = Bytes::from_static(json.as_bytes());
            assert_eq!(patch.finish(&whole, whole.len()), left, "{json}");
        }
    }
}
