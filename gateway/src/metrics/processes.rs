//! The child processes that hold models on trial.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use metrics::Counter;

use super::exposition::{Exposition, Kind, Value};
use super::series::Scope;

/// How a model's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It was needed no more.
    Stopped,
    /// It could not load its model.
    NotLoaded,
    /// It was killed: too much memory.
    Memory,
    /// It was killed: too much time.
    Time,
    /// By itself.
    Crashed,
}

impl ProcessEnd {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Stopped, "stopped"),
        (Self::NotLoaded, "not_loaded"),
        (Self::Memory, "memory"),
        (Self::Time, "time"),
        (Self::Crashed, "crashed"),
    ];
}

/// Counts them.
#[derive(Debug)]
pub(super) struct Processes {
    running: Arc<AtomicUsize>,
    ends: [Counter; ProcessEnd::ALL.len()],
}

/// One process; dropped, it runs no more.
#[derive(Debug)]
pub struct RunningProcess(Arc<AtomicUsize>);

impl Drop for RunningProcess {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Processes {
    pub(super) fn new(ours: &Scope<'_>) -> Self {
        Self {
            running: Arc::default(),
            ends: ProcessEnd::ALL.map(|(_, reason)| {
                ours.counter_of(
                    "sluice_model_process_ends_total",
                    "Child processes of models on trial that ended, by reason.",
                    ("reason", reason),
                )
            }),
        }
    }

    pub(super) fn began(&self) -> RunningProcess {
        self.running.fetch_add(1, Relaxed);
        RunningProcess(Arc::clone(&self.running))
    }

    pub(super) fn ended(&self, end: ProcessEnd) {
        self.ends[end as usize].increment(1);
    }

    pub(super) fn collect(&self, into: &mut Exposition) {
        const RUNNING: &str = "sluice_model_processes";
        into.declare(
            RUNNING,
            Kind::Gauge,
            "Child processes that hold a model on trial.",
        );
        let running = self.running.load(Relaxed) as f64;
        into.push(RUNNING, Vec::new(), Value::Number(running));
    }
}
