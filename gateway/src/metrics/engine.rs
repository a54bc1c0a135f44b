//! What engines and upstream pools know of themselves, read at scrape time.

use std::sync::atomic::Ordering::Relaxed;

use metrics::Label;
use serde::Serialize;

use super::exposition::{Exposition, Kind, Value};
use super::series::with;
use super::triton;
use crate::remote::replica::Replica;
use crate::router::{LocalModel, RouteTable, Target};

/// Load of one target at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Gauges {
    /// Requests being computed (for a remote target: in flight).
    pub(super) running: u64,
    /// Requests waiting for a slot.
    pub(super) waiting: u64,
    /// Mean sequences in a step, over the target's life.
    pub(super) batch_size: Option<f64>,
    /// Share of the K/V memory in use, 0 to 1.
    pub(super) kv_usage: Option<f64>,
    /// Prompt tokens looked up in the prefix cache, and of these found.
    #[serde(skip)]
    pub(super) prefix: Option<(u64, u64)>,
}

/// What one model in this process counts; those of a deployment's replicas add up.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    running: u64,
    waiting: u64,
    items: u64,
    runs: u64,
    /// Tokens that K/V memory holds, and could hold.
    kv: Option<(u64, u64)>,
    prefix: Option<(u64, u64)>,
}

impl Counts {
    fn of(model: &LocalModel) -> Self {
        match model {
            LocalModel::Language(model) => {
                let stats = model.generator.stats().snapshot();
                Self {
                    running: stats.running,
                    waiting: stats.waiting,
                    items: stats.generated_tokens,
                    runs: stats.steps,
                    kv: Some((stats.kv_tokens_used, stats.kv_tokens_capacity)),
                    prefix: Some((stats.prefix_queries, stats.prefix_hits)),
                }
            }
            LocalModel::Encoder(encoder) => {
                let (waiting, running) = encoder.load_now();
                let stats = encoder.stats();
                Self {
                    running: running as u64,
                    waiting: waiting as u64,
                    items: stats.count.load(Relaxed),
                    runs: stats.exec_count.load(Relaxed),
                    ..Self::default()
                }
            }
            LocalModel::Tensor(tensor) => {
                let stats = tensor.stats();
                Self {
                    running: stats.running(),
                    waiting: tensor.waiting() as u64,
                    items: stats.inferences(),
                    runs: stats.executions(),
                    ..Self::default()
                }
            }
        }
    }

    fn and(self, other: Self) -> Self {
        let both = |a: Option<(u64, u64)>, b: Option<(u64, u64)>| match (a, b) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1)),
            (one, other) => one.or(other),
        };
        Self {
            running: self.running + other.running,
            waiting: self.waiting + other.waiting,
            items: self.items + other.items,
            runs: self.runs + other.runs,
            kv: both(self.kv, other.kv),
            prefix: both(self.prefix, other.prefix),
        }
    }
}

impl Gauges {
    pub(super) fn of(target: &Target) -> Self {
        let replicas = match target {
            Target::Remote(pool) => {
                return Self {
                    running: pool.in_flight(),
                    ..Self::default()
                };
            }
            Target::Local(replicas) => replicas.all(),
        };
        let all = replicas.iter().map(|replica| Counts::of(&replica.model()));
        let sum = all.fold(Counts::default(), Counts::and);
        Self {
            running: sum.running,
            waiting: sum.waiting,
            batch_size: (sum.runs > 0).then(|| sum.items as f64 / sum.runs as f64),
            kv_usage: sum.kv.map(|(used, of)| used as f64 / of.max(1) as f64),
            prefix: sum.prefix,
        }
    }
}

/// A gauge's or counter's name, kind, help and value (none where it does not apply).
type Family = (&'static str, Kind, &'static str, fn(&Gauges) -> Option<f64>);

const FAMILIES: [Family; 6] = [
    (
        "vllm:num_requests_running",
        Kind::Gauge,
        "Requests being computed.",
        |g| Some(g.running as f64),
    ),
    (
        "vllm:num_requests_waiting",
        Kind::Gauge,
        "Requests waiting for a slot.",
        |g| Some(g.waiting as f64),
    ),
    (
        "vllm:kv_cache_usage_perc",
        Kind::Gauge,
        "K/V memory in use, 0 to 1.",
        |g| g.kv_usage,
    ),
    (
        "sluice_batch_size",
        Kind::Gauge,
        "Mean sequences in a step.",
        |g| g.batch_size,
    ),
    (
        "vllm:prefix_cache_queries_total",
        Kind::Counter,
        "Prompt tokens looked up in the prefix cache.",
        |g| g.prefix.map(|(queries, _)| queries as f64),
    ),
    (
        "vllm:prefix_cache_hits_total",
        Kind::Counter,
        "Prompt tokens found in the prefix cache.",
        |g| g.prefix.map(|(_, hits)| hits as f64),
    ),
];

/// Adds the engines' and upstreams' families.
pub(super) fn collect(into: &mut Exposition, routes: &RouteTable) {
    for (name, kind, help, _) in FAMILIES {
        into.declare(name, kind, help);
    }
    for deployment in routes.revisions() {
        let gauges = Gauges::of(&deployment.target);
        for (name, _, _, value) in FAMILIES {
            if let Some(value) = value(&gauges) {
                let labels = deployment.series.model_labels.clone();
                into.push(name, labels, Value::Number(value));
            }
        }
    }
    weights(into, routes);
    upstreams(into, routes);
    triton::collect(into, routes);
}

/// The candidates' shares of the traffic.
fn weights(into: &mut Exposition, routes: &RouteTable) {
    const WEIGHT: &str = "sluice_release_weight";
    into.declare(
        WEIGHT,
        Kind::Gauge,
        "A candidate's share of the units, 0 to 1.",
    );
    for release in routes.releases() {
        let labels = release.candidate().series.labels.clone();
        let share = release.split().weight().share();
        into.push(WEIGHT, labels, Value::Number(share));
    }
}

/// The same of one upstream.
type UpstreamFamily = (&'static str, Kind, &'static str, fn(&Replica) -> f64);

const UPSTREAMS: [UpstreamFamily; 3] = [
    (
        "sluice_upstream_in_flight",
        Kind::Gauge,
        "Requests in flight to one upstream.",
        |upstream| upstream.in_flight() as f64,
    ),
    (
        "sluice_upstream_ejected",
        Kind::Gauge,
        "1 while an upstream is ejected.",
        |upstream| f64::from(u8::from(upstream.is_ejected())),
    ),
    (
        "sluice_upstream_failures_total",
        Kind::Counter,
        "Failures of one upstream.",
        |upstream| upstream.failures() as f64,
    ),
];

fn upstreams(into: &mut Exposition, routes: &RouteTable) {
    const RETRIES: &str = "sluice_upstream_retries_total";
    for (name, kind, help, _) in UPSTREAMS {
        into.declare(name, kind, help);
    }
    into.declare(RETRIES, Kind::Counter, "Attempts beyond a request's first.");
    for deployment in routes.revisions() {
        let Target::Remote(pool) = &deployment.target else {
            continue;
        };
        let labels = &deployment.series.labels;
        for upstream in pool.upstreams() {
            let url = Label::new("upstream", upstream.label().to_string());
            for (name, _, _, value) in UPSTREAMS {
                into.push(
                    name,
                    with(labels, url.clone()),
                    Value::Number(value(upstream)),
                );
            }
        }
        into.push(
            RETRIES,
            labels.clone(),
            Value::Number(pool.retries() as f64),
        );
    }
}
