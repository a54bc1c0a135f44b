//! Constrained output: which tokens may come next.

/// A compiled grammar; cheap to clone.
#[derive(Debug, Clone)]
pub struct Grammar {}
