//! One loaded model, whatever it does.

use std::sync::Arc;

use sluice_engine::encoder::Encoder;
use sluice_engine::language::LanguageModel;
use sluice_engine::tensor::TensorModel;

/// A model in this process, by what it can do. Variants hold the engine's
/// handles, cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LocalModel {
    /// Text in, text out (`/v1/chat/completions`, `/v1/completions`).
    Language(Arc<LanguageModel>),
    /// Text in, vectors or scores out (`/v1/embeddings`, `/v1/rerank`).
    Encoder(Encoder),
    /// Named tensors in, named tensors out (`/v2`).
    Tensor(TensorModel),
}

impl LocalModel {
    /// Whether its executor takes requests.
    #[must_use]
    pub fn healthy(&self) -> bool {
        match self {
            Self::Language(model) => model.generator.healthy(),
            Self::Encoder(encoder) => encoder.healthy(),
            Self::Tensor(tensor) => tensor.healthy(),
        }
    }

    /// Sequences, texts or tensor requests that wait and run.
    #[must_use]
    pub fn load(&self) -> u64 {
        match self {
            Self::Language(model) => model.generator.stats().load(),
            Self::Encoder(encoder) => {
                let (waiting, running) = encoder.load_now();
                (waiting + running) as u64
            }
            Self::Tensor(tensor) => tensor.stats().running() + tensor.waiting() as u64,
        }
    }

    /// Whether requests wait for a place.
    #[must_use]
    pub fn is_queueing(&self) -> bool {
        match self {
            Self::Language(model) => model.generator.stats().waiting() > 0,
            Self::Encoder(encoder) => encoder.load_now().0 > 0,
            Self::Tensor(tensor) => tensor.waiting() > 0,
        }
    }

    /// Ends its executor; what runs and waits fails.
    pub(super) fn abort(&self) {
        match self {
            Self::Language(model) => model.generator.abort(),
            Self::Encoder(encoder) => encoder.abort(),
            Self::Tensor(tensor) => tensor.abort(),
        }
    }

    /// Whether its executor has ended and given its memory back.
    pub(super) fn ended(&self) -> bool {
        match self {
            Self::Language(model) => model.generator.closed(),
            Self::Encoder(encoder) => encoder.ended(),
            Self::Tensor(tensor) => tensor.ended(),
        }
    }
}
