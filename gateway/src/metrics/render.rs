//! `/metrics`: Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::histogram::Histogram;
use super::{Metrics, Series, Shed, engine};
use crate::context::Fault;
use crate::router::RouteTable;
use crate::stack::Route;

/// The media type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, help, and where it is found; with vLLM's labels when `vllm`.
struct Family {
    name: &'static str,
    help: &'static str,
    of: fn(&Series) -> &Histogram,
}

const HISTOGRAMS: [Family; 12] = [
    Family {
        name: "sluice_request_duration_seconds",
        help: "From the request's head to the end of the response.",
        of: |series| &series.duration,
    },
    Family {
        name: "sluice_gateway_overhead_seconds",
        help: "Of that, the time not spent waiting for the engine or upstream.",
        of: |series| &series.overhead,
    },
    Family {
        name: "vllm:e2e_request_latency_seconds",
        help: "End-to-end latency of generations.",
        of: |series| &series.e2e,
    },
    Family {
        name: "vllm:time_to_first_token_seconds",
        help: "From the request's head to the first output token.",
        of: |series| &series.ttft,
    },
    Family {
        name: "vllm:inter_token_latency_seconds",
        help: "Between two output tokens of one request.",
        of: |series| &series.inter_token,
    },
    Family {
        name: "vllm:request_time_per_output_token_seconds",
        help: "Mean time per output token of one request, the first excluded.",
        of: |series| &series.per_output_token,
    },
    Family {
        name: "vllm:request_queue_time_seconds",
        help: "From submission to the first step.",
        of: |series| &series.queue,
    },
    Family {
        name: "vllm:request_prefill_time_seconds",
        help: "From the first step to the first token.",
        of: |series| &series.prefill,
    },
    Family {
        name: "vllm:request_decode_time_seconds",
        help: "From the first token to the last.",
        of: |series| &series.decode,
    },
    Family {
        name: "vllm:request_inference_time_seconds",
        help: "Prefill and decode together.",
        of: |series| &series.inference,
    },
    Family {
        name: "vllm:request_prompt_tokens",
        help: "Prompt tokens of one request.",
        of: |series| &series.prompt_tokens,
    },
    Family {
        name: "vllm:request_generation_tokens",
        help: "Generated tokens of one request.",
        of: |series| &series.generation_tokens,
    },
];

/// Name, help, and where it is found.
type Total = (&'static str, &'static str, fn(&Series) -> &AtomicU64);

impl Metrics {
    /// The whole exposition. Engine gauges are read from `routes` now.
    #[must_use]
    pub fn render(&self, routes: &RouteTable) -> String {
        let series = self.all_series();
        let mut out = String::with_capacity(4096 + series.len() * 8192);
        for family in &HISTOGRAMS {
            histogram(&mut out, family, &series);
        }
        self.requests(&mut out, &series);
        self.tokens(&mut out, &series);
        self.shed_total(&mut out);
        engine::render(&mut out, routes);
        header(
            &mut out,
            "sluice_log_dropped_total",
            "counter",
            "Requests that could not be logged.",
        );
        let dropped = self.dropped_records.load(Relaxed);
        _ = writeln!(out, "sluice_log_dropped_total {dropped}");
        out
    }

    fn requests(&self, out: &mut String, series: &[Arc<Series>]) {
        header(
            out,
            "sluice_requests_total",
            "counter",
            "Requests by route and status.",
        );
        for one in series.iter().chain([&self.unrouted]) {
            for route in Route::ALL {
                let Some(statuses) = one.requests[route as usize].get() else {
                    continue;
                };
                for (index, count) in statuses.iter().enumerate() {
                    let count = count.load(Relaxed);
                    if count > 0 {
                        _ = writeln!(
                            out,
                            "sluice_requests_total{{{},route=\"{}\",status=\"{}\"}} {count}",
                            one.labels,
                            route.as_str(),
                            index + 100
                        );
                    }
                }
            }
        }
        header(
            out,
            "sluice_request_faults_total",
            "counter",
            "Requests that were not answered as asked, by whose fault it was.",
        );
        for one in series.iter().chain([&self.unrouted]) {
            for fault in [Fault::Client, Fault::Cancelled, Fault::Server] {
                let count = one.faults[fault as usize].load(Relaxed);
                let (labels, fault) = (&one.labels, fault.as_str());
                _ = writeln!(
                    out,
                    "sluice_request_faults_total{{{labels},fault=\"{fault}\"}} {count}"
                );
            }
        }
    }

    fn tokens(&self, out: &mut String, series: &[Arc<Series>]) {
        header(
            out,
            "vllm:request_success_total",
            "counter",
            "Generations by how they ended.",
        );
        for one in series {
            for (reason, count) in ["stop", "length", "abort"].iter().zip(&one.finished) {
                let (labels, count) = (&one.model_labels, count.load(Relaxed));
                _ = writeln!(
                    out,
                    "vllm:request_success_total{{{labels},finished_reason=\"{reason}\"}} {count}"
                );
            }
        }
        let totals: [Total; 2] = [
            ("vllm:prompt_tokens_total", "Prompt tokens.", |series| {
                &series.prompt_tokens_total
            }),
            (
                "vllm:generation_tokens_total",
                "Generated tokens.",
                |series| &series.generation_tokens_total,
            ),
        ];
        for (name, help, of) in totals {
            header(out, name, "counter", help);
            for one in series {
                _ = writeln!(
                    out,
                    "{name}{{{}}} {}",
                    one.model_labels,
                    of(one).load(Relaxed)
                );
            }
        }
    }

    fn shed_total(&self, out: &mut String) {
        header(
            out,
            "sluice_shed_total",
            "counter",
            "Requests turned away before any work, by reason.",
        );
        for ((_, reason), count) in Shed::ALL.iter().zip(&self.shed) {
            let count = count.load(Relaxed);
            _ = writeln!(out, "sluice_shed_total{{reason=\"{reason}\"}} {count}");
        }
    }
}

fn histogram(out: &mut String, family: &Family, series: &[Arc<Series>]) {
    header(out, family.name, "histogram", family.help);
    let vllm = family.name.starts_with("vllm:");
    for one in series {
        let histogram = (family.of)(one);
        if histogram.count() > 0 {
            let labels = if vllm { &one.model_labels } else { &one.labels };
            histogram.render(out, family.name, labels);
        }
    }
}

pub(super) fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    for part in [
        "# HELP ",
        name,
        " ",
        help,
        "\n# TYPE ",
        name,
        " ",
        kind,
        "\n",
    ] {
        out.push_str(part);
    }
}
