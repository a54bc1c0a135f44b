//! Classification: accuracy, F1 by its three averages, and the confusion matrix.
//!
//! Definitions as in scikit-learn's `f1_score` and `confusion_matrix`, with an
//! undefined ratio counted as 0 (`zero_division=0`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How the F1 of the labels becomes one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Every label weighs the same, however rare.
    Macro,
    /// Every sample weighs the same; with one label a sample, this is the accuracy.
    Micro,
    /// Every label weighs as its share of the references.
    Weighted,
}

/// Counts by actual label (row) and predicted label (column).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    pub labels: Vec<String>,
    /// Row-major, `labels.len()` squared; whole numbers unless resampled with weights.
    pub counts: Vec<f64>,
}

impl Confusion {
    /// Counts pairs of actual and predicted label; the labels are all that occur, sorted.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let labels = labels(pairs.iter().copied());
        let mut confusion = Self {
            counts: vec![0.0; labels.len() * labels.len()],
            labels,
        };
        for (actual, predicted) in pairs {
            if let Some(cell) = cell(&confusion.labels, actual, predicted) {
                confusion.counts[cell] += 1.0;
            }
        }
        confusion
    }

    /// The share of samples whose label is right; NaN without samples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        accuracy(&self.counts, self.labels.len())
    }

    /// F1 by `average`; NaN without samples.
    #[must_use]
    pub fn f1(&self, average: Average) -> f64 {
        f1(&self.counts, self.labels.len(), average)
    }

    /// Precision, recall and F1 of one label; `None` for one that does not occur.
    #[must_use]
    pub fn of_label(&self, label: &str) -> Option<LabelScores> {
        let index = self.labels.iter().position(|known| known == label)?;
        let tally = Tally::of(&self.counts, self.labels.len(), index);
        Some(LabelScores {
            precision: ratio(tally.correct, tally.predicted),
            recall: ratio(tally.correct, tally.actual),
            f1: tally.f1(),
            support: tally.actual,
        })
    }
}

/// One line of a classification report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelScores {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Samples whose actual label this is.
    pub support: f64,
}

pub(crate) fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let all: BTreeSet<&str> = pairs
        .flat_map(|(actual, predicted)| [actual, predicted])
        .collect();
    all.into_iter().map(str::to_owned).collect()
}

/// The place of a pair in the row-major counts; `labels` are sorted.
pub(crate) fn cell(labels: &[String], actual: &str, predicted: &str) -> Option<usize> {
    let index = |label: &str| {
        labels
            .binary_search_by(|known| known.as_str().cmp(label))
            .ok()
    };
    Some(index(actual)? * labels.len() + index(predicted)?)
}

pub(crate) fn accuracy(counts: &[f64], labels: usize) -> f64 {
    let correct: f64 = (0..labels)
        .map(|label| counts[label * labels + label])
        .sum();
    correct / counts.iter().sum::<f64>()
}

pub(crate) fn f1(counts: &[f64], labels: usize, average: Average) -> f64 {
    if average == Average::Micro {
        return accuracy(counts, labels);
    }
    let (mut sum, mut weights) = (0.0, 0.0);
    for label in 0..labels {
        let tally = Tally::of(counts, labels, label);
        // A label that a resample lost has no F1; scikit-learn would not know of it either.
        if tally.actual + tally.predicted == 0.0 {
            continue;
        }
        let weight = match average {
            Average::Weighted => tally.actual,
            Average::Macro | Average::Micro => 1.0,
        };
        sum += weight * tally.f1();
        weights += weight;
    }
    sum / weights
}

struct Tally {
    correct: f64,
    actual: f64,
    predicted: f64,
}

impl Tally {
    fn of(counts: &[f64], labels: usize, label: usize) -> Self {
        Self {
            correct: counts[label * labels + label],
            actual: counts[label * labels..(label + 1) * labels].iter().sum(),
            predicted: (0..labels).map(|row| counts[row * labels + label]).sum(),
        }
    }

    fn f1(&self) -> f64 {
        ratio(2.0 * self.correct, self.actual + self.predicted)
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}
