//! `/health`, `/health/live`, `/health/ready` and `/version`.

use http::{Response, StatusCode};
use serde_json::json;

use super::json;
use crate::error::ApiError;
use crate::router::{Deployment, LocalModel, Target};
use crate::{Body, Gateway};

/// The process answers. Says nothing about models, so that a model that is being
/// loaded does not get the process restarted.
pub(crate) fn live() -> Result<Response<Body>, ApiError> {
    json::ok(&json!({"status": "live"}))
}

/// Requests would be served: models are loaded and healthy, and no drain has
/// begun. Otherwise 503 with the reasons.
pub(crate) fn ready(gateway: &Gateway) -> Result<Response<Body>, ApiError> {
    let reasons = reasons(gateway);
    let mut response = if reasons.is_empty() {
        json::ok(&json!({"status": "ready"}))?
    } else {
        json::ok(&json!({"status": "not ready", "reasons": reasons}))?
    };
    if !reasons.is_empty() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Why requests would not be served; empty when they would.
pub(crate) fn reasons(gateway: &Gateway) -> Vec<String> {
    let mut reasons = Vec::new();
    if !gateway.is_ready() {
        reasons.push("models are being loaded, or the server is draining".to_owned());
    }
    let routes = gateway.routes();
    let broken = routes.deployments().iter().filter(|each| !healthy(each));
    reasons.extend(broken.map(|each| format!("the model `{}` is unhealthy", each.name)));
    reasons
}

/// Whether a deployment would answer. Upstreams look after themselves: one that
/// is away must not take this server's other models out of rotation.
pub(crate) fn healthy(deployment: &Deployment) -> bool {
    match &deployment.target {
        Target::Local(LocalModel::Language(model)) => model.generator.healthy(),
        Target::Local(LocalModel::Encoder(encoder)) => encoder.healthy(),
        Target::Local(LocalModel::Tensor(tensor)) => tensor.healthy(),
        Target::Remote(_) => true,
    }
}

/// Name and version of this program, in the form of vLLM's `/version`.
pub(crate) fn version() -> Result<Response<Body>, ApiError> {
    json::ok(&json!({"name": "sluice", "version": env!("CARGO_PKG_VERSION")}))
}
