//! Finding few tokens among many without sorting them all.

use std::cmp::Ordering;

/// Logits per block: a block whose maximum does not reach the threshold is
/// skipped as a whole.
const BLOCK: usize = 256;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// [`super::softmax::weight`]: 1 for the likeliest token.
    pub(super) weight: f32,
}

impl Candidate {
    /// Likeliest first; equal logits by lower id.
    fn rank(&self, other: &Self) -> Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.id.cmp(&other.id))
    }
}

/// A logit that can be computed with and ranked by its bits: NaN is −∞, +∞ the
/// largest number, −0 is 0.
#[inline]
pub(super) fn finite(logit: f32) -> f32 {
    let number = if logit.is_nan() {
        f32::NEG_INFINITY
    } else {
        logit
    };
    number.min(f32::MAX) + 0.0
}

fn max(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = logits.chunks_exact(16);
    let mut max = f32::NEG_INFINITY;
    for &logit in chunks.remainder() {
        max = if logit > max { logit } else { max };
    }
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().fold(max, f32::max)
}

/// The likeliest token and its (finite) logit; of equals the lowest id. `None`
/// when there is none above −∞.
pub(super) fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = f32::NEG_INFINITY;
    let mut best_block = None;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let max = finite(max(block));
        if max > best {
            best = max;
            best_block = Some((index, block));
        }
    }
    let (index, block) = best_block?;
    let within = block.iter().position(|&logit| finite(logit) == best)?;
    Some(((index * BLOCK + within) as u32, best))
}

/// The `k` likeliest tokens above −∞, in any order, into `out` (weights 0).
pub(super) fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if k == 0 {
        return;
    }
    let full = 2 * k + 64;
    let mut threshold = f32::NEG_INFINITY;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        // Ids ascend, so an equal of the threshold ranks behind it.
        if max(block) <= threshold {
            continue;
        }
        for (within, &logit) in block.iter().enumerate() {
            if logit > threshold {
                out.push(Candidate {
                    id: (index * BLOCK + within) as u32,
                    logit: finite(logit),
                    weight: 0.0,
                });
                if out.len() == full {
                    threshold = keep_best(out, k);
                }
            }
        }
    }
    if out.len() > k {
        keep_best(out, k);
    }
}

/// Keeps the `k` best (of more than `k`) and returns the least of their logits.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) -> f32 {
    let (_, least, _) = candidates.select_nth_unstable_by(k - 1, Candidate::rank);
    let threshold = least.logit;
    candidates.truncate(k);
    threshold
}

/// Keeps the smallest set of likeliest candidates that weighs at least `mass`
/// (one at least), in any order. A quickselect by weight: each round halves
/// what is looked at.
pub(super) fn nucleus(candidates: &mut Vec<Candidate>, mass: f64) {
    const SORTED: usize = 32;
    let weight = |c: &Candidate| f64::from(c.weight);
    // Everything before `low` is in; the end lies in low..high.
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0;
    while high - low > SORTED {
        let half = (high - low) / 2;
        let open = &mut candidates[low..high];
        open.select_nth_unstable_by(half, Candidate::rank);
        let upper: f64 = open[..half].iter().map(weight).sum();
        if before + upper >= mass {
            high = low + half;
        } else {
            before += upper;
            low += half;
        }
    }
    candidates[low..high].sort_unstable_by(Candidate::rank);
    let mut end = low;
    while end < high {
        before += weight(&candidates[end]);
        end += 1;
        if before >= mass {
            break;
        }
    }
    candidates.truncate(end);
}

/// The first candidate, in the order given, at which the cumulated weight
/// exceeds `uniform` × sum.
pub(super) fn draw(candidates: &[Candidate], uniform: f64) -> u32 {
    let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
    let mut left = uniform * total;
    let mut last = candidates.first().map_or(0, |c| c.id);
    for candidate in candidates.iter().filter(|c| c.weight > 0.0) {
        last = candidate.id;
        if left < f64::from(candidate.weight) {
            break;
        }
        left -= f64::from(candidate.weight);
    }
    last
}

/// Sorts candidates, likeliest first.
pub(super) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(Candidate::rank);
}
