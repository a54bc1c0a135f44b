//! Whether two answers to one request say the same: what a copied request is good for beyond errors and time.
//! Pure, and linear in the length of the answers.
//!
//! | answers | rule | [`Agreement::how`] |
//! |---|---|---|
//! | one came, the other did not | disagree | `failed` |
//! | embeddings and other vectors | the cosine of each pair of vectors is at least [`COSINE_AGREES`] | `cosine` |
//! | scores, and labels with them | no score is off by more than [`SCORES_AGREE`] of the largest; labels are equal | `scores` |
//! | texts, equal but for white space at the ends and Unicode's composition | agree | `exact` |
//! | JSON texts or calls, equal as JSON | agree | `json` |
//! | other texts at temperature 0 | disagree | `tokens` |
//! | other texts, sampled | [`similarity`] is at least [`SAMPLED_AGREES`], and not just one of them is a refusal | `tokens` |
//!
//! Of an answer that was cut off (at `release.max_answer`, or at [`MAX_COMPARED`]) only the beginning is known: the
//! other is compared as far as that goes.

mod numbers;
mod words;

use std::borrow::Cow;

use serde_json::Value;
use sluice_gateway::release::{Class, ShadowAnswer, ShadowPair, refuses};
use unicode_normalization::{UnicodeNormalization as _, is_nfc_quick};

use crate::evaluation::metrics::json_fields::same;
pub use words::similarity;

/// Bytes of each answer that are compared. Of a longer one it is the beginning.
pub const MAX_COMPARED: usize = 256 << 10;

/// Least [`similarity`] at which two sampled texts agree. Texts about different things share some tenths of
/// their words, and hardly a pair of neighbours; two samples of one model share clearly more of both.
pub const SAMPLED_AGREES: f64 = 0.3;

/// Least cosine at which two vectors agree. A model quantised to eight bits keeps to it; another model does not.
pub const COSINE_AGREES: f64 = 0.98;

/// Largest difference at which two scores agree, as a share of the largest score of both answers.
pub const SCORES_AGREE: f64 = 0.05;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    pub agrees: bool,
    /// From 0, nothing in common, to 1, equal.
    pub similarity: f64,
    /// By which rule: a word of the table above.
    pub how: &'static str,
    /// The candidate's length divided by stable's, in generated tokens, or in words where those are unknown. `None`
    /// where one is empty or cut off, or there is no text.
    pub length: Option<f64>,
    /// Stable's answer is a refusal, as far as its opening tells.
    pub live_refuses: bool,
    /// The candidate's is.
    pub candidate_refuses: bool,
}

impl Agreement {
    const fn new(agrees: bool, similarity: f64, how: &'static str) -> Self {
        Self {
            agrees,
            similarity,
            how,
            length: None,
            live_refuses: false,
            candidate_refuses: false,
        }
    }

    /// One of the two is a refusal, and the other is none.
    #[must_use]
    pub const fn refusal_drifts(&self) -> bool {
        self.live_refuses != self.candidate_refuses
    }
}

/// Compares the two answers of a pair. `None` where there is nothing to compare: both failed, or what was kept of
/// them cannot be read.
#[must_use]
pub fn compare(pair: &ShadowPair) -> Option<Agreement> {
    match (answered(&pair.live), answered(&pair.candidate)) {
        (false, false) => return None,
        (true, true) => {}
        (true, false) | (false, true) => return Some(Agreement::new(false, 0.0, "failed")),
    }
    let known = Known::of(&pair.live, &pair.candidate);
    if pair.kind.is_generation() {
        return (!known.is_unread()).then(|| texts(pair, &known));
    }
    match numbers::compare(known.live, known.candidate, known.cut) {
        numbers::Found::Numbers(agreement) => Some(agreement),
        numbers::Found::Unreadable => None,
        numbers::Found::None => Some(texts(pair, &known)),
    }
}

/// A refusal of the request (4xx) is no answer either: the other revision has answered it.
fn answered(answer: &ShadowAnswer) -> bool {
    answer.class == Class::Answered && answer.status < 400
}

