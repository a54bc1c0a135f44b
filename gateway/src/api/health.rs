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
use crate::metrics::Reader;
use crate::router::{Deployment, Target};
use crate::{Body, Gateway, RequestContext};

/// The process answers. Says nothing about models, so that a model that is being
/// loaded does not get the process restarted.
pub(crate) fn live() -> Result<Response<Body>, ApiError> {
    json::ok(&json!({"status": "live"}))
}

/// `/health/ready`, of what its query names.
pub(crate) fn asked(
    gateway: &Gateway,
    context: &RequestContext,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let pairs = query.unwrap_or("").split('&');
    let of = pairs
        .filter_map(|pair| pair.strip_prefix("of="))
        .next_back();
    match of {
        None | Some("models") => {
            let reader = Reader::of(Some(context), gateway.config().auth.required);
            ready(gateway, reader, query)
        }
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
///
/// A probe needs no key. Which models there are, and what ails them, is told to those who may see them.
fn ready(
    gateway: &Gateway,
    reader: Reader<'_>,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let named = models_of(query.unwrap_or_default())?;
    let reasons = match &*named {
        [] => reasons(gateway, reader),
        named => reasons_of(gateway, reader, named)?,
    };
    if reasons.is_empty() {
        return json::ok(&json!({"status": "ready"}));
    }
    let mut response = json::ok(&json!({"status": "not ready", "reasons": reasons}))?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Ok(response)
}

/// Whether requests would be served.
pub(crate) fn is_ready(gateway: &Gateway) -> bool {
    reasons(gateway, Reader::All).is_empty()
}

/// Why requests would not be served; empty when they would. While models are loaded, what is
/// built for them and how far it is: that takes minutes.
fn reasons(gateway: &Gateway, reader: Reader<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if !gateway.is_ready() {
        reasons.push("models are being loaded, or the server is draining".to_owned());
        if reader.sees_all() {
            let builds = builds().into_iter();
            reasons.extend(builds.map(|build| format!("the model `{}`: {build}", build.model)));
        }
    }
    let mut hidden = 0;
    let mut tell = |seen: bool, reason: String| match seen {
        true => reasons.push(reason),
        false => hidden += 1,
    };
    for served in gateway.routes().all_served() {
        let deployment = served.stable();
        if let Some(trouble) = trouble(deployment) {
            let reason = format!("the model `{}` {trouble}", deployment.name);
            tell(reader.sees(served), reason);
        }
    }
    for absent in gateway.absent() {
        match &absent.why {
            // Loaded beside what is served, it takes nothing from anybody.
            Absence::Loading => {}
            Absence::Failed(why) => {
                let reason = format!("the model `{}` cannot be loaded: {why}", absent.name);
                tell(reader.sees_absent(&absent), reason);
            }
        }
    }
    match hidden {
        0 => {}
        1 => reasons.push("a model is not served; a key that may see it is told which".to_owned()),
        _ => reasons.push(format!(
            "{hidden} models are not served; a key that may see them is told which"
        )),
    }
    reasons
}

/// The same of some models only. Without a key, whoever knows a name is told whether it is served, and no more.
fn reasons_of(
    gateway: &Gateway,
    reader: Reader<'_>,
    names: &[String],
) -> Result<Vec<String>, ApiError> {
    let mut reasons = Vec::new();
    if gateway.is_draining() {
        reasons.push("the server is draining".to_owned());
    }
    let routes = gateway.routes();
    let absent = gateway.absent();
    for name in names {
        let (seen, why) = match routes.served(name) {
            Some(served) => (
                reader.sees(served),
                trouble(served.stable()).map(str::to_owned),
            ),
            None => {
                let absent = absent.iter().find(|absent| *absent.name == **name);
                let seen = absent.is_none_or(|absent| reader.sees_absent(absent));
                match gateway.absence(name, None) {
                    Some(Absence::Loading) => (seen, Some("is being loaded".to_owned())),
                    Some(Absence::Failed(why)) => (seen, Some(format!("cannot be loaded: {why}"))),
                    None => return Err(ApiError::model_not_found(name)),
                }
            }
        };
        if !seen && matches!(reader, Reader::Holder(_)) {
            return Err(ApiError::model_not_found(name));
        }
        let why = why.map(|why| {
            if seen {
                why
            } else {
                "is not served".to_owned()
            }
        });
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
