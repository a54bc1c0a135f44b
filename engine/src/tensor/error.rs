//! Why a tensor request was not answered.

use std::time::Duration;

/// A tensor request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferError {
    /// The request does not fit the model's signature. Nothing was run.
    #[error("`{tensor}`: {message}")]
    Invalid {
        /// The input or output at fault.
        tensor: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The request does not fit the model, as only its run could tell.
    #[error("the model does not take this request: {0}")]
    Refused(String),
    /// The waiting queue is full. Nothing was run.
    #[error("the queue is full ({waiting} requests waiting)")]
    QueueFull {
        /// Requests waiting at this moment.
        waiting: usize,
        /// When a place is likely to be free again.
        retry_after: Duration,
    },
    /// The deadline cannot be met. Nothing was run.
    #[error("the answer is expected in {expected_wait:?}, after the request's deadline")]
    DeadlineUnmeetable {
        /// When an answer is likely to be there.
        expected_wait: Duration,
    },
    /// The deadline passed before the answer was there.
    #[error("the deadline passed before the request was answered")]
    Deadline,
    /// The model could not compute this request; others are not affected.
    #[error("the model failed on this request: {0}")]
    Failed(String),
    /// The model is being unloaded, or its device has failed.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
}

impl InferError {
    /// A request that does not fit.
    pub(super) fn invalid(tensor: &str, message: String) -> Self {
        Self::Invalid {
            tensor: tensor.to_owned(),
            message,
        }
    }

    /// Whether the same request may succeed later, here or on another replica.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. } | Self::DeadlineUnmeetable { .. } | Self::Unavailable(_)
        )
    }
}
