//! ROUGE-1, -2, -L and -Lsum, equal to `rouge_score`'s without stemming.
//!
//! Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004;
//! in detail as in Google's `rouge_score` 0.1.2, which most papers report.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::bleu::ngrams;
use super::words::RougeWords;

/// Which overlap is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RougeKind {
    /// Single words.
    #[serde(rename = "1")]
    One,
    /// Pairs of words.
    #[serde(rename = "2")]
    Two,
    /// The longest common subsequence of the whole texts.
    #[serde(rename = "l")]
    L,
    /// The union of the longest common subsequences, sentence by sentence (lines are sentences).
    #[serde(rename = "lsum")]
    Lsum,
}

/// The F-measure against the best reference, 0 to 1.
#[must_use]
pub fn rouge(output: &str, references: &[String], kind: RougeKind, words: RougeWords) -> f64 {
    references
        .iter()
        .map(|reference| match kind {
            RougeKind::One => by_ngrams(&words.tokens(reference), &words.tokens(output), 1),
            RougeKind::Two => by_ngrams(&words.tokens(reference), &words.tokens(output), 2),
            RougeKind::L => by_subsequence(&words.tokens(reference), &words.tokens(output)),
            RougeKind::Lsum => {
                by_sentences(&sentences(reference, words), &sentences(output, words))
            }
        })
        .fold(0.0, f64::max)
}

fn sentences(text: &str, words: RougeWords) -> Vec<Vec<String>> {
    text.split('\n').map(|line| words.tokens(line)).collect()
}

fn f_measure(hits: usize, reference: usize, output: usize) -> f64 {
    super::f1(
        hits as f64 / output.max(1) as f64,
        hits as f64 / reference.max(1) as f64,
    )
}

fn by_ngrams(reference: &[String], output: &[String], order: usize) -> f64 {
    let of_reference = ngrams(reference, order);
    let of_output = ngrams(output, order);
    let hits = of_reference
        .iter()
        .map(|(ngram, count)| *count.min(of_output.get(ngram).unwrap_or(&0)))
        .sum();
    let ngrams_of = |tokens: &[String]| (tokens.len() + 1).saturating_sub(order);
    f_measure(hits, ngrams_of(reference), ngrams_of(output))
}

fn by_subsequence(reference: &[String], output: &[String]) -> f64 {
    // Two rows of the table are enough for the length.
    let mut above = vec![0_usize; output.len() + 1];
    let mut row = above.clone();
    for expected in reference {
        for (j, found) in output.iter().enumerate() {
            row[j + 1] = if expected == found {
                above[j] + 1
            } else {
                above[j + 1].max(row[j])
            };
        }
        std::mem::swap(&mut above, &mut row);
    }
    f_measure(above[output.len()], reference.len(), output.len())
}

fn by_sentences(reference: &[Vec<String>], output: &[Vec<String>]) -> f64 {
    let mut left_in_reference = bag(reference);
    let mut left_in_output = bag(output);
    let mut hits = 0;
    for sentence in reference {
        let union: BTreeSet<usize> = output
            .iter()
            .flat_map(|candidate| subsequence(sentence, candidate))
            .collect();
        for index in union {
            let word = sentence[index].as_str();
            // A word counts only as often as both sides have it (ROUGE 1.5.5).
            let (Some(r), Some(o)) = (
                left_in_reference.get_mut(word),
                left_in_output.get_mut(word),
            ) else {
                continue;
            };
            if *r > 0 && *o > 0 {
                *r -= 1;
                *o -= 1;
                hits += 1;
            }
        }
    }
    let size = |sentences: &[Vec<String>]| sentences.iter().map(Vec::len).sum();
    f_measure(hits, size(reference), size(output))
}

fn bag(sentences: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut bag = HashMap::new();
    for word in sentences.iter().flatten() {
        *bag.entry(word.as_str()).or_default() += 1;
    }
    bag
}

/// Indices into `reference` of the longest common subsequence that `rouge_score`
/// reads out: where the table allows several, the choice decides the union.
fn subsequence(reference: &[String], output: &[String]) -> Vec<usize> {
    let width = output.len();
    // Of the table itself two rows are enough; of each cell only the way back is kept.
    let mut to_the_left = vec![false; reference.len() * width];
    let mut above = vec![0_usize; width + 1];
    let mut row = above.clone();
    for (i, expected) in reference.iter().enumerate() {
        for (j, found) in output.iter().enumerate() {
            to_the_left[i * width + j] = row[j] > above[j + 1];
            row[j + 1] = if expected == found {
                above[j] + 1
            } else {
                above[j + 1].max(row[j])
            };
        }
        std::mem::swap(&mut above, &mut row);
    }
    let (mut i, mut j) = (reference.len(), width);
    let mut indices = Vec::new();
    while i > 0 && j > 0 {
        if reference[i - 1] == output[j - 1] {
            indices.push(i - 1);
            i -= 1;
            j -= 1;
        } else if to_the_left[(i - 1) * width + j - 1] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    indices
}
