//! Taking back while the database does not answer.
//!
//! `POST /deployments/{id}/rollback` and `/releases/{id}/rollback` go the way of all requests first. Where that ends in
//! a 503, or in nothing within [`PATIENCE`], the same is asked of this process alone: who may is known from the
//! published keys, what there is to go back to from what is loaded. The records follow when they can.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::emergency_rights;
use super::problem::Problem;
use super::records::releases::Because;
use super::registry::BASE;
use crate::control::Control;
use crate::deploy::Settings;
use crate::id::DeploymentId;
use crate::release::controller::{Releases, TakenBackTo};

/// How long the records may take before they are left aside.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn take_back(control: Control, request: Request, next: Next) -> Response {
    let wanted = target(request.method(), request.uri().path());
    let (Some(wanted), Some(releases)) = (wanted, control.releases()) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let limited = Limited::new(body, control.settings().max_body);
    let body = match limited.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Problem::bad_request(error.to_string()).into_response(),
    };
    let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let answered = tokio::time::timeout(PATIENCE, next.run(again)).await;
    if let Ok(answer) = answered
        && answer.status() != StatusCode::SERVICE_UNAVAILABLE
    {
        return answer;
    }
    let because: Because = serde_json::from_slice(&body).unwrap_or_default();
    match alone(&control, releases, &parts, &wanted, &because.reason).await {
        Ok(answer) => answer,
        Err(problem) => problem.into_response(),
    }
}

/// The deployment or release that is to be taken back.
fn target(method: &Method, path: &str) -> Option<String> {
    let path = path.strip_prefix(BASE)?.strip_suffix("/rollback")?;
    let name = path
        .strip_prefix("/deployments/")
        .or_else(|| path.strip_prefix("/releases/"))?;
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    (*method == Method::POST).then(|| name.into_owned())
}

async fn alone(
    control: &Control,
    releases: &Releases,
    parts: &Parts,
    wanted: &str,
    reason: &str,
) -> Result<Response, Problem> {
    let not_there = || Problem::not_found("deployment", wanted);
    let (id, endpoint) = known(releases, wanted).ok_or_else(not_there)?;
    let caller = emergency_rights::caller(control, &releases.snapshot(), parts, id, not_there)?;
    let answer = match releases.roll_back(&caller, id, reason).await? {
        TakenBackTo::Recorded(order) => {
            json!({"queued": false, "deployment": endpoint, "work_order": order.id})
        }
        TakenBackTo::Queued { revision } => json!({
            "queued": true,
            "deployment": endpoint,
            "revision": revision,
            "message": "taken back; written down when the database answers",
        }),
    };
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = StatusCode::ACCEPTED;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// By what was published last.
fn known(releases: &Releases, wanted: &str) -> Option<(DeploymentId, String)> {
    let snapshot = releases.snapshot();
    let released = snapshot.releases.iter().map(|it| &it.candidate);
    let revisions = snapshot.revisions.iter().chain(released);
    let mut named = revisions.filter_map(|it| {
        let endpoint = Settings::read(&it.snapshot).ok()?.endpoint;
        let is_wanted = endpoint == wanted
            || it.deployment.to_string() == wanted
            || it.work_order.to_string() == wanted;
        is_wanted.then_some((it.deployment, endpoint))
    });
    named.next()
}
