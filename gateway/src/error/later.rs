//! Answers of a model that does not serve just now, with the time after which it may.

use std::time::Duration;

use super::{ApiError, shorten};
use crate::absent::Absence;
use crate::replicas::NoReplica;

/// When to ask again for a model that is being loaded, and for one that could not be.
const LOADING_RETRY: Duration = Duration::from_secs(2);
const FAILED_RETRY: Duration = Duration::from_secs(30);

/// When to ask for a model again that only an operator brings back.
const GIVEN_UP_RETRY: Duration = Duration::from_secs(60);

impl ApiError {
    /// 503: the deadline is not to be met, so that nothing was begun; less may be in the way after
    /// `expected`.
    #[must_use]
    pub fn too_late(expected: Duration) -> Self {
        let message = format!(
            "The request was not started: an answer is expected in {:.1} s, after its deadline.",
            expected.as_secs_f64()
        );
        Self::overloaded(message, expected)
    }

    /// 503: no replica of the model serves just now.
    #[must_use]
    pub fn no_replica(model: &str, none: NoReplica) -> Self {
        let model = shorten(model);
        let (message, wait) = match none.expected {
            Some(wait) => (
                format!("The model `{model}` is being restarted, please try again later."),
                wait,
            ),
            None => (
                format!("The model `{model}` has failed and is not being restarted."),
                GIVEN_UP_RETRY,
            ),
        };
        let mut error = Self::unavailable(message);
        error.retry_after = Some(wait);
        error
    }

    /// 503: the model is meant to be served here and is not. Why it cannot be loaded is for the
    /// log and for `/health/ready`, not for clients.
    #[must_use]
    pub fn absent(model: &str, why: &Absence) -> Self {
        let model = shorten(model);
        let (message, wait) = match why {
            Absence::Loading => (
                format!("The model `{model}` is being loaded, please try again later."),
                LOADING_RETRY,
            ),
            Absence::Failed(_) => (
                format!("The model `{model}` cannot be loaded at the moment."),
                FAILED_RETRY,
            ),
        };
        let mut error = Self::overloaded(message, wait).with_param("model");
        error.code = Some("model_not_ready");
        error
    }
}
