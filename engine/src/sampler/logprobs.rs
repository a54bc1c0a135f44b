//! Log-probabilities under the model's own distribution.

use super::select::{self, finite};
use super::softmax;
use crate::request::SampledToken;

/// Alternatives reported at most, as in OpenAI's API.
pub const MAX_TOP: u8 = 20;

/// What a row says before anything is done to it.
#[derive(Debug)]
pub(super) struct Evidence {
    /// ln Σ e^logit; NaN for a row without a finite logit.
    log_sum: f64,
    top: Vec<(u32, f32)>,
}

impl Evidence {
    /// Takes the `top` likeliest (at most [`MAX_TOP`]) of a row.
    pub(super) fn of(logits: &[f32], top: u8) -> Self {
        let Some((_, max)) = select::argmax(logits) else {
            return Self {
                log_sum: f64::NAN,
                top: Vec::new(),
            };
        };
        let log_sum = softmax::sum_exp(logits, max).ln() + f64::from(max);
        let mut best = Vec::new();
        select::top_k(logits, usize::from(top.min(MAX_TOP)), &mut best);
        select::sort(&mut best);
        let top = best
            .iter()
            .map(|c| (c.id, logprob(c.logit, log_sum)))
            .collect();
        Self { log_sum, top }
    }

    /// The report on a token with this untouched logit.
    pub(super) fn report(self, id: u32, logit: f32) -> SampledToken {
        SampledToken {
            id,
            logprob: logprob(logit, self.log_sum),
            top: self.top,
        }
    }
}

fn logprob(logit: f32, log_sum: f64) -> f32 {
    (f64::from(finite(logit)) - log_sum) as f32
}

/// Log-probability of `token` under a row of logits (`[vocab]`) and the `top`
/// likeliest tokens (at most [`MAX_TOP`]): for prompts, where nothing is drawn.
/// A token beyond the vocabulary has −∞.
#[must_use]
pub fn logprobs_of(logits: &[f32], token: u32, top: u8) -> SampledToken {
    let logit = logits.get(token as usize).copied();
    Evidence::of(logits, top).report(token, logit.unwrap_or(f32::NEG_INFINITY))
}
