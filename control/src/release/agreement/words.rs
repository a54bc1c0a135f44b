//! How much two texts have in common.

use std::collections::HashMap;
use std::hash::Hash;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::evaluation::metrics::words::is_cjk;

/// The words that two texts share, and the neighbours: the mean of the F1 of both, each counted as often as it
/// occurs. 1 for texts of the same words in the same order, 0 for those without a common word.
///
/// Words are Unicode's (UAX #29) in lower case; each character of Chinese, Japanese and Korean is one. Punctuation
/// counts only where there is nothing else. The beginning and the end of a text are neighbours of its first and last
/// word. Counting neighbours is what tells "a before b" from "b before a" without an alignment, which would take
/// time that grows with the square of the length.
#[must_use]
pub fn similarity(a: &str, b: &str) -> f64 {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let (a, b) = (words(&a), words(&b));
    (overlap(a.iter().copied(), b.iter().copied()) + overlap(neighbours(&a), neighbours(&b))) / 2.0
}

/// Words of a text.
pub(super) fn count(text: &str) -> usize {
    words(text).len()
}

fn words(text: &str) -> Vec<&str> {
    let pieces = || text.split_word_bounds().flat_map(apart);
    let is_word = |piece: &&str| piece.contains(char::is_alphanumeric);
    let found: Vec<&str> = pieces().filter(is_word).collect();
    if !found.is_empty() {
        return found;
    }
    pieces().filter(|piece| !piece.trim().is_empty()).collect()
}

/// Unicode keeps Hangul and Katakana together, which have no spaces between words or long ones.
fn apart(word: &str) -> Vec<&str> {
    if !word.contains(is_cjk) {
        return vec![word];
    }
    word.split_inclusive(|_: char| true).collect()
}

fn neighbours<'a>(
    words: &'a [&'a str],
) -> impl Iterator<Item = (Option<&'a str>, Option<&'a str>)> {
    let before = std::iter::once(None).chain(words.iter().copied().map(Some));
    let after = words.iter().copied().map(Some).chain(std::iter::once(None));
    before.zip(after)
}

/// F1 of two bags.
fn overlap<T: Eq + Hash>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> f64 {
    let mut left: HashMap<T, usize> = HashMap::new();
    let (mut total, mut common) = (0_usize, 0_usize);
    for item in a {
        *left.entry(item).or_default() += 1;
        total += 1;
    }
    for item in b {
        total += 1;
        if let Some(count) = left.get_mut(&item).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if total == 0 {
        return 1.0;
    }
    2.0 * common as f64 / total as f64
}
