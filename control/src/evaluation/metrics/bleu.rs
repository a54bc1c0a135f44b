//! BLEU and chrF, equal to sacreBLEU's.
//!
//! Neither is a mean over samples: a corpus score is a function of counts that
//! add up ([`BleuCounts`], [`ChrfCounts`]). The counts are kept per sample, so
//! that a bootstrap resample costs an addition and not a new count of n-grams.

use std::collections::HashMap;
use std::hash::Hash;

use super::words::BleuTokenizer;

const BLEU_ORDER: usize = 4;
const CHRF_ORDER: usize = 6;
/// chrF weighs recall `BETA` times as much as precision.
const BETA: f64 = 2.0;

/// What BLEU needs to know of one sample or, summed, of a corpus.
///
/// Whole numbers held as `f64`, for sums and resampling weights are exact up to 2⁵³.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BleuCounts {
    pub output_length: f64,
    pub reference_length: f64,
    /// Matched n-grams, clipped by the references; n from 1.
    pub correct: [f64; BLEU_ORDER],
    /// N-grams of the output.
    pub total: [f64; BLEU_ORDER],
}

impl BleuCounts {
    /// Counts of one output against its references (Papineni et al., 2002, section 2).
    #[must_use]
    pub fn of(output: &str, references: &[String], tokenizer: BleuTokenizer) -> Self {
        let output = tokenizer.tokens(output);
        let references: Vec<_> = references.iter().map(|r| tokenizer.tokens(r)).collect();
        let mut counts = Self {
            output_length: output.len() as f64,
            reference_length: closest_length(output.len(), &references) as f64,
            ..Self::default()
        };
        for order in 0..BLEU_ORDER {
            let mut most: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (ngram, count) in ngrams(reference, order + 1) {
                    let known = most.entry(ngram).or_default();
                    *known = count.max(*known);
                }
            }
            for (ngram, count) in ngrams(&output, order + 1) {
                counts.total[order] += count as f64;
                let matched = most.get(ngram).copied().unwrap_or(0).min(count);
                counts.correct[order] += matched as f64;
            }
        }
        counts
    }

    pub(crate) fn add(&mut self, other: &Self, weight: f64) {
        self.output_length += weight * other.output_length;
        self.reference_length += weight * other.reference_length;
        for order in 0..BLEU_ORDER {
            self.correct[order] += weight * other.correct[order];
            self.total[order] += weight * other.total[order];
        }
    }

    /// The corpus score, 0 to 100, with exponential smoothing (sacreBLEU's default;
    /// Post, 2018; smoothing 3 of Chen & Cherry, 2014).
    #[must_use]
    pub fn corpus(&self) -> f64 {
        self.score(false)
    }

    /// The score of one sentence, 0 to 100: n-gram orders longer than the output are
    /// left out (sacreBLEU's `sentence_bleu`, effective order).
    #[must_use]
    pub fn sentence(&self) -> f64 {
        self.score(true)
    }

    fn score(&self, effective_order: bool) -> f64 {
        if self.correct.iter().all(|correct| *correct == 0.0) {
            return 0.0;
        }
        let orders = self.total.iter().take_while(|total| **total > 0.0).count();
        if orders < BLEU_ORDER && !effective_order {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut logs = 0.0;
        for order in 0..orders {
            let precision = if self.correct[order] == 0.0 {
                smoothing *= 2.0;
                100.0 / (smoothing * self.total[order])
            } else {
                100.0 * self.correct[order] / self.total[order]
            };
            logs += precision.ln();
        }
        self.brevity_penalty() * (logs / orders as f64).exp()
    }

    fn brevity_penalty(&self) -> f64 {
        if self.output_length >= self.reference_length {
            1.0
        } else {
            (1.0 - self.reference_length / self.output_length).exp()
        }
    }
}

/// Of the references' lengths, the nearest; of two equally near, the shorter.
fn closest_length(length: usize, references: &[Vec<String>]) -> usize {
    references
        .iter()
        .map(Vec::len)
        .min_by_key(|reference| (reference.abs_diff(length), *reference))
        .unwrap_or(0)
}

pub(super) fn ngrams<T: Hash + Eq>(tokens: &[T], order: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// What chrF needs to know of one sample or, summed, of a corpus; n from 1 to 6.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ChrfCounts {
    pub output: [f64; CHRF_ORDER],
    pub reference: [f64; CHRF_ORDER],
    pub matched: [f64; CHRF_ORDER],
}

impl ChrfCounts {
    /// Counts against the reference with the best score (Popović, 2015); white space is ignored.
    #[must_use]
    pub fn of(output: &str, references: &[String]) -> Self {
        let output = solid(output);
        let mut best: Option<(f64, Self)> = None;
        for reference in references {
            let counts = Self::against(&output, &solid(reference));
            let score = counts.score();
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, counts));
            }
        }
        best.map(|(_, counts)| counts).unwrap_or_default()
    }

    fn against(output: &[char], reference: &[char]) -> Self {
        let mut counts = Self::default();
        for order in 0..CHRF_ORDER {
            let of_output = ngrams(output, order + 1);
            let of_reference = ngrams(reference, order + 1);
            // An order that the reference is too short for does not count against the output.
            if !of_reference.is_empty() {
                counts.output[order] = of_output.values().sum::<usize>() as f64;
            }
            counts.reference[order] = of_reference.values().sum::<usize>() as f64;
            counts.matched[order] = of_output
                .iter()
                .map(|(ngram, count)| *count.min(of_reference.get(ngram).unwrap_or(&0)))
                .sum::<usize>() as f64;
        }
        counts
    }

    pub(crate) fn add(&mut self, other: &Self, weight: f64) {
        for order in 0..CHRF_ORDER {
            self.output[order] += weight * other.output[order];
            self.reference[order] += weight * other.reference[order];
            self.matched[order] += weight * other.matched[order];
        }
    }

    /// chrF2, 0 to 100, of a sentence or a corpus (sacreBLEU's `chrf` with its defaults).
    #[must_use]
    pub fn score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for order in 0..CHRF_ORDER {
            if self.output[order] > 0.0 && self.reference[order] > 0.0 {
                precision += self.matched[order] / self.output[order];
                recall += self.matched[order] / self.reference[order];
                orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / orders, recall / orders);
        let factor = BETA * BETA;
        100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
    }
}

fn solid(text: &str) -> Vec<char> {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
