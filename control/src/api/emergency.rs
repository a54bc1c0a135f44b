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
use sluice_gateway::RequestContext;

use super::problem::Problem;
use super::records::releases::Because;
use super::registry::{BASE, too_slow, unreadable};
use crate::control::Control;
use crate::deploy::{Caller, Settings};
use crate::domain::roles::Role;
use crate::id::DeploymentId;
use crate::release::controller::{Releases, TakenBackTo};
use crate::store::Actor;

/// How long the records may take before they are left aside.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn take_back(control: Control, request: Request, next: Next) -> Response {
    let wanted = target(request.method(), request.uri().path());
    let (Some(wanted), Some(releases)) = (wanted, control.releases()) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    // Whom this process alone would not obey goes the way of all requests, before his body is read.
    if caller(&control, &parts).is_err() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let whole = Limited::new(body, control.settings().max_body).collect();
    let body = match tokio::time::timeout(control.settings().body_timeout, whole).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return unreadable(&*error).into_response(),
        Err(_) => return too_slow().into_response(),
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
    let caller = caller(control, parts)?;
    let (id, endpoint) =
        known(releases, wanted).ok_or_else(|| Problem::not_found("deployment", wanted))?;
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

/// Who asks, by the keys that are published: there is nobody else to ask.
fn caller(control: &Control, parts: &Parts) -> Result<Caller, Problem> {
    let context = parts.extensions.get::<RequestContext>();
    let principal = context.and_then(|context| context.principal.as_ref());
    let Some(principal) = principal else {
        if control.settings().open {
            return Ok(Caller {
                actor: Actor::system("local"),
                role: Role::Admin,
                department: None,
            });
        }
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send an API key as `Authorization: Bearer KEY`",
        ));
    };
    let refused = || Problem::forbidden("this key may not operate releases");
    let name = principal.name.to_string();
    let Some(owner) = &principal.owner else {
        let role = principal.role.as_deref().ok_or_else(refused)?;
        let role: Role = role.parse().map_err(|_| refused())?;
        let mut actor = Actor::system("keys file");
        actor.name = name;
        return Ok(Caller {
            actor,
            role,
            department: None,
        });
    };
    if !owner.operator {
        return Err(refused());
    }
    let id = |error: crate::id::IdError| Problem::forbidden(error.to_string());
    Ok(Caller {
        actor: Actor::person(owner.principal.parse().map_err(id)?, name),
        role: Role::Operator,
        department: Some(owner.department.parse().map_err(id)?),
    })
}
