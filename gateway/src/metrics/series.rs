//! The handles of one deployment and revision.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use metrics::{Counter, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use sluice_engine::request::FinishReason;

use crate::context::{Fault, Outcome};
use crate::endpoint::{Endpoint, RouteLabel};

/// Where handles come from.
pub type SharedRecorder = Arc<dyn Recorder + Send + Sync>;

/// Handles of one deployment and revision, resolved once: recording is atomics only.
pub struct Series {
    /// Label `deployment`.
    pub deployment: Arc<str>,
    /// Label `revision`.
    pub revision: Arc<str>,
    /// `x-sluice-revision` of its responses.
    pub(crate) revision_header: HeaderValue,
    /// `deployment` and `revision`.
    pub(super) labels: Vec<Label>,
    /// The same behind vLLM's `model_name`.
    pub(super) model_labels: Vec<Label>,
    recorder: SharedRecorder,
    /// By route, then by status − 100; both are made when they are first met.
    requests: [OnceLock<Box<[OnceLock<Counter>]>>; RouteLabel::COUNT],
    faults: [Counter; 3],
    retried: Counter,
    duration: Histogram,
    overhead: Histogram,
    tokens: Tokens,
}

/// What generations have beside other requests, under vLLM's names.
struct Tokens {
    finished: [Counter; 3],
    prompt_total: Counter,
    generation_total: Counter,
    e2e: Histogram,
    ttft: Histogram,
    inter_token: Histogram,
    per_output_token: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    prompt: Histogram,
    generation: Histogram,
}

/// Statuses 100 to 599.
const STATUSES: usize = 500;

/// What the layers know about a finished request beside its [`Outcome`].
#[derive(Debug, Clone, Copy)]
pub struct Completed {
    /// Which endpoint.
    pub endpoint: &'static Endpoint,
    /// The status sent, or 499 when the client hung up before.
    pub status: u16,
    /// From the request's head to the end of the response.
    pub total: Duration,
    /// Whose fault, if it failed.
    pub fault: Option<Fault>,
}

impl Series {
    /// Registers the series of a deployment and revision.
    #[must_use]
    pub fn new(recorder: SharedRecorder, deployment: &str, revision: &str) -> Self {
        let (deployment, revision) = (Arc::from(deployment), Arc::from(revision));
        let labels = pair_labels(&deployment, &revision);
        let mut model_labels = vec![Label::new("model_name", Arc::clone(&deployment))];
        model_labels.extend_from_slice(&labels);
        let ours = Scope::new(&*recorder, labels.clone());
        let (duration, overhead) = (
            ours.seconds(
                "sluice_request_duration_seconds",
                "From the request's head to the end of the response.",
            ),
            ours.seconds(
                "sluice_gateway_overhead_seconds",
                "Of that, the time not spent waiting for the engine or upstream.",
            ),
        );
        Self {
            revision_header: HeaderValue::from_str(&revision)
                .unwrap_or(HeaderValue::from_static("unprintable")),
            requests: [const { OnceLock::new() }; RouteLabel::COUNT],
            faults: faults(&ours),
            retried: ours.counter(
                "sluice_release_retries_total",
                "Requests that a candidate failed and its stable revision answered.",
            ),
            duration,
            overhead,
            tokens: Tokens::new(&Scope::new(&*recorder, model_labels.clone())),
            deployment,
            revision,
            labels,
            model_labels,
            recorder,
        }
    }

    /// Registers what is counted of requests without a deployment: status and fault.
    pub(super) fn unrouted(recorder: SharedRecorder) -> Self {
        let nothing = Arc::from("");
        let labels = pair_labels(&nothing, &nothing);
        Self {
            revision_header: HeaderValue::from_static(""),
            requests: [const { OnceLock::new() }; RouteLabel::COUNT],
            faults: faults(&Scope::new(&*recorder, labels.clone())),
            retried: Counter::noop(),
            duration: Histogram::noop(),
            overhead: Histogram::noop(),
            tokens: Tokens::noop(),
            deployment: Arc::clone(&nothing),
            revision: nothing,
            labels,
            model_labels: Vec::new(),
            recorder,
        }
    }

