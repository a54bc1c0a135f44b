//! The handles of one deployment and revision.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use sluice_engine::request::FinishReason;

use super::histogram::{Buckets, Histogram};
use crate::context::{Fault, Outcome};
use crate::stack::Route;

/// Bounds of the two kinds of histograms.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) seconds: Arc<Buckets>,
    pub(super) tokens: Arc<Buckets>,
}

/// Handles of one deployment and revision, resolved once: recording is atomics only.
#[derive(Debug)]
pub struct Series {
    /// Label `deployment`.
    pub deployment: Arc<str>,
    /// Label `revision`.
    pub revision: Arc<str>,
    /// `x-sluice-revision` of its responses.
    pub(crate) revision_header: HeaderValue,
    /// `deployment="…",revision="…"`, escaped.
    pub(super) labels: String,
    /// The same behind vLLM's `model_name="…"`.
    pub(super) model_labels: String,
    /// By route, then by status − 100; a route's table is made on its first request.
    pub(super) requests: [OnceLock<Box<[AtomicU64]>>; Route::COUNT],
    pub(super) faults: [AtomicU64; 3],
    pub(super) finished: [AtomicU64; 3],
    pub(super) prompt_tokens_total: AtomicU64,
    pub(super) generation_tokens_total: AtomicU64,
    pub(super) duration: Histogram,
    pub(super) overhead: Histogram,
    pub(super) e2e: Histogram,
    pub(super) ttft: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) per_output_token: Histogram,
    pub(super) queue: Histogram,
    pub(super) prefill: Histogram,
    pub(super) decode: Histogram,
    pub(super) inference: Histogram,
    pub(super) prompt_tokens: Histogram,
    pub(super) generation_tokens: Histogram,
}

/// Statuses 100 to 599.
const STATUSES: usize = 500;

/// What the layers know about a finished request beside its [`Outcome`].
#[derive(Debug, Clone, Copy)]
pub struct Completed {
    /// Which endpoint.
    pub route: Route,
    /// The status sent, or 499 when the client hung up before.
    pub status: u16,
    /// From the request's head to the end of the response.
    pub total: Duration,
    /// Whose fault, if it failed.
    pub fault: Option<Fault>,
}

impl Series {
    pub(super) fn new(deployment: &str, revision: &str, bounds: &Bounds) -> Self {
        let labels = format!(
            "deployment=\"{}\",revision=\"{}\"",
            escape(deployment),
            escape(revision)
        );
        let seconds = || Histogram::new(&bounds.seconds);
        Self {
            deployment: deployment.into(),
            revision: revision.into(),
            revision_header: HeaderValue::from_str(revision)
                .unwrap_or(HeaderValue::from_static("unprintable")),
            model_labels: format!("model_name=\"{}\",{labels}", escape(deployment)),
            labels,
            requests: [const { OnceLock::new() }; Route::COUNT],
            faults: Default::default(),
            finished: Default::default(),
            prompt_tokens_total: AtomicU64::new(0),
            generation_tokens_total: AtomicU64::new(0),
            duration: seconds(),
            overhead: seconds(),
            e2e: seconds(),
            ttft: seconds(),
            inter_token: seconds(),
            per_output_token: seconds(),
            queue: seconds(),
            prefill: seconds(),
            decode: seconds(),
            inference: seconds(),
            prompt_tokens: Histogram::new(&bounds.tokens),
            generation_tokens: Histogram::new(&bounds.tokens),
        }
    }

    /// Time between two output tokens of one request.
    pub fn inter_token(&self, latency: Duration) {
        self.inter_token.record_duration(latency);
    }

    /// Records a finished request. Atomics only, no allocation but for the first
    /// request of a route.
    pub fn record(&self, completed: &Completed, outcome: &Outcome) {
        let statuses = self.requests[completed.route as usize]
            .get_or_init(|| (0..STATUSES).map(|_| AtomicU64::new(0)).collect());
        let status = usize::from(completed.status.clamp(100, 599)) - 100;
        statuses[status].fetch_add(1, Relaxed);
        self.duration.record_duration(completed.total);
        self.overhead
            .record_duration(completed.total.saturating_sub(outcome.target_time()));
        if let Some(fault) = completed.fault {
            self.faults[fault as usize].fetch_add(1, Relaxed);
        }
        let usage = outcome.usage();
        self.prompt_tokens_total
            .fetch_add(usage.prompt as u64, Relaxed);
        self.generation_tokens_total
            .fetch_add(usage.completion as u64, Relaxed);
        if let Some(reason) = outcome.finish() {
            self.record_generation(reason, completed.total, outcome);
        }
    }

    fn record_generation(&self, reason: FinishReason, total: Duration, outcome: &Outcome) {
        let finished = match reason {
            FinishReason::Stop => 0,
            FinishReason::Length => 1,
            FinishReason::Cancelled | FinishReason::Deadline => 2,
        };
        self.finished[finished].fetch_add(1, Relaxed);
        let usage = outcome.usage();
        self.prompt_tokens.record(usage.prompt as u64);
        self.generation_tokens.record(usage.completion as u64);
        self.e2e.record_duration(total);
        if let Some(ttft) = outcome.ttft() {
            self.ttft.record_duration(ttft);
            if let Some(intervals) = u32::try_from(usage.completion)
                .ok()
                .and_then(|n| n.checked_sub(1))
                && intervals > 0
            {
                self.per_output_token
                    .record_duration(total.saturating_sub(ttft) / intervals);
            }
        }
        let timings = outcome.timings();
        let inference = timings.prefill + timings.decode;
        if !inference.is_zero() {
            self.queue.record_duration(timings.queue);
            self.prefill.record_duration(timings.prefill);
            self.decode.record_duration(timings.decode);
            self.inference.record_duration(inference);
        }
    }

    /// Requests answered with a status, over all routes.
    #[must_use]
    pub fn requests(&self, status: u16) -> u64 {
        let index = usize::from(status.clamp(100, 599)) - 100;
        self.requests
            .iter()
            .filter_map(OnceLock::get)
            .map(|statuses| statuses[index].load(Relaxed))
            .sum()
    }
}

/// A label value in Prometheus' text format.
pub(super) fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
