//! `/health`, `/health/live`, `/health/ready` and `/version`.
//!
//! Two things can be ready: the models (`/health/ready`), without which traffic must go elsewhere, and the control plane
//! (`/health/ready?of=control`), without which models are served all the same.

use http::{Response, StatusCode};
use serde_json::json;
use sluice_engine::backend::builds::builds;

use super::json;
use crate::error::ApiError;
use crate::router::{Deployment, Target};
use crate::{Body, Gateway};

/// The process answers. Says nothing about models, so that a model that is being
/// loaded does not get the process restarted.
pub(crate) fn live() -> Result<Response<Body>, ApiError> {
    json::ok(&json!({"status": "live"}))
}

/// `/health/ready`, of what its query names.
pub(crate) fn asked(gateway: &Gateway, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let pairs = query.unwrap_or("").split('&');
    let of = pairs
        .filter_map(|pair| pair.strip_prefix("of="))
        .next_back();
    match of {
        None | Some("models") => ready(gateway),
        Some("control") => control(gateway),
        Some(_) => Err(ApiError::invalid_value(
            "of",
            "should be models (the default) or control",
        )),
    }
}

/// The control plane reads and writes its records. Otherwise 503 with the reasons.
fn control(gateway: &Gateway) -> Result<Response<Body>, ApiError> {
    let faults = gateway.control_health().faults();
    let found: Vec<_> = match &faults {
        Some(faults) => faults
            .iter()
            .map(|it| (it.code, it.reason.as_str()))
            .collect(),
        None => vec![("no_control_plane", "this process runs no control plane")],
    };
    if found.is_empty() {
        return json::ok(&json!({"status": "ready"}));
    }
    let (codes, reasons): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let mut response =
        json::ok(&json!({"status": "not ready", "reasons": reasons, "codes": codes}))?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Ok(response)
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

/// Why requests would not be served; empty when they would. While models are loaded, what is
/// built for them and how far it is: that takes minutes.
pub(crate) fn reasons(gateway: &Gateway) -> Vec<String> {
    let mut reasons = Vec::new();
    if !gateway.is_ready() {
        reasons.push("models are being loaded, or the server is draining".to_owned());
        let builds = builds().into_iter();
        reasons.extend(builds.map(|build| format!("the model `{}`: {build}", build.model)));
    }
    let routes = gateway.routes();
    let broken = routes.deployments().iter().filter_map(|each| {
        let trouble = trouble(each)?;
        Some(format!("the model `{}` {trouble}", each.name))
    });
    reasons.extend(broken);
    reasons
}

/// Whether a deployment would answer. Upstreams look after themselves: one that
/// is away must not take this server's other models out of rotation.
pub(crate) fn healthy(deployment: &Deployment) -> bool {
    trouble(deployment).is_none()
}

/// Why a deployment would not answer.
pub(crate) fn trouble(deployment: &Deployment) -> Option<&'static str> {
    match &deployment.target {
        Target::Remote(_) => None,
        Target::Local(replicas) if replicas.healthy() => None,
        Target::Local(replicas) if replicas.given_up() => {
            Some("has failed and is not being restarted")
        }
        Target::Local(_) => Some("has failed and is being restarted"),
    }
}

/// Name and version of this program, in the form of vLLM's `/version`.
pub(crate) fn version() -> Result<Response<Body>, ApiError> {
    json::ok(&json!({"name": "sluice", "version": env!("CARGO_PKG_VERSION")}))
}
