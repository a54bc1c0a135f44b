//! Triton's series for tensor models, under Triton's names and labels, so that its
//! boards work unchanged (mean batch = count / exec_count).

use std::sync::Arc;

use metrics::Label;
use sluice_engine::tensor::{FailureReason, TensorModel, TensorStats};

use super::exposition::{Exposition, Kind, Value};
use super::series::with;
use crate::replicas::Replica;
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

/// Adds the families of all tensor models; nothing when there is none.
pub(super) fn collect(into: &mut Exposition, routes: &RouteTable) {
    const FAILURES: &str = "nv_inference_request_failure";
    const PENDING: &str = "nv_inference_pending_request_count";
    for (name, help, _) in FAMILIES {
        into.declare(name, Kind::Counter, help);
    }
    into.declare(
        FAILURES,
        Kind::Counter,
        "Tensor requests refused or failed.",
    );
    into.declare(
        PENDING,
        Kind::Gauge,
        "Tensor requests waiting to be started.",
    );
    for deployment in routes.revisions() {
        let models = tensor_models(&deployment.target);
        if models.is_empty() {
            continue;
        }
        // Those of a deployment's replicas add up.
        let sum = |value: &dyn Fn(&TensorStats) -> u64| {
            let all = models.iter().map(|model| value(model.stats()));
            Value::Number(all.sum::<u64>() as f64)
        };
        let mut labels = vec![
            Label::new("model", Arc::clone(&deployment.name)),
            Label::new("version", Arc::clone(&deployment.revision)),
        ];
        labels.extend_from_slice(&deployment.series.labels);
        for (name, _, value) in FAMILIES {
            into.push(name, labels.clone(), sum(&value));
        }
        for reason in FailureReason::ALL {
            let labels = with(&labels, Label::new("reason", reason.as_str()));
            into.push(FAILURES, labels, sum(&|stats| stats.failures(reason)));
        }
        let pending: usize = models.iter().map(TensorModel::waiting).sum();
        into.push(PENDING, labels, Value::Number(pending as f64));
    }
}

fn tensor_models(target: &Target) -> Vec<TensorModel> {
    let Target::Local(replicas) = target else {
        return Vec::new();
    };
    let tensor = |replica: &Replica| match &*replica.model() {
        LocalModel::Tensor(model) => Some(model.clone()),
        _ => None,
    };
    replicas.all().iter().filter_map(tensor).collect()
}
