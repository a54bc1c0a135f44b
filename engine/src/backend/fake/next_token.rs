//! Which token the fake backend makes likeliest after a history.

use std::sync::Arc;

/// How the next token follows from the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeTokens {
    /// A hash of the whole history, in `low..high`. Without a token that the
    /// caller treats as end-of-sequence in that range, sequences run to their
    /// length limit.
    Hash {
        /// Smallest token id.
        low: u32,
        /// One past the largest token id.
        high: u32,
    },
    /// As `Hash`, but about one token in `one_in` is `eos`.
    HashWithEnd {
        /// Smallest token id.
        low: u32,
        /// One past the largest token id.
        high: u32,
        /// The end-of-sequence token.
        eos: u32,
        /// Mean length of a sequence.
        one_in: u32,
    },
    /// After any prompt these tokens in order, then `end` (and, where that does not
    /// end the sequence, the script from its beginning). The place in
    /// the script is found from the history (the longest beginning of the script
    /// that the history ends with), so a prompt should not end like the script
    /// begins.
    Script {
        /// Token ids, for example the bytes of a text.
        tokens: Arc<[u32]>,
        /// Usually end-of-sequence.
        end: u32,
    },
}

impl FakeTokens {
    /// A script of the bytes of `text`, for byte-level vocabularies whose first
    /// 256 ids are the bytes.
    #[must_use]
    pub fn text(text: &str, end: u32) -> Self {
        Self::Script {
            tokens: text.bytes().map(u32::from).collect(),
            end,
        }
    }
}

/// The token that follows `history` (every cell of the slot, oldest first).
/// Public, so that tests can tell what a sequence must be.
#[must_use]
pub fn next_token(tokens: &FakeTokens, vocab: u32, history: &[u32]) -> u32 {
    let pick = |low: u32, high: u32, hash: u64| {
        let high = high.min(vocab);
        let low = low.min(high.saturating_sub(1));
        low + (hash % u64::from((high - low).max(1))) as u32
    };
    match tokens {
        FakeTokens::Hash { low, high } => pick(*low, *high, hash(history)),
        FakeTokens::HashWithEnd {
            low,
            high,
            eos,
            one_in,
        } => {
            let hash = hash(history);
            if (hash >> 32).is_multiple_of(u64::from((*one_in).max(1))) {
                *eos
            } else {
                pick(*low, *high, hash)
            }
        }
        FakeTokens::Script { tokens, end } => {
            let place = (0..=tokens.len().min(history.len()))
                .rev()
                .find(|&n| history.ends_with(&tokens[..n]))
                .unwrap_or(0);
            tokens.get(place).copied().unwrap_or(*end)
        }
    }
}

/// FNV-1a over the token ids, finished by `splitmix64`'s mixer.
fn hash(history: &[u32]) -> u64 {
    let folded = history
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &token| {
            (hash ^ u64::from(token)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
