//! A sampler as one would write it down: double precision, everything sorted.

use std::collections::HashMap;

use crate::request::{SampledToken, SamplingParams};

/// Probability of each token; all 0 when none is allowed. Greedy puts 1 on one.
pub(super) fn distribution(
    logits: &[f32],
    params: &SamplingParams,
    prompt: &[u32],
    output: &[u32],
    mask: Option<&[u32]>,
) -> Vec<f64> {
    let logits = adjusted(logits, params, prompt, output, mask);
    let mut ranked: Vec<usize> = (0..logits.len())
        .filter(|&id| logits[id] > f64::NEG_INFINITY)
        .collect();
    ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut p = vec![0.0; logits.len()];
    let Some(&best) = ranked.first() else {
        return p;
    };
    if params.temperature == 0.0 {
        p[best] = 1.0;
        return p;
    }
    if params.top_k > 0 {
        ranked.truncate(params.top_k as usize);
    }
    for &id in &ranked {
        p[id] = ((logits[id] - logits[best]) / f64::from(params.temperature)).exp();
    }
    if params.top_p < 1.0 {
        let total: f64 = p.iter().sum();
        let mut before = 0.0;
        let mut kept = 0;
        for &id in &ranked {
            if kept > 0 && before >= f64::from(params.top_p) * total {
                p[id] = 0.0;
            } else {
                before += p[id];
                kept += 1;
            }
        }
    }
    for weight in &mut p {
        if *weight < f64::from(params.min_p) {
            *weight = 0.0;
        }
    }
    let total: f64 = p.iter().sum();
    p.iter_mut().for_each(|weight| *weight /= total);
    p
}

fn adjusted(
    logits: &[f32],
    params: &SamplingParams,
    prompt: &[u32],
    output: &[u32],
    mask: Option<&[u32]>,
) -> Vec<f64> {
    // Single precision here: ties that penalties make or break are part of the
    // definition.
    let mut logits = logits.to_vec();
    let mut counts: HashMap<u32, u32> = prompt.iter().map(|&id| (id, 0)).collect();
    for &id in output {
        *counts.entry(id).or_default() += 1;
    }
    for (&id, &count) in &counts {
        if let Some(logit) = logits.get_mut(id as usize) {
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
            if count > 0 {
                *logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
            }
        }
    }
    for &(id, bias) in params.logit_bias.iter() {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
    let allowed = |id: usize| {
        mask.is_none_or(|mask| {
            mask.get(id / 32)
                .is_some_and(|word| word >> (id % 32) & 1 == 1)
        })
    };
    let value = |(id, &logit): (usize, &f32)| {
        if logit.is_nan() || !allowed(id) {
            f64::NEG_INFINITY
        } else {
            // −0 counts as 0.
            f64::from(logit) + 0.0
        }
    };
    logits.iter().enumerate().map(value).collect()
}

/// `id` is where the cumulated distribution, in id order, reaches `uniform`,
/// up to rounding at the borders.
pub(super) fn check_place(p: &[f64], id: usize, uniform: f64) -> Result<(), String> {
    const ROUNDING: f64 = 1e-4;
    let before: f64 = p[..id].iter().sum();
    let after = before + p[id];
    if before - ROUNDING <= uniform && uniform <= after + ROUNDING {
        Ok(())
    } else {
        Err(format!(
            "token {id} spans {before}..{after}, the draw is {uniform}"
        ))
    }
}

/// Log-probabilities by direct summation.
pub(super) fn check_evidence(logits: &[f32], token: &SampledToken, top: u8) -> Result<(), String> {
    let value = |&l: &f32| {
        if l.is_nan() {
            f64::NEG_INFINITY
        } else {
            f64::from(l)
        }
    };
    let logits: Vec<f64> = logits.iter().map(value).collect();
    let sum = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
    let mut ranked: Vec<u32> = (0..logits.len() as u32)
        .filter(|&id| logits[id as usize] > f64::NEG_INFINITY)
        .collect();
    ranked.sort_by(|&a, &b| {
        logits[b as usize]
            .total_cmp(&logits[a as usize])
            .then(a.cmp(&b))
    });
    ranked.truncate(usize::from(top));
    let ids: Vec<u32> = token.top.iter().map(|entry| entry.0).collect();
    if ids != ranked {
        return Err(format!("top {ids:?}, expected {ranked:?}"));
    }
    for &(id, logprob) in token.top.iter().chain([&(token.id, token.logprob)]) {
        let exact = logits[id as usize] - sum;
        if (f64::from(logprob) - exact).abs() > 1e-5 {
            return Err(format!(
                "log-probability {logprob} of {id}, expected {exact}"
            ));
        }
    }
    Ok(())
}
