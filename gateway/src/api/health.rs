//! `/health`, `/health/live`, `/health/ready` and `/version`.
//!
//! Two things can be ready: the models (`/health/ready`), without which traffic must go elsewhere, and the control plane
//! (`/health/ready?of=control`), without which models are served all the same.

use http::{Response, StatusCode};
use serde_json::json;
use sluice_engine::backend::builds::builds;

use super::json;
use crate::absent::Absence;
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
        None | Some("models") => ready(gateway, query),
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
/// begun. Otherwise 503 with the reasons. `?model=NAME`, also more than once, asks for these
/// models only, so that one department's loss takes no other's traffic from the node.
pub(crate) fn ready(gateway: &Gateway, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let named = models_of(query.unwrap_or_default())?;
    let reasons = match &*named {
        [] => reasons(gateway),
        named => reasons_of(gateway, named)?,
    };
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
    let absent = gateway.absent().into_iter();
    reasons.extend(absent.filter_map(|each| match each.why {
        // Loaded beside what is served, it takes nothing from anybody.
        Absence::Loading => None,
        Absence::Failed(why) => Some(format!("the model `{}` cannot be loaded: {why}", each.name)),
    }));
    reasons
}

/// The same of some models only.
fn reasons_of(gateway: &Gateway, names: &[String]) -> Result<Vec<String>, ApiError> {
    let mut reasons = Vec::new();
    if gateway.is_draining() {
        reasons.push("the server is draining".to_owned());
    }
    let routes = gateway.routes();
    for name in names {
        let why = match (routes.find(name), gateway.absence(name, None)) {
            (Some(deployment), _) => trouble(deployment).map(str::to_owned),
            (None, Some(Absence::Loading)) => Some("is being loaded".to_owned()),
            (None, Some(Absence::Failed(why))) => Some(format!("cannot be loaded: {why}")),
            (None, None) => return Err(ApiError::model_not_found(name)),
        };
        reasons.extend(why.map(|why| format!("the model `{name}` {why}")));
    }
    Ok(reasons)
}

/// The models that a query names.
fn models_of(query: &str) -> Result<Vec<String>, ApiError> {
    form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key != "of")
        .map(|(key, value)| match &*key {
            "model" => Ok(value.into_owned()),
            _ => Err(ApiError::unsupported(
                key.into_owned(),
                "Only 'model' and 'of' are taken here: /health/ready?model=NAME, /health/ready?of=control.",
            )),
        })
        .collect()
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
