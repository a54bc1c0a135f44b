//! Answers of numbers: embeddings, scores, probabilities. Read by their structure, so that every API's form will do.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Agreement, COSINE_AGREES, SCORES_AGREE};

/// What is found in two answers.
pub(super) enum Found {
    Numbers(Agreement),
    /// Both are JSON, and there are no numbers in them: compare the texts.
    None,
    /// What was kept cannot be read.
    Unreadable,
}

/// Fields that tell of the request or of who answered, and not of the answer.
const ASIDE: [&str; 11] = [
    "id",
    "object",
    "model",
    "model_name",
    "model_version",
    "created",
    "usage",
    "meta",
    "index",
    "shape",
    "num_classes",
];

/// Compares two JSON answers; of one that was cut off, the numbers in the beginning.
pub(super) fn compare(live: &str, candidate: &str, cut: bool) -> Found {
    if cut {
        let (live, candidate) = (fractions(live), fractions(candidate));
        // The last one may be cut in the middle.
        let known = live.len().min(candidate.len()).saturating_sub(1);
        if known < 2 {
            return Found::Unreadable;
        }
        let cosine = cosine(&live[..known], &candidate[..known]);
        return Found::Numbers(Agreement::new(cosine >= COSINE_AGREES, cosine, "cosine"));
    }
    let (Ok(live), Ok(candidate)) = (serde_json::from_str(live), serde_json::from_str(candidate))
    else {
        return Found::None;
    };
    let (live, candidate) = (Numbers::of(&live), Numbers::of(&candidate));
    if live.is_empty() && candidate.is_empty() {
        return Found::None;
    }
    Found::Numbers(live.compare(&candidate))
}

/// The numbers of an answer, by what they are.
#[derive(Debug, Default)]
struct Numbers {
    vectors: Vec<Vec<f64>>,
    /// Single numbers by their place, all items of a list together.
    scores: BTreeMap<String, Vec<f64>>,
    /// Labels and what else there is.
    words: Vec<String>,
}

impl Numbers {
    fn of(answer: &Value) -> Self {
        let mut found = Self::default();
        found.take(answer, "");
        found
    }

    fn is_empty(&self) -> bool {
        self.vectors.is_empty() && self.scores.is_empty()
    }

    /// serde_json's own limit bounds the depth.
    fn take(&mut self, value: &Value, place: &str) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields
                    .iter()
                    .filter(|(name, _)| !ASIDE.contains(&name.as_str()))
                {
                    match (name.as_str(), value) {
                        ("embedding", Value::String(text)) => match packed(text) {
                            Some(vector) => self.vectors.push(vector),
                            None => self.words.push(text.clone()),
                        },
                        _ => self.take(value, &format!("{place}/{name}")),
                    }
                }
            }
            Value::Array(items) => match vector(items) {
                Some(vector) => self.vectors.push(vector),
                None => self.take_list(items, &format!("{place}/*")),
            },
            Value::Number(number) => {
                let score = number.as_f64().unwrap_or_default();
                self.scores.entry(place.to_owned()).or_default().push(score);
            }
            Value::String(text) => self.words.push(text.clone()),
            Value::Bool(_) | Value::Null => self.words.push(value.to_string()),
        }
    }

    /// Results that are sorted by score come in another order when a score moves a little: the request's order counts.
    fn take_list(&mut self, items: &[Value], place: &str) {
        let mut items: Vec<&Value> = items.iter().collect();
        items.sort_by_key(|item| item.get("index").and_then(Value::as_u64));
        for item in items {
            self.take(item, place);
        }
    }

    fn compare(&self, other: &Self) -> Agreement {
        let how = if self.vectors.is_empty() {
            "scores"
        } else {
            "cosine"
        };
        let lengths = |it: &Self| it.vectors.iter().map(Vec::len).collect::<Vec<_>>();
        let counts = |it: &Self| {
            let counts = it
                .scores
                .iter()
                .map(|(place, scores)| (place.clone(), scores.len()));
            counts.collect::<Vec<_>>()
        };
        if lengths(self) != lengths(other)
            || counts(self) != counts(other)
            || self.words.len() != other.words.len()
        {
            return Agreement::new(false, 0.0, how);
        }
        let least = |least: f64, next: f64| least.min(next);
        let vectors = self.vectors.iter().zip(&other.vectors);
        let vectors = vectors.map(|(a, b)| cosine(a, b)).fold(1.0, least);
        let scores = self.scores.values().zip(other.scores.values());
        let scores = scores.map(|(a, b)| 1.0 - difference(a, b)).fold(1.0, least);
        let same = self
            .words
            .iter()
            .zip(&other.words)
            .filter(|(a, b)| a == b)
            .count();
        let words = if self.words.is_empty() {
            1.0
        } else {
            same as f64 / self.words.len() as f64
        };
        let agrees =
            vectors >= COSINE_AGREES && scores >= 1.0 - SCORES_AGREE && same == self.words.len();
        Agreement::new(agrees, vectors.min(scores).min(words), how)
    }
}

/// A list of two numbers or more.
fn vector(items: &[Value]) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = items.iter().map(Value::as_f64).collect();
    numbers.filter(|numbers| numbers.len() > 1)
}

/// Little-endian single-precision numbers in base64, which OpenAI's Python client asks for.
fn packed(text: &str) -> Option<Vec<f64>> {
    let bytes = STANDARD.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    let all_finite = |numbers: &Vec<f64>| numbers.iter().all(|number| number.is_finite());
    let numbers = numbers
        .iter()
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect();
    Some(numbers).filter(|numbers| rest.is_empty() && all_finite(numbers))
}

/// From 0, at right angles or opposite, to 1, of one direction.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    // Scaled first, so that no square overflows.
    let largest = |numbers: &[f64]| {
        numbers
            .iter()
            .fold(0.0_f64, |largest, it| largest.max(it.abs()))
    };
    let (of_a, of_b) = (largest(a), largest(b));
    if of_a == 0.0 || of_b == 0.0 {
        return if of_a == of_b { 1.0 } else { 0.0 };
    }
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a / of_a, b / of_b);
        product += a * b;
        square_a += a * a;
        square_b += b * b;
    }
    (product / (square_a.sqrt() * square_b.sqrt())).clamp(0.0, 1.0)
}

/// The largest difference as a share of the largest number; at most 1.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let both = a.iter().chain(b);
    let largest = both.fold(0.0_f64, |largest, it| largest.max(it.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let apart = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a / largest - b / largest).abs());
    apart.fold(0.0_f64, f64::max).min(1.0)
}

/// Numbers with a fraction or an exponent, outside of strings: counts and places have none.
fn fractions(text: &str) -> Vec<f64> {
    let outside = text.split('"').step_by(2);
    let pieces = outside
        .flat_map(|piece| piece.split([',', '[', ']', '{', '}', ':', ' ', '\n', '\r', '\t']));
    pieces
        .filter(|piece| piece.contains(['.', 'e', 'E']))
        .filter_map(|piece| piece.parse().ok())
        .filter(|number: &f64| number.is_finite())
        .collect()
}
