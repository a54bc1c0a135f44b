//! Counters of one tensor model, with the meaning of Triton's metrics of the
//! same names (`nv_inference_request_success` and so on). Read at scrape time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::InferError;

/// Count and total time of one phase.
#[derive(Debug, Default)]
pub struct Phase {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Phase {
    pub(super) fn add(&self, took: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos(took), Relaxed);
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// How long it took in all, nanoseconds.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.nanos.load(Relaxed)
    }

    /// How long it took in all, whole microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.nanos() / 1000
    }
}

/// Why a request failed: Triton's values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// Refused or expired before it was run.
    Rejected,
    /// The client was gone before it was run.
    Canceled,
    /// The model failed on it.
    Backend,
    /// It did not fit the signature, or the model was unavailable.
    Other,
}

impl FailureReason {
    /// All of them, in the order of [`TensorStats::failures`].
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    /// Its value of the label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }

    pub(super) fn of(error: &InferError) -> Self {
        match error {
            InferError::QueueFull { .. }
            | InferError::DeadlineUnmeetable { .. }
            | InferError::Deadline => Self::Rejected,
            InferError::Failed(_) => Self::Backend,
            InferError::Invalid { .. } | InferError::Refused(_) | InferError::Unavailable(_) => {
                Self::Other
            }
        }
    }
}

/// Counters since the model was loaded.
#[derive(Debug, Default)]
pub struct TensorStats {
    /// Answered requests, from submission to answer (`nv_inference_request_success`,
    /// `nv_inference_request_duration_us`).
    pub success: Phase,
    /// Failed requests, from submission to the error.
    pub failure: Phase,
    /// Time that started requests had waited (`nv_inference_queue_duration_us`).
    pub queue: Phase,
    /// Laying the inputs of a run out (`nv_inference_compute_input_duration_us`).
    pub compute_input: Phase,
    /// The run itself (`nv_inference_compute_infer_duration_us`).
    pub compute_infer: Phase,
    /// Dealing the outputs of a run out (`nv_inference_compute_output_duration_us`).
    pub compute_output: Phase,
    failures: [AtomicU64; 4],
    inferences: AtomicU64,
    executions: AtomicU64,
    running: AtomicU64,
    last_inference_ms: AtomicU64,
}

impl TensorStats {
    /// Examples computed: a request of batch size 8 counts 8 (`nv_inference_count`).
    #[must_use]
    pub fn inferences(&self) -> u64 {
        self.inferences.load(Relaxed)
    }

    /// Runs of the graph (`nv_inference_exec_count`); the mean batch is
    /// [`inferences`](Self::inferences) divided by it.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions.load(Relaxed)
    }

    /// Failed requests by reason (`nv_inference_request_failure`).
    #[must_use]
    pub fn failures(&self, reason: FailureReason) -> u64 {
        self.failures[reason as usize].load(Relaxed)
    }

    /// Requests being computed at this moment.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// When the last run began, Unix milliseconds; 0 before the first.
    #[must_use]
    pub fn last_inference_ms(&self) -> u64 {
        self.last_inference_ms.load(Relaxed)
    }

    /// Mean time of a run; zero before the first.
    #[must_use]
    pub fn mean_run(&self) -> Duration {
        let runs = self.compute_infer.count().max(1);
        Duration::from_nanos(self.compute_infer.nanos() / runs)
    }

    pub(super) fn failed(&self, reason: FailureReason, took: Duration) {
        self.failures[reason as usize].fetch_add(1, Relaxed);
        self.failure.add(took);
    }

    pub(super) fn run_begins(&self, requests: usize) {
        self.running.store(requests as u64, Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_inference_ms.store(ms, Relaxed);
    }

    pub(super) fn run_ended(&self) {
        self.running.store(0, Relaxed);
    }

    pub(super) fn computed(&self, rows: u64) {
        self.executions.fetch_add(1, Relaxed);
        self.inferences.fetch_add(rows, Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
