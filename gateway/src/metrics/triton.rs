//! Triton's series for tensor models, under Triton's names and labels, so that its
//! boards work unchanged (mean batch = count / exec_count).

use std::fmt::Write as _;

use sluice_engine::tensor::{FailureReason, TensorModel, TensorStats};

use super::render::header;
use super::series::escape;
use crate::router::{LocalModel, RouteTable, Target};

/// A counter's name, help and value.
type Family = (&'static str, &'static str, fn(&TensorStats) -> u64);

const FAMILIES: [Family; 8] = [
    (
        "nv_inference_request_success",
        "Tensor requests answered.",
        |stats| stats.success.count(),
    ),
    (
        "nv_inference_count",
        "Examples computed; a request of batch size 8 counts 8.",
        TensorStats::inferences,
    ),
    (
        "nv_inference_exec_count",
        "Runs of the graph.",
        TensorStats::executions,
    ),
    (
        "nv_inference_request_duration_us",
        "Time of answered requests, from submission to answer.",
        |stats| stats.success.micros(),
    ),
    (
        "nv_inference_queue_duration_us",
        "Time that requests had waited when they were started.",
        |stats| stats.queue.micros(),
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Time of laying inputs out.",
        |stats| stats.compute_input.micros(),
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time of running the graph.",
        |stats| stats.compute_infer.micros(),
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time of dealing outputs out.",
        |stats| stats.compute_output.micros(),
    ),
];

/// Appends the families of all tensor models; nothing when there is none.
pub(super) fn render(out: &mut String, routes: &RouteTable) {
    let models: Vec<(String, &TensorModel)> = routes
        .deployments()
        .iter()
        .filter_map(|deployment| match &deployment.target {
            Target::Local(LocalModel::Tensor(model)) => Some((
                format!(
                    "model=\"{}\",version=\"{}\",{}",
                    escape(&deployment.name),
                    escape(&deployment.revision),
                    deployment.series.labels
                ),
                model,
            )),
            _ => None,
        })
        .collect();
    if models.is_empty() {
        return;
    }
    for (name, help, value) in FAMILIES {
        header(out, name, "counter", help);
        for (labels, model) in &models {
            _ = writeln!(out, "{name}{{{labels}}} {}", value(model.stats()));
        }
    }
    let (name, help) = (
        "nv_inference_request_failure",
        "Tensor requests refused or failed.",
    );
    header(out, name, "counter", help);
    for (labels, model) in &models {
        for reason in FailureReason::ALL {
            let count = model.stats().failures(reason);
            _ = writeln!(
                out,
                "{name}{{{labels},reason=\"{}\"}} {count}",
                reason.as_str()
            );
        }
    }
    let name = "nv_inference_pending_request_count";
    header(out, name, "gauge", "Tensor requests waiting to be started.");
    for (labels, model) in &models {
        _ = writeln!(out, "{name}{{{labels}}} {}", model.waiting());
    }
}
