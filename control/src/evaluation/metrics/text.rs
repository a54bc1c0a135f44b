//! Exact match and token F1, with the normalisations people mean by them.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::words;

/// What two texts may differ in and still be the same answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Byte for byte.
    #[default]
    None,
    /// Runs of white space are one space; none at either end.
    Whitespace,
    /// SQuAD's: lower case, no ASCII punctuation, no English articles, white space as above.
    Squad,
}

impl Normalisation {
    #[must_use]
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Whitespace => join_words(text),
            Self::Squad => squad(text),
        }
    }
}

/// `normalize_answer` of SQuAD's official `evaluate-v1.1.py` (Rajpurkar et al., 2016).
fn squad(text: &str) -> String {
    static ARTICLES: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\b(?:a|an|the)\b").ok());
    let bare: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    match ARTICLES.as_ref() {
        Some(articles) => join_words(&articles.replace_all(&bare, " ")),
        None => join_words(&bare),
    }
}

fn join_words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// 1 when the output equals any reference after `normalisation`, else 0.
#[must_use]
pub fn exact_match(output: &str, references: &[String], normalisation: Normalisation) -> f64 {
    let output = normalisation.apply(output);
    let matched = references
        .iter()
        .any(|reference| normalisation.apply(reference) == output);
    f64::from(u8::from(matched))
}

/// SQuAD's F1 over the bag of normalised tokens; the best of the references.
///
/// As SQuAD 2.0 has it, two empty answers agree and one empty answer does not.
/// `cjk` makes each character of Chinese, Japanese and Korean a token, as white
/// space does not separate words there.
#[must_use]
pub fn token_f1(output: &str, references: &[String], cjk: bool) -> f64 {
    let output = tokens(output, cjk);
    references
        .iter()
        .map(|reference| bag_f1(&output, &tokens(reference, cjk)))
        .fold(0.0, f64::max)
}

fn tokens(text: &str, cjk: bool) -> Vec<String> {
    let text = squad(text);
    if cjk { words::spaced_cjk(&text) } else { text }
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn bag_f1(output: &[String], reference: &[String]) -> f64 {
    if output.is_empty() || reference.is_empty() {
        return f64::from(u8::from(output.is_empty() && reference.is_empty()));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for token in reference {
        *left.entry(token).or_default() += 1;
    }
    let mut common = 0_usize;
    for token in output {
        if let Some(count) = left.get_mut(token.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    super::f1(
        common as f64 / output.len() as f64,
        common as f64 / reference.len() as f64,
    )
}
