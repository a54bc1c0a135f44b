//! Models in memory.
//!
//! This crate turns token ids into token ids (and tensors into tensors): it loads
//! a model folder, schedules sequences into batches, runs them on a device and
//! samples. It knows no HTTP and no SQL. The gateway talks to it through handles
//! ([`generator::GeneratorHandle`], [`encoder::Encoder`], [`tensor::TensorModel`]).
//!
//! Reading order: [`request`] (what is asked), [`generator`] (the device thread),
//! [`scheduler`] (what runs next), [`cache`] (where K/V live), [`backend`] (how it
//! is computed), [`sampler`], [`grammar`] and [`restriction`] (which token comes out),
//! [`tokenizer`] and [`text`] (how ids become text again).

pub mod backend;
pub mod batcher;
pub mod cache;
mod cancel;
pub mod cuda;
pub mod encoder;
pub mod error;
pub mod folder;
pub mod generator;
pub mod grammar;
pub mod inventory;
pub mod jinja;
pub mod language;
pub mod request;
pub mod restriction;
pub mod sampler;
pub mod scheduler;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod text;
pub mod tokenizer;

pub use cancel::LoadCanceller;
pub use error::{BackendError, LoadError, SubmitError};
