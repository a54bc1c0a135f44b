//! What is left of this backend without the vendor's headers: its names, and one answer.

use std::path::Path;

use super::NativeOptions;
use crate::backend::onnx::{Tensor, TensorInfo, TensorView};
use crate::backend::pooled::Pooled;
use crate::error::{BackendError, LoadError};

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

    /// The same engine for another thread.
    ///
    /// # Errors
    /// Never called.
    pub fn share(&self) -> Result<Self, LoadError> {
        match *self {}
    }

    /// The largest shape of an input that the engine takes.
    pub(crate) fn reach(&self, _: &str) -> Option<Vec<i64>> {
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

    /// Runs the engine and pools.
    ///
    /// # Errors
    /// Never called.
    pub(crate) fn run_pooled(
        &mut self,
        _: &[(&str, TensorView<'_>)],
        _: &Pooled,
        _: &[u32],
        _: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
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

/// Says what this binary lacks.
///
/// # Errors
/// Always [`LoadError::Runtime`].
pub fn build_plan(name: &str, graph: &Path, options: &NativeOptions) -> Result<Vec<u8>, LoadError> {
    match open(name, graph, options)? {}
}
