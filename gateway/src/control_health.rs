//! What the control plane says of itself: whether its records can be read and written now.
//!
//! The data plane serves without it, so it is a question of its own: `/health/ready?of=control`. Whoever runs the
//! control plane sets the answer; without one in the process there is nothing that could be ready.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// Why writes are refused, or may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFault {
    /// One word for programs: `storage_full`. The label of a metric.
    pub code: &'static str,
    /// A sentence for people. Anybody may read it: it names no host, no path and no secret.
    pub reason: String,
}

/// The last word of the control plane. Read by health checks and scrapes.
#[derive(Debug, Default)]
pub struct ControlHealth {
    /// `None` in a process without a control plane.
    faults: ArcSwapOption<Vec<ControlFault>>,
}

impl ControlHealth {
    /// Says how it stands; no faults is ready.
    pub fn set(&self, faults: Vec<ControlFault>) {
        self.faults.store(Some(Arc::new(faults)));
    }

    /// What is wrong now, nothing if it is ready; `None` in a process without a control plane.
    #[must_use]
    pub fn faults(&self) -> Option<Arc<Vec<ControlFault>>> {
        self.faults.load_full()
    }
}
