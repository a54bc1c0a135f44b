//! Log-probabilities as JSON can carry them.

/// JSON has neither −∞ nor NaN; OpenAI writes −9999 for what cannot happen.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() {
        logprob
    } else {
        -9999.0
    }
}
