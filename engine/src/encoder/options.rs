//! How an encoder is loaded, what it is asked and what it answers.

use std::time::{Duration, Instant};

use crate::backend::FAILED_RUNS;
use crate::backend::onnx::{GpuOptions, Provider};
use crate::batcher::{Budget, WorkError, WorkTimings};
use crate::error::SubmitError;
use crate::folder::Pooling;
use crate::request::Priority;

/// How an encoder is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Where it runs.
    pub provider: Provider,
    /// How a GPU is used, where `provider` is one.
    pub gpu: GpuOptions,
    /// Worker threads; 0 is one a core, on a GPU two. They share one session.
    pub workers: usize,
    /// One more session over all cores, for a text that comes alone. Costs its
    /// own copy of the packed weights; on the CPU only.
    pub wide: bool,
    /// What one batch holds. Items × longest is what its memory grows with.
    pub budget: Budget,
    /// Texts that may wait.
    pub max_waiting: usize,
    /// Overrides the folder's pooling.
    pub pooling: Option<Pooling>,
    /// Overrides the folder's maximal length (it can only be lowered).
    pub max_tokens: Option<usize>,
    /// Compare with `sluice_probe.json` before anything is served.
    pub probe: bool,
    /// Runs of a worker that fail in a row after which the encoder counts as lost; 0: never.
    pub failed_runs: u32,
    /// Token vectors are pooled on the stand-in for a GPU, over which the CPU provider
    /// runs.
    #[cfg(test)]
    pub(crate) stand_in: bool,
}

impl EncoderOptions {
    /// The defaults for a provider: on a GPU batches are larger.
    #[must_use]
    pub fn on(provider: Provider) -> Self {
        let options = Self {
            provider,
            ..Self::default()
        };
        match provider.device() {
            None => options,
            Some(_) => Self {
                budget: Budget {
                    tokens: 16_384,
                    items: 64,
                    ..options.budget
                },
                ..options
            },
        }
    }

    /// CUDA's number of the device on which token vectors are pooled.
    pub(super) fn pooled_on(&self) -> Option<u32> {
        #[cfg(test)]
        if self.stand_in {
            return Some(0);
        }
        self.provider.device()
    }
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            gpu: GpuOptions::default(),
            workers: 0,
            wide: true,
            budget: Budget {
                tokens: 512,
                items: 8,
                padding: 8,
                max_age: Duration::from_secs(2),
            },
            max_waiting: 2048,
            pooling: None,
            max_tokens: None,
            probe: true,
            failed_runs: FAILED_RUNS,
            #[cfg(test)]
            stand_in: false,
        }
    }
}

/// What is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderInput {
    /// Text; the tokenizer adds its special tokens.
    Text(String),
    /// Token ids of this model, taken as they are.
    Tokens(Vec<u32>),
}

/// How one input is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Past this instant the answer is worthless.
    pub deadline: Option<Instant>,
    /// Class in the queue.
    pub priority: Priority,
    /// Cut what is too long instead of refusing it.
    pub truncate: bool,
}

/// How one embedding is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Deadline, class, truncation.
    pub encode: EncodeOptions,
    /// Scale to length 1; by default as the folder says.
    pub normalize: Option<bool>,
    /// Keep the first so many elements (Matryoshka embeddings); a normalised
    /// vector is scaled again.
    pub dimensions: Option<usize>,
}

/// An embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector.
    pub vector: Vec<f32>,
    /// Tokens computed, special tokens included.
    pub tokens: usize,
    /// Where the time went.
    pub timings: WorkTimings,
}

/// Relevance of one document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairScore {
    /// In 0..=1: the logistic function of the model's output, as
    /// sentence-transformers' `CrossEncoder` reports it.
    pub score: f32,
    /// Tokens computed: query, document and special tokens.
    pub tokens: usize,
}

/// A classification.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Probability of each of [`Encoder::labels`]; they add up to 1, but for a
    /// model with one label, whose probability stands alone.
    pub probabilities: Vec<f32>,
    /// Tokens computed.
    pub tokens: usize,
    /// Where the time went.
    pub timings: WorkTimings,
}

/// An input was not encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// It was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It was accepted, and its deadline passed or its run failed.
    #[error(transparent)]
    Work(#[from] WorkError),
}
