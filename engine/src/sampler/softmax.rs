//! Exponentials over a whole vocabulary, written so that the compiler turns
//! them into vector instructions: no branch, no table, no library call.

use super::select::{self, Candidate, finite};

/// Logits per block: one block's weights are summed before they are added up,
/// and a draw looks for its block first.
const BLOCK: usize = 512;

/// Low bits of a weight that its bucket ignores: 32 buckets for each power of two.
const BUCKET_SHIFT: u32 = 18;
/// Buckets up to that of weight 1, the largest.
const BUCKETS: usize = (1.0f32.to_bits() >> BUCKET_SHIFT) as usize + 1;

fn bucket_of(weight: f32) -> usize {
    ((weight.to_bits() >> BUCKET_SHIFT) as usize).min(BUCKETS - 1)
}

/// e^x for x ≤ 0, within 2 ulp; 0 below −87 and for NaN. Cephes' `expf`:
/// x = n·ln 2 + r, a polynomial in r, scaled by 2^n through the exponent bits.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 × 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = x.max(-87.0);
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + coefficient;
    }
    let fraction = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let scale = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x > -87.0 { fraction * scale } else { 0.0 }
}

/// Weight of a token: [`exp`], rounded to a multiple of 2⁻³⁴.
///
/// With that, sums of up to 2¹⁹ weights in double precision are exact, so they do
/// not depend on the order of summation: a vector unit, several threads and a GPU
/// draw the same token from the same number. A token 3 · 10⁻¹¹ times as likely as
/// the likeliest weighs nothing.
#[inline]
pub(super) fn weight(x: f32) -> f32 {
    // From here on the spacing of floats is 2⁻³⁴ or more; below, adding it rounds.
    const COARSE: f32 = 1.0 / 2048.0;
    let weight = exp(x);
    let rounded = (weight + COARSE) - COARSE;
    if weight < COARSE { rounded } else { weight }
}

/// Sum of e^(logit − max) in double precision; `max` is finite.
pub(super) fn sum_exp(logits: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    let mut weights = [0.0; BLOCK];
    for block in logits.chunks(BLOCK) {
        for (weight, &logit) in weights.iter_mut().zip(block) {
            *weight = exp(finite(logit) - max);
        }
        total += sum(&weights[..block.len()]);
    }
    total
}

/// Sets each candidate's [`weight`] of (logit − max) · inverse temperature.
pub(super) fn weigh(candidates: &mut [Candidate], max: f32, inverse: f32) {
    for candidate in candidates {
        candidate.weight = weight((candidate.logit - max) * inverse);
    }
}

/// Unnormalised softmax of a row: the likeliest token has weight 1.
#[derive(Debug, Default)]
pub(super) struct Weights {
    weights: Vec<f32>,
    /// Sums of blocks of [`BLOCK`] weights.
    sums: Vec<f64>,
    /// Weight by bucket of [`bucket_of`].
    buckets: Vec<f64>,
}

impl Weights {
    /// Computes the weights of a row and returns their sum.
    pub(super) fn fill(&mut self, logits: &[f32], max: f32, inverse: f32) -> f64 {
        self.weights.resize(logits.len(), 0.0);
        self.sums.clear();
        for (weights, logits) in self.weights.chunks_mut(BLOCK).zip(logits.chunks(BLOCK)) {
            for (own, &logit) in weights.iter_mut().zip(logits) {
                *own = weight((finite(logit) - max) * inverse);
            }
            self.sums.push(sum(weights));
        }
        self.sums.iter().sum()
    }

    /// Drops the tokens of less than this weight.
    pub(super) fn drop_below(&mut self, least: f32) {
        for weight in &mut self.weights {
            *weight = if *weight < least { 0.0 } else { *weight };
        }
        self.sum_up();
    }

    /// Keeps the smallest set of likeliest tokens that weighs at least `mass`
    /// (one at least). The bits of positive floats are in the floats' order, so a
    /// histogram over their upper bits tells which tokens are in and which are
    /// out; only those of the bucket in which `mass` is reached are ranked.
    pub(super) fn keep_nucleus(&mut self, logits: &[f32], mass: f64, border: &mut Vec<Candidate>) {
        self.buckets.clear();
        self.buckets.resize(BUCKETS, 0.0);
        for &weight in &self.weights {
            self.buckets[bucket_of(weight)] += f64::from(weight);
        }
        let (mut bucket, mut above) = (BUCKETS - 1, 0.0);
        while bucket > 0 && above + self.buckets[bucket] < mass {
            above += self.buckets[bucket];
            bucket -= 1;
        }
        border.clear();
        for (id, weight) in self.weights.iter_mut().enumerate() {
            let own = bucket_of(*weight);
            if own == bucket && *weight > 0.0 {
                border.push(Candidate {
                    id: id as u32,
                    logit: finite(logits[id]),
                    weight: *weight,
                });
            }
            if own <= bucket {
                *weight = 0.0;
            }
        }
        select::nucleus(border, mass - above);
        for kept in border.iter() {
            self.weights[kept.id as usize] = kept.weight;
        }
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.sums.clear();
        self.sums.extend(self.weights.chunks(BLOCK).map(sum));
    }

    /// The first token at which the cumulated weight exceeds `uniform` × sum.
    pub(super) fn draw(&self, uniform: f64) -> u32 {
        let mut left = uniform * self.sums.iter().sum::<f64>();
        let mut last = 0;
        for (block, &sum) in self.sums.iter().enumerate() {
            if sum <= left {
                left -= sum;
                continue;
            }
            let start = block * BLOCK;
            let end = self.weights.len().min(start + BLOCK);
            for (id, &weight) in (start..end).zip(&self.weights[start..end]) {
                if weight > 0.0 {
                    last = id;
                    if left < f64::from(weight) {
                        return id as u32;
                    }
                    left -= f64::from(weight);
                }
            }
            // Rounding: the draw fell behind the block's last weight.
            return last as u32;
        }
        self.weights.iter().rposition(|&w| w > 0.0).unwrap_or(0) as u32
    }
}

/// Sum in double precision over eight lanes.
fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = weights.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&w| f64::from(w)).sum();
    for chunk in chunks {
        for (lane, &weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(weight);
        }
    }
    lanes.iter().sum::<f64>() + rest
}
