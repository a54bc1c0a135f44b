//! What can go wrong, told apart by what the caller can do about it.

use std::path::PathBuf;
use std::time::Duration;

/// A model could not be loaded. The message is meant for the operator's eyes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the model folder is missing, unreadable or malformed.
    #[error("{path}: {reason}")]
    Folder {
        /// The file or folder concerned.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// The folder is well-formed, but describes something this engine cannot run.
    #[error("model `{model}` is not supported: {reason}")]
    Unsupported {
        /// Name of the model as configured.
        model: String,
        /// The exact feature that is missing.
        reason: String,
    },
    /// Weights plus K/V arena exceed the memory budget; `sum` spells the addition out.
    #[error("model `{model}` does not fit: {sum}")]
    DoesNotFit {
        /// Name of the model as configured.
        model: String,
        /// For example `weights 1.2 GiB + K/V 16 slots × 4096 tokens × 96 KiB = 6.0 GiB > budget 4.0 GiB`.
        sum: String,
    },
    /// The loaded graph disagrees with the probe stored beside the model.
    #[error("model `{model}` fails its parity probe: {reason}")]
    Parity {
        /// Name of the model as configured.
        model: String,
        /// Which prompt and position, by how much, and against which tolerance.
        reason: String,
    },
    /// Whoever wanted it has given it up.
    #[error("the load was cancelled")]
    Cancelled,
    /// The execution provider or the runtime library is not available.
    #[error("{0}")]
    Runtime(String),
}

/// A step failed on the device.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// What was asked for does not fit the model, as only its run could tell. Nothing was
    /// computed, and nothing is wrong with the backend.
    #[error("{0}")]
    Refused(String),
    /// The step failed; the sequences in it are lost, the backend can go on.
    #[error("step failed: {0}")]
    Step(String),
    /// The backend is unusable from now on; the replica must be ejected.
    #[error("backend failed: {0}")]
    Fatal(String),
}

/// A request was not accepted. Nothing of it was started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The waiting queue is full.
    #[error("the queue is full ({waiting} requests waiting)")]
    QueueFull {
        /// Requests waiting at this moment.
        waiting: usize,
        /// When a place is likely to be free again.
        retry_after: Duration,
    },
    /// Waiting alone would outlast the request's deadline.
    #[error("the deadline cannot be met: the queue alone takes about {expected_wait:?}")]
    DeadlineUnmeetable {
        /// Estimated time until the first step of this request.
        expected_wait: Duration,
    },
    /// The prompt, or the prompt and the tokens asked for, exceed the context.
    #[error("{requested} tokens were requested, the context holds {limit}")]
    TooLong {
        /// Prompt tokens.
        prompt: usize,
        /// Prompt plus requested completion tokens (or the prompt alone).
        requested: usize,
        /// Tokens that one slot holds.
        limit: usize,
    },
    /// A parameter is out of range. Named as in OpenAI's API.
    #[error("{message}")]
    Invalid {
        /// The field, for example `logit_bias`.
        param: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The model is being unloaded, or its backend has failed.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
}

impl SubmitError {
    /// Whether the same request may succeed later, here or on another replica.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. } | Self::DeadlineUnmeetable { .. } | Self::Unavailable(_)
        )
    }
}
