//! Times of single requests, as they were; quantiles are exact, not from a sketch.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evaluation::sample::Sample;

/// Above 0 and below 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percentile(f64);

/// A percentile that no sample could be at.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("percentile: {0} is not above 0 and below 100")]
pub struct InvalidPercentile(f64);

impl TryFrom<f64> for Percentile {
    type Error = InvalidPercentile;

    fn try_from(percent: f64) -> Result<Self, InvalidPercentile> {
        if percent > 0.0 && percent < 100.0 {
            Ok(Self(percent))
        } else {
            Err(InvalidPercentile(percent))
        }
    }
}

impl From<Percentile> for f64 {
    fn from(percentile: Percentile) -> Self {
        percentile.0
    }
}

impl Percentile {
    /// As a share, above 0 and below 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Microseconds to the end of the answer.
///
/// # Errors
/// When the request failed (a quick failure is not a fast answer) or was not timed.
pub fn total(sample: &Sample) -> Result<f64, String> {
    sample.answer()?;
    let micros = sample.timings.total.ok_or("the total time was not taken")?;
    Ok(micros as f64)
}

/// Microseconds to the first token.
///
/// # Errors
/// As [`total`]; an answer that was not streamed has no first token.
pub fn first_token(sample: &Sample) -> Result<f64, String> {
    sample.answer()?;
    let micros = sample
        .timings
        .first_token
        .ok_or("the time to the first token was not taken: the answer was not streamed")?;
    Ok(micros as f64)
}
