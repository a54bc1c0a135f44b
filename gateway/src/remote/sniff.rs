//! Tokens and finish reason of an answer that only passes by.
//!
//! The last pieces are kept (by reference, not copied) and read once, at the
//! end. Nothing is parsed while bytes are under way.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use sluice_engine::request::{FinishReason, Usage};

/// Pieces kept: the last event is `[DONE]`, the one before holds the usage.
const KEPT: usize = 4;
/// Of these, bytes looked at: a usage object and what stands around it.
const LOOKED_AT: usize = 8 << 10;

/// What an answer said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sniffed {
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<FinishReason>,
}

/// Collects the end of a body.
#[derive(Debug, Default)]
pub(super) struct Sniffer {
    last: [Bytes; KEPT],
    next: usize,
}

impl Sniffer {
    /// Takes note of a piece.
    pub(super) fn observe(&mut self, piece: &Bytes) {
        self.last[self.next] = piece.clone();
        self.next = (self.next + 1) % KEPT;
    }

    /// What the end says. A stream without usage is counted by its `events`: about
    /// one token each, but for the role before and the finish after.
    pub(super) fn finish(&self, events: usize) -> Sniffed {
        let mut tail = Vec::new();
        for index in 0..KEPT {
            tail.extend_from_slice(&self.last[(self.next + index) % KEPT]);
        }
        let tail = &tail[tail.len().saturating_sub(LOOKED_AT)..];
        let usage = usage(tail).or_else(|| {
            (events > 0).then(|| Usage {
                completion: events.saturating_sub(2),
                ..Usage::default()
            })
        });
        Sniffed {
            usage,
            finish: finish_reason(tail),
        }
    }
}

fn usage(tail: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        prompt_tokens: usize,
        #[serde(default)]
        completion_tokens: usize,
        prompt_tokens_details: Option<Details>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        cached_tokens: usize,
    }
    const KEY: &[u8] = b"\"usage\":";
    // The last one that is an object: chunks before the last say `null`.
    memmem::rfind(tail, KEY)
        .into_iter()
        .chain(
            memmem::find_iter(tail, KEY)
                .collect::<Vec<_>>()
                .into_iter()
                .rev(),
        )
        .find_map(|at| {
            let value = &tail[at + KEY.len()..];
            let fields = serde_json::Deserializer::from_slice(value)
                .into_iter::<Fields>()
                .next()?
                .ok()?;
            Some(Usage {
                prompt: fields.prompt_tokens,
                completion: fields.completion_tokens,
                cached: fields
                    .prompt_tokens_details
                    .map_or(0, |details| details.cached_tokens),
            })
        })
}

fn finish_reason(tail: &[u8]) -> Option<FinishReason> {
    const KEY: &[u8] = b"\"finish_reason\":";
    let reasons: Vec<usize> = memmem::find_iter(tail, KEY).collect();
    reasons.into_iter().rev().find_map(|at| {
        let value = tail[at + KEY.len()..].trim_ascii_start();
        let value = value.strip_prefix(b"\"")?;
        match &value[..memchr::memchr(b'"', value)?] {
            b"length" => Some(FinishReason::Length),
            b"abort" => Some(FinishReason::Cancelled),
            _ => Some(FinishReason::Stop),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sniff(pieces: &[&str], events: usize) -> Sniffed {
        let mut sniffer = Sniffer::default();
        for piece in pieces {
            sniffer.observe(&Bytes::copy_from_slice(piece.as_bytes()));
        }
        sniffer.finish(events)
    }

    #[test]
    fn usage_of_a_whole_answer() {
        let body = r#"{"choices":[{"message":{"content":"\"usage\": no"},"finish_reason":"length"}],
            "usage": {"prompt_tokens":20,"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":16}}}"#;
        let sniffed = sniff(&[body], 0);
        assert_eq!(
            sniffed.usage,
            Some(Usage {
                prompt: 20,
                cached: 16,
                completion: 64
            })
        );
        assert_eq!(sniffed.finish, Some(FinishReason::Length));
    }

    #[test]
    fn usage_of_a_stream_and_across_pieces() {
        let sniffed = sniff(
            &[
                "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tok",
                "ens\":3,\"completion_tokens\":5}}\n\n",
                "data: [DONE]\n\n",
            ],
            2,
        );
        assert_eq!(
            sniffed.usage,
            Some(Usage {
                prompt: 3,
                cached: 0,
                completion: 5
            })
        );
        assert_eq!(sniffed.finish, Some(FinishReason::Stop));
    }

    #[test]
    fn a_stream_without_usage_is_counted_by_its_events() {
        let event =
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
        let sniffed = sniff(&[role, event, event, event, end, "data: [DONE]\n\n"], 5);
        assert_eq!(sniffed.usage.map(|usage| usage.completion), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn rubbish_is_survived(pieces in proptest::collection::vec(proptest::collection::vec(0_u8..255, 0..100), 0..8)) {
            let mut sniffer = Sniffer::default();
            for piece in pieces {
                let mut bytes = b"\"usage\":{\"finish_reason\":".to_vec();
                bytes.extend(piece);
                sniffer.observe(&bytes.into());
            }
            _ = sniffer.finish(3);
        }
    }
}
