//! What the server and its models say about themselves: metadata, configuration,
//! repository index and statistics, in Triton's words.

use serde_json::{Value, json};
use sluice_engine::tensor::{Datatype, FailureReason, Phase, TensorModel, TensorSpec};

use crate::router::{Deployment, LocalModel};

/// `GET /v2`.
pub(super) fn server() -> Value {
    json!({
        "name": "sluice",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
    })
}

/// The tensor model of a deployment, if it is one.
pub(super) fn tensor_model(deployment: &Deployment) -> Option<TensorModel> {
    match deployment.target.model().as_deref() {
        Some(LocalModel::Tensor(model)) => Some(model.clone()),
        _ => None,
    }
}

/// Triton's `platform` and `backend` of what computes a deployment.
fn computed_by(deployment: &Deployment) -> (&'static str, &'static str) {
    let native = match deployment.target.model().as_deref() {
        None => return ("openai", "openai"),
        Some(LocalModel::Tensor(model)) => model.is_native(),
        Some(LocalModel::Encoder(model)) => model.is_native(),
        Some(LocalModel::Language(_)) => false,
    };
    match native {
        true => ("tensorrt_plan", "tensorrt"),
        false => ("onnxruntime_onnx", "onnxruntime"),
    }
}

/// `GET /v2/models/{name}`. Models that do not take tensors have no inputs and
/// outputs to show.
pub(super) fn metadata(deployment: &Deployment) -> Value {
    let spec = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.datatype.name(), "shape": spec.dims()});
    let (inputs, outputs) = specs(deployment, spec);
    json!({
        "name": &*deployment.name,
        "versions": [&*deployment.revision],
        "platform": computed_by(deployment).0,
        "inputs": inputs,
        "outputs": outputs,
    })
}

/// `GET /v2/models/{name}/config`: Triton's model configuration, as far as its
/// clients (perf_analyzer) read it. `max_batch_size` 0 says that the shapes are
/// whole: none has a hidden batch dimension.
pub(super) fn config(deployment: &Deployment) -> Value {
    let spec = |spec: &TensorSpec| json!({"name": spec.name, "data_type": config_type(spec.datatype), "dims": spec.dims()});
    let (inputs, outputs) = specs(deployment, spec);
    let (platform, backend) = computed_by(deployment);
    json!({
        "name": &*deployment.name,
        "platform": platform,
        "backend": backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": inputs,
        "output": outputs,
    })
}

fn specs(deployment: &Deployment, spec: impl Fn(&TensorSpec) -> Value) -> (Vec<Value>, Vec<Value>) {
    let Some(model) = tensor_model(deployment) else {
        return (Vec::new(), Vec::new());
    };
    let signature = model.signature();
    let inputs = signature.inputs.iter().map(&spec).collect();
    let outputs = signature.outputs.iter().map(&spec).collect();
    (inputs, outputs)
}

fn config_type(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{}", other.name()),
    }
}

/// One entry of `POST /v2/repository/index`.
pub(super) fn index_entry(deployment: &Deployment, healthy: bool) -> Value {
    json!({
        "name": &*deployment.name,
        "version": &*deployment.revision,
        "state": if healthy { "READY" } else { "UNAVAILABLE" },
        "reason": if healthy { "" } else { "the model's device has failed, or it is being unloaded" },
    })
}

/// One entry of `…/stats`.
pub(super) fn statistics(deployment: &Deployment, model: &TensorModel) -> Value {
    let stats = model.stats();
    let phase = |phase: &Phase| json!({"count": phase.count(), "ns": phase.nanos()});
    let none = json!({"count": 0, "ns": 0});
    json!({
        "name": &*deployment.name,
        "version": &*deployment.revision,
        "last_inference": stats.last_inference_ms(),
        "inference_count": stats.inferences(),
        "execution_count": stats.executions(),
        "inference_stats": {
            "success": phase(&stats.success),
            "fail": phase(&stats.failure),
            "queue": phase(&stats.queue),
            "compute_input": phase(&stats.compute_input),
            "compute_infer": phase(&stats.compute_infer),
            "compute_output": phase(&stats.compute_output),
            "cache_hit": &none,
            "cache_miss": &none,
        },
        "failures": FailureReason::ALL.map(|reason| json!({
            "reason": reason.as_str(),
            "count": stats.failures(reason),
        })),
        "batch_stats": [],
    })
}