    /// Time between two output tokens of one request.
    pub fn inter_token(&self, latency: Duration) {
        self.tokens.inter_token.record(latency);
    }

    /// A request was taken from this candidate to its stable revision.
    pub(crate) fn retried_on_stable(&self) {
        self.retried.increment(1);
    }

    /// Records a finished request. Atomics only, but for the first of a route and status.
    pub fn record(&self, completed: &Completed, outcome: &Outcome) {
        self.requests(completed.endpoint.label, completed.status)
            .increment(1);
        self.duration.record(completed.total);
        self.overhead
            .record(completed.total.saturating_sub(outcome.target_time()));
        if let Some(fault) = completed.fault {
            self.faults[fault as usize].increment(1);
        }
        self.tokens.record(completed.total, outcome);
    }

    fn requests(&self, route: RouteLabel, status: u16) -> &Counter {
        let status = status.clamp(100, 599);
        let statuses = self.requests[route as usize]
            .get_or_init(|| (0..STATUSES).map(|_| OnceLock::new()).collect());
        statuses[usize::from(status) - 100].get_or_init(|| {
            let labels = with(&self.labels, Label::new("route", route.as_str()));
            Scope::new(&*self.recorder, labels).counter_of(
                "sluice_requests_total",
                "Requests by route and status.",
                ("status", status.to_string()),
            )
        })
    }
}

impl Tokens {
    fn new(vllm: &Scope<'_>) -> Self {
        Self {
            finished: ["stop", "length", "abort"].map(|reason| {
                vllm.counter_of(
                    "vllm:request_success_total",
                    "Generations by how they ended.",
                    ("finished_reason", reason),
                )
            }),
            prompt_total: vllm.counter("vllm:prompt_tokens_total", "Prompt tokens."),
            generation_total: vllm.counter("vllm:generation_tokens_total", "Generated tokens."),
            e2e: vllm.seconds(
                "vllm:e2e_request_latency_seconds",
                "End-to-end latency of generations.",
            ),
            ttft: vllm.seconds(
                "vllm:time_to_first_token_seconds",
                "From the request's head to the first output token.",
            ),
            inter_token: vllm.seconds(
                "vllm:inter_token_latency_seconds",
                "Between two output tokens of one request.",
            ),
            per_output_token: vllm.seconds(
                "vllm:request_time_per_output_token_seconds",
                "Mean time per output token of one request, the first excluded.",
            ),
            queue: vllm.seconds(
                "vllm:request_queue_time_seconds",
                "From submission to the first step.",
            ),
            prefill: vllm.seconds(
                "vllm:request_prefill_time_seconds",
                "From the first step to the first token.",
            ),
            decode: vllm.seconds(
                "vllm:request_decode_time_seconds",
                "From the first token to the last.",
            ),
            inference: vllm.seconds(
                "vllm:request_inference_time_seconds",
                "Prefill and decode together.",
            ),
            prompt: vllm.count(
                "vllm:request_prompt_tokens",
                "Prompt tokens of one request.",
            ),
            generation: vllm.count(
                "vllm:request_generation_tokens",
                "Generated tokens of one request.",
            ),
        }
    }

    fn noop() -> Self {
        Self {
            finished: [const { Counter::noop() }; 3],
            prompt_total: Counter::noop(),
            generation_total: Counter::noop(),
            e2e: Histogram::noop(),
            ttft: Histogram::noop(),
            inter_token: Histogram::noop(),
            per_output_token: Histogram::noop(),
            queue: Histogram::noop(),
            prefill: Histogram::noop(),
            decode: Histogram::noop(),
            inference: Histogram::noop(),
            prompt: Histogram::noop(),
            generation: Histogram::noop(),
        }
    }

