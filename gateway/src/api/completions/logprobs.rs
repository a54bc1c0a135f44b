//! `logprobs` in the older form: parallel arrays.

use indexmap::IndexMap;
use serde::Serialize;
use sluice_engine::request::SampledToken;
use sluice_engine::tokenizer::TextTokenizer;

use crate::api::logprob::finite;

/// Parallel arrays, one entry a token. The first token of an echoed prompt has no
/// log-probability: nothing comes before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    /// Always with the token itself, so that whether it was the likeliest can be
    /// read from it. Two tokens of the same text share an entry, the likelier one's.
    top_logprobs: Vec<Option<IndexMap<String, f32>>>,
    /// Where each token begins in the choice's text, in characters. A character that
    /// takes several tokens begins with each of them.
    text_offset: Vec<usize>,
}

impl Logprobs {
    /// Adds a token that begins after so many characters.
    pub(super) fn push(
        &mut self,
        tokenizer: &TextTokenizer,
        id: u32,
        evidence: Option<&SampledToken>,
        offset: usize,
    ) {
        let text = tokenizer.token_text(id);
        self.token_logprobs
            .push(evidence.map(|token| finite(token.logprob)));
        self.top_logprobs.push(evidence.map(|token| {
            let mut top = IndexMap::with_capacity(token.top.len() + 1);
            let chosen = std::iter::once((token.id, token.logprob));
            for (id, logprob) in token.top.iter().copied().chain(chosen) {
                let entry = top.entry(tokenizer.token_text(id)).or_insert(f32::MIN);
                *entry = entry.max(finite(logprob));
            }
            top
        }));
        self.tokens.push(text);
        self.text_offset.push(offset);
    }

    /// Adds what follows.
    pub(super) fn append(&mut self, mut later: Self) {
        self.tokens.append(&mut later.tokens);
        self.token_logprobs.append(&mut later.token_logprobs);
        self.top_logprobs.append(&mut later.top_logprobs);
        self.text_offset.append(&mut later.text_offset);
    }
}
