//! From token vectors to one vector, and from logits to probabilities. The
//! pooling modes are those of sentence-transformers' `Pooling` module.

use crate::folder::Pooling;

/// Pools the token vectors of one text: `hidden` is `[padded length, width]`, of
/// which the first `tokens` rows count.
pub(crate) fn pool(pooling: Pooling, hidden: &[f32], width: usize, tokens: usize) -> Vec<f32> {
    let mut rows = hidden.chunks_exact(width.max(1)).take(tokens);
    let count = tokens.max(1) as f32;
    match pooling {
        Pooling::Cls => rows.take(1).flatten().copied().collect(),
        Pooling::LastToken => rows.next_back().unwrap_or_default().to_vec(),
        Pooling::Max => {
            let lowest = vec![f32::NEG_INFINITY; width];
            rows.fold(lowest, |max, row| combine(max, row, f32::max))
        }
        Pooling::Mean => scaled(sum(rows, width), 1.0 / count),
        Pooling::MeanSqrtLength => scaled(sum(rows, width), 1.0 / count.sqrt()),
    }
}

fn sum<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize) -> Vec<f32> {
    rows.fold(vec![0.0; width], |sum, row| combine(sum, row, |a, b| a + b))
}

fn combine(mut all: Vec<f32>, row: &[f32], with: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    for (a, &b) in all.iter_mut().zip(row) {
        *a = with(*a, b);
    }
    all
}

fn scaled(mut vector: Vec<f32>, factor: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|x| *x *= factor);
    vector
}

/// Scales a vector to length 1; a zero vector stays as it is.
pub(crate) fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if square > 0.0 {
        let factor = (1.0 / square.sqrt()) as f32;
        vector.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Cosine of the angle between two vectors of equal length; 0 if one is zero.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 {
        dot(a, b) / lengths
    } else {
        0.0
    }
}

/// 1 / (1 + e^−x).
pub(super) fn logistic(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Softmax over several logits, the logistic function of a single one.
pub(super) fn probabilities(logits: &[f32]) -> Vec<f32> {
    if let &[logit] = logits {
        return vec![logistic(logit)];
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|&logit| (logit - max).exp()).collect();
    let total: f32 = weights.iter().sum();
    scaled(weights, 1.0 / total)
}

#[cfg(test)]
mod tests;
