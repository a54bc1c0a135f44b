//! Perplexity and bits per byte from the log-probabilities of given tokens.
//!
//! Perplexity per token cannot be compared between models with different
//! vocabularies; per byte it can. Over a corpus the sums are divided, not the
//! quotients averaged (as lm-evaluation-harness does).

use serde::{Deserialize, Serialize};

/// Sums over one sample or many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LikelihoodSums {
    /// Natural logarithms.
    pub log_probability: f64,
    pub tokens: f64,
    pub bytes: f64,
}

/// How the likelihood is expressed; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likelihood {
    /// exp(−Σ ln p / tokens).
    PerToken,
    /// exp(−Σ ln p / bytes).
    PerByte,
    /// −Σ log₂ p / bytes.
    BitsPerByte,
}

impl LikelihoodSums {
    /// Sums of one sample.
    ///
    /// # Errors
    /// Names the value that cannot be a log-probability.
    pub fn of(tokens: &[f64], bytes: u64) -> Result<Self, String> {
        if tokens.is_empty() || bytes == 0 {
            return Err("no token was scored".into());
        }
        // A probability computed in half precision may exceed 1 by rounding.
        if let Some(bad) = tokens
            .iter()
            .find(|value| !value.is_finite() || **value > 1e-2)
        {
            return Err(format!("{bad} is not the logarithm of a probability"));
        }
        Ok(Self {
            log_probability: tokens.iter().sum(),
            tokens: tokens.len() as f64,
            bytes: bytes as f64,
        })
    }

    pub(crate) fn add(&mut self, other: &Self, weight: f64) {
        self.log_probability += weight * other.log_probability;
        self.tokens += weight * other.tokens;
        self.bytes += weight * other.bytes;
    }

    #[must_use]
    pub fn value(&self, as_: Likelihood) -> f64 {
        match as_ {
            Likelihood::PerToken => (-self.log_probability / self.tokens).exp(),
            Likelihood::PerByte => (-self.log_probability / self.bytes).exp(),
            Likelihood::BitsPerByte => -self.log_probability / self.bytes / std::f64::consts::LN_2,
        }
    }
}
