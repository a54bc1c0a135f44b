//! `logprobs` of a chat choice.

use serde::Serialize;
use sluice_engine::request::SampledToken;
use sluice_engine::tokenizer::TextTokenizer;

use crate::api::logprob::finite;

/// One token with its log-probability and the likeliest alternatives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    token: Candidate,
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Candidate {
    /// The token's text; U+FFFD where its bytes alone are not UTF-8.
    token: String,
    logprob: f32,
    /// Its bytes: those of several tokens concatenate to whole characters.
    bytes: Vec<u8>,
}

/// The entries of a delta's tokens.
pub(super) fn entries(tokenizer: &TextTokenizer, tokens: &[SampledToken]) -> Vec<Entry> {
    let candidate = |id: u32, logprob: f32| {
        let bytes = tokenizer.token_bytes(id);
        Candidate {
            token: String::from_utf8_lossy(&bytes).into_owned(),
            logprob: finite(logprob),
            bytes,
        }
    };
    let entry = |token: &SampledToken| Entry {
        token: candidate(token.id, token.logprob),
        top_logprobs: token
            .top
            .iter()
            .map(|&(id, logprob)| candidate(id, logprob))
            .collect(),
    };
    tokens.iter().map(entry).collect()
}