/// As much of both answers as is known of both.
struct Known<'a> {
    live: &'a str,
    candidate: &'a str,
    /// One of them goes on.
    cut: bool,
}

impl<'a> Known<'a> {
    fn of(live: &'a ShadowAnswer, candidate: &'a ShadowAnswer) -> Self {
        let (live, candidate) = (Beginning::of(live), Beginning::of(candidate));
        let ends = [&live, &candidate].map(|it| (!it.whole).then_some(it.text.len()));
        let end = ends.into_iter().flatten().min();
        let until = end.unwrap_or(usize::MAX);
        Self {
            live: beginning(live.text, until),
            candidate: beginning(candidate.text, until),
            cut: end.is_some(),
        }
    }

    /// The beginning of a JSON document that was to be read as one, and could not be.
    fn is_unread(&self) -> bool {
        let is = |text: &str| text.starts_with('{') && text.contains("\"choices\"");
        self.cut && (is(self.live) || is(self.candidate))
    }
}

struct Beginning<'a> {
    text: &'a str,
    whole: bool,
}

impl<'a> Beginning<'a> {
    fn of(answer: &'a ShadowAnswer) -> Self {
        let text = beginning(&answer.text, MAX_COMPARED);
        Self {
            text,
            whole: answer.whole && text.len() == answer.text.len(),
        }
    }
}

/// At most `bytes` of a text, in whole characters.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn texts(pair: &ShadowPair, known: &Known<'_>) -> Agreement {
    let (live, candidate) = (normal(known.live), normal(known.candidate));
    let (live_refuses, candidate_refuses) = (refuses(&live), refuses(&candidate));
    let found = match equal(&live, &candidate, known.cut) {
        Some(how) => Agreement::new(true, 1.0, how),
        None => {
            let similarity = similarity(&live, &candidate);
            let similar = similarity >= SAMPLED_AGREES && live_refuses == candidate_refuses;
            Agreement::new(!pair.greedy && similar, similarity, "tokens")
        }
    };
    Agreement {
        length: (!known.cut)
            .then(|| length(pair, &live, &candidate))
            .flatten(),
        live_refuses,
        candidate_refuses,
        ..found
    }
}

fn normal(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    match is_nfc_quick(text.chars()) {
        unicode_normalization::IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    }
}

fn equal(live: &str, candidate: &str, cut: bool) -> Option<&'static str> {
    if live == candidate {
        return Some("exact");
    }
    if cut {
        return None;
    }
    let (live, candidate) = (document(live)?, document(candidate)?);
    same(&live, &candidate).then_some("json")
}

/// A text that is one JSON object or list, or nothing but calls.
fn document(text: &str) -> Option<Value> {
    if text.starts_with(['{', '[']) {
        serde_json::from_str(text).ok()
    } else {
        calls(text)
    }
}

/// `name(JSON)`, one below the other, as [`ShadowAnswer::text`] has the calls of an answer.
fn calls(text: &str) -> Option<Value> {
    let mut calls = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, arguments) = rest.split_once('(')?;
        let is_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(arguments).into_iter::<Value>();
        let value = values.next()?.ok()?;
        rest = arguments
            .get(values.byte_offset()..)?
            .trim_start()
            .strip_prefix(')')?;
        rest = rest.trim_start();
        calls.push(Value::from(vec![Value::from(name), value]));
    }
    (!calls.is_empty()).then_some(Value::Array(calls))
}

fn length(pair: &ShadowPair, live: &str, candidate: &str) -> Option<f64> {
    let counted = [pair.live.output_tokens, pair.candidate.output_tokens];
    let [live, candidate] = match counted {
        [live, candidate] if live > 0 && candidate > 0 => [live, candidate],
        _ => [words::count(live), words::count(candidate)],
    };
    (live > 0 && candidate > 0).then(|| candidate as f64 / live as f64)
}

#[cfg(test)]
pub(crate) mod tests;
