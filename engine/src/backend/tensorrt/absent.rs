//! What is left of this backend without the vendor's headers: its names, and one answer.

use std::path::Path;
use std::time::Duration;

use super::NativeOptions;
use crate::backend::onnx::{Tensor, TensorInfo, TensorView};
use crate::error::{BackendError, LoadError};

/// An engine that is being built; there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The model.
    pub model: String,
    /// The share that is done, in percent.
    pub percent: u8,
    /// Since the start.
    pub elapsed: Duration,
}

/// The builds that go on now: none.
#[must_use]
pub fn builds() -> Vec<Build> {
    Vec::new()
}

/// A session, of which there is none.
#[derive(Debug)]
pub enum TensorRtSession {}

impl TensorRtSession {
    /// What the engine takes.
    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        match *self {}
    }

    /// What the engine gives.
    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        match *self {}
    }

    /// Runs the engine.
    ///
    /// # Errors
    /// Never called.
    pub fn run(
        &mut self,
        _: &[(&str, TensorView<'_>)],
        _: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        match *self {}
    }
}

/// Says what this binary lacks.
///
/// # Errors
/// Always [`LoadError::Runtime`].
pub fn open(name: &str, _: &Path, _: &NativeOptions) -> Result<TensorRtSession, LoadError> {
    let lacking = sluice_tensorrt::OpenError::NotBuilt;
    Err(LoadError::Runtime(format!("model `{name}`: {lacking}")))
}
