//! What of one event a client is to see otherwise, and how that is written.

use std::ops::Range;

use super::events::field;
use super::patch::Patch;

/// A part of an event's JSON, and what takes its place.
pub(super) type Part<'a> = (Range<usize>, &'a [u8]);

/// A change to one event.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// It is left out.
    Dropped,
    /// At most two parts of its JSON, in their order.
    Parts([Option<Part<'a>>; 2]),
    /// All of its JSON, an error's; `None` leaves it.
    Whole(Option<Vec<u8>>),
}

impl Change<'_> {
    /// Makes the change to the event at `at` of `whole`, whose JSON is `json`. Where that stands
    /// in one line, `in_place` says where it begins.
    pub(super) fn make(
        &self,
        whole: &[u8],
        at: Range<usize>,
        in_place: Option<usize>,
        json: &[u8],
        patch: &mut Patch,
    ) {
        let json = match (self, in_place) {
            (Self::Dropped, _) => return patch.put(whole, at, b""),
            (Self::Whole(None), _) => return,
            (Self::Whole(Some(other)), _) => other.clone(),
            (Self::Parts(parts), Some(start)) => {
                for (range, with) in parts.iter().flatten() {
                    patch.put(whole, start + range.start..start + range.end, with);
                }
                return;
            }
            (Self::Parts([None, None]), None) => return,
            (Self::Parts(parts), None) => {
                let (mut out, mut from) = (Vec::with_capacity(json.len()), 0);
                for (range, with) in parts.iter().flatten() {
                    out.extend_from_slice(&json[from..range.start]);
                    out.extend_from_slice(with);
                    from = range.end;
                }
                out.extend_from_slice(&json[from..]);
                out
            }
        };
        let event = with_data(&whole[at.clone()], &json);
        patch.put(whole, at, &event);
    }
}

/// An event with other data: a line for each line of it, in the place of the first.
fn with_data(event: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.len() + data.len());
    let mut written = false;
    for line in event.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        if field(line, b"data").is_none() {
            out.extend_from_slice(line);
            out.push(b'\n');
        } else if !written {
            written = true;
            for part in data.split(|byte| *byte == b'\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(part);
                out.push(b'\n');
            }
        }
    }
    out.push(b'\n');
    out
}
