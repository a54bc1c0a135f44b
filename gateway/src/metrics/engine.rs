//! What engines and upstream pools know of themselves, read at scrape time.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::render::header;
use super::triton;
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

impl Gauges {
    pub(super) fn of(target: &Target) -> Self {
        match target {
            Target::Remote(pool) => Self {
                running: pool.in_flight(),
                ..Self::default()
            },
            Target::Local(model) => Self::of_local(model),
        }
    }

    fn of_local(model: &LocalModel) -> Self {
        let mean = |items: u64, runs: u64| (runs > 0).then(|| items as f64 / runs as f64);
        match model {
            LocalModel::Language(model) => {
                let stats = model.generator.stats().snapshot();
                let capacity = stats.kv_tokens_capacity.max(1) as f64;
                Self {
                    running: stats.running,
                    waiting: stats.waiting,
                    batch_size: mean(stats.generated_tokens, stats.steps),
                    kv_usage: Some(stats.kv_tokens_used as f64 / capacity),
                    prefix: Some((stats.prefix_queries, stats.prefix_hits)),
                }
            }
            LocalModel::Encoder(encoder) => {
                let (waiting, running) = encoder.load_now();
                let stats = encoder.stats();
                Self {
                    running: running as u64,
                    waiting: waiting as u64,
                    batch_size: mean(stats.count.load(Relaxed), stats.exec_count.load(Relaxed)),
                    ..Self::default()
                }
            }
            LocalModel::Tensor(tensor) => {
                let stats = tensor.stats();
                Self {
                    running: stats.running(),
                    waiting: tensor.waiting() as u64,
                    batch_size: mean(stats.inferences(), stats.executions()),
                    ..Self::default()
                }
            }
        }
    }
}

/// A gauge's or counter's name, kind, help and value (none where it does not apply).
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Gauges) -> Option<f64>,
);

const FAMILIES: [Family; 6] = [
    (
        "vllm:num_requests_running",
        "gauge",
        "Requests being computed.",
        |g| Some(g.running as f64),
    ),
    (
        "vllm:num_requests_waiting",
        "gauge",
        "Requests waiting for a slot.",
        |g| Some(g.waiting as f64),
    ),
    (
        "vllm:kv_cache_usage_perc",
        "gauge",
        "K/V memory in use, 0 to 1.",
        |g| g.kv_usage,
    ),
    (
        "sluice_batch_size",
        "gauge",
        "Mean sequences in a step.",
        |g| g.batch_size,
    ),
    (
        "vllm:prefix_cache_queries_total",
        "counter",
        "Prompt tokens looked up in the prefix cache.",
        |g| g.prefix.map(|(queries, _)| queries as f64),
    ),
    (
        "vllm:prefix_cache_hits_total",
        "counter",
        "Prompt tokens found in the prefix cache.",
        |g| g.prefix.map(|(_, hits)| hits as f64),
    ),
];

/// Appends the engines' families.
pub(super) fn render(out: &mut String, routes: &RouteTable) {
    let gauges: Vec<_> = routes
        .deployments()
        .iter()
        .map(|deployment| {
            (
                &deployment.series.model_labels,
                Gauges::of(&deployment.target),
            )
        })
        .collect();
    for (name, kind, help, value) in FAMILIES {
        header(out, name, kind, help);
        for (labels, gauges) in &gauges {
            if let Some(value) = value(gauges) {
                _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
    }
    upstreams(out, routes);
    triton::render(out, routes);
}

fn upstreams(out: &mut String, routes: &RouteTable) {
    let pools = || {
        routes
            .deployments()
            .iter()
            .filter_map(|deployment| match &deployment.target {
                Target::Remote(pool) => Some((&deployment.series.labels, pool)),
                Target::Local(_) => None,
            })
    };
    header(
        out,
        "sluice_upstream_in_flight",
        "gauge",
        "Requests in flight to one upstream.",
    );
    for (labels, pool) in pools() {
        for upstream in pool.upstreams() {
            let (url, count) = (upstream.label(), upstream.in_flight());
            _ = writeln!(
                out,
                "sluice_upstream_in_flight{{{labels},upstream=\"{url}\"}} {count}"
            );
        }
    }
    header(
        out,
        "sluice_upstream_ejected",
        "gauge",
        "1 while an upstream is ejected.",
    );
    for (labels, pool) in pools() {
        for upstream in pool.upstreams() {
            let (url, ejected) = (upstream.label(), u8::from(upstream.is_ejected()));
            _ = writeln!(
                out,
                "sluice_upstream_ejected{{{labels},upstream=\"{url}\"}} {ejected}"
            );
        }
    }
    header(
        out,
        "sluice_upstream_failures_total",
        "counter",
        "Failures of one upstream.",
    );
    for (labels, pool) in pools() {
        for upstream in pool.upstreams() {
            let (url, count) = (upstream.label(), upstream.failures());
            _ = writeln!(
                out,
                "sluice_upstream_failures_total{{{labels},upstream=\"{url}\"}} {count}"
            );
        }
    }
    header(
        out,
        "sluice_upstream_retries_total",
        "counter",
        "Attempts beyond a request's first.",
    );
    for (labels, pool) in pools() {
        _ = writeln!(
            out,
            "sluice_upstream_retries_total{{{labels}}} {}",
            pool.retries()
        );
    }
}
