//! What is measured, and under which names.

use std::sync::Arc;
use std::time::Duration;

/// All series of one gateway. Local to it, so that tests run side by side.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// The handles of one deployment and revision; the same pair gives the same handles.
    #[must_use]
    pub fn series(&self, deployment: &str, revision: &str) -> Arc<Series> {
        Arc::new(Series {
            deployment: deployment.into(),
            revision: revision.into(),
        })
    }

    /// The Prometheus text exposition.
    #[must_use]
    pub fn render(&self) -> String {
        String::new()
    }
}

/// Handles of one deployment and revision, resolved once: recording is atomics only.
#[derive(Debug)]
pub struct Series {
    /// Label `deployment`.
    pub deployment: Arc<str>,
    /// Label `revision`.
    pub revision: Arc<str>,
}

impl Series {
    /// Time between two output tokens of one request.
    pub fn inter_token(&self, _latency: Duration) {}
}