    fn record(&self, total: Duration, outcome: &Outcome) {
        let usage = outcome.usage();
        self.prompt_total.increment(usage.prompt as u64);
        self.generation_total.increment(usage.completion as u64);
        let Some(reason) = outcome.finish() else {
            return;
        };
        let finished = match reason {
            FinishReason::Stop => 0,
            FinishReason::Length => 1,
            FinishReason::Cancelled | FinishReason::Deadline => 2,
        };
        self.finished[finished].increment(1);
        self.prompt.record(usage.prompt as f64);
        self.generation.record(usage.completion as f64);
        self.e2e.record(total);
        if let Some(ttft) = outcome.ttft() {
            self.ttft.record(ttft);
            if let Some(intervals) = u32::try_from(usage.completion)
                .ok()
                .and_then(|n| n.checked_sub(1))
                && intervals > 0
            {
                self.per_output_token
                    .record(total.saturating_sub(ttft) / intervals);
            }
        }
        let timings = outcome.timings();
        let inference = timings.prefill + timings.decode;
        if !inference.is_zero() {
            self.queue.record(timings.queue);
            self.prefill.record(timings.prefill);
            self.decode.record(timings.decode);
            self.inference.record(inference);
        }
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series")
            .field("deployment", &self.deployment)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

fn faults(ours: &Scope<'_>) -> [Counter; 3] {
    [Fault::Client, Fault::Cancelled, Fault::Server].map(|fault| {
        ours.counter_of(
            "sluice_request_faults_total",
            "Requests that were not answered as asked, by whose fault it was.",
            ("fault", fault.as_str()),
        )
    })
}

fn pair_labels(deployment: &Arc<str>, revision: &Arc<str>) -> Vec<Label> {
    vec![
        Label::new("deployment", Arc::clone(deployment)),
        Label::new("revision", Arc::clone(revision)),
    ]
}

/// The deployment and revision that a series belongs to.
pub(super) fn pair_of(key: &Key) -> Option<(&str, &str)> {
    let find = |name| key.labels().find(|label| label.key() == name);
    let pair = (find("deployment")?.value(), find("revision")?.value());
    (pair != ("", "")).then_some(pair)
}

/// Labels and one more.
pub(super) fn with(labels: &[Label], label: Label) -> Vec<Label> {
    labels.iter().cloned().chain([label]).collect()
}

/// Describes and registers series that share labels.
pub(super) struct Scope<'a> {
    recorder: &'a dyn Recorder,
    labels: Vec<Label>,
}

/// Recorders may filter by these; ours does not.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl<'a> Scope<'a> {
    pub(super) fn new(recorder: &'a dyn Recorder, labels: Vec<Label>) -> Self {
        Self { recorder, labels }
    }

    pub(super) fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.register_counter(name, help, self.labels.clone())
    }

    /// One of several counters of a name that differ in one label.
    pub(super) fn counter_of(
        &self,
        name: &'static str,
        help: &'static str,
        (label, value): (&'static str, impl Into<metrics::SharedString>),
    ) -> Counter {
        self.register_counter(name, help, with(&self.labels, Label::new(label, value)))
    }

    /// A histogram of durations.
    pub(super) fn seconds(&self, name: &'static str, help: &'static str) -> Histogram {
        self.histogram(name, Unit::Seconds, help)
    }

    /// A histogram of whole numbers.
    pub(super) fn count(&self, name: &'static str, help: &'static str) -> Histogram {
        self.histogram(name, Unit::Count, help)
    }

    fn register_counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Vec<Label>,
    ) -> Counter {
        self.recorder
            .describe_counter(KeyName::from_const_str(name), None, help.into());
        self.recorder
            .register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, unit: Unit, help: &'static str) -> Histogram {
        self.recorder
            .describe_histogram(KeyName::from_const_str(name), Some(unit), help.into());
        self.recorder
            .register_histogram(&Key::from_parts(name, self.labels.clone()), &METADATA)
    }
}
