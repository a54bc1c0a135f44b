//! Taking back waits for nothing.
//!
//! `POST /deployments/{id}/rollback`, `/releases/{id}/rollback` and `/releases/{id}/abort` are answered by what this process
//! knows: who may, by the keys that are published; what there is to go back to, by what is. The traffic has moved before
//! the database is asked for anything; the records follow, at once or when they can. What is not known here, or not
//! allowed by what was published last, goes the way of all requests.
//!
//! Other commands need the records. Where those are known to be away they are refused at once, with what to use instead.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::emergency_rights;
use super::input::check_text;
use super::problem::Problem;
use super::records::taken_back::{BackTo, TakenBackView};
use super::registry::BASE;
use super::serve::{too_slow, unreadable};
use crate::control::Control;
use crate::deploy::{Caller, DeployError, Settings};
use crate::id::{DeploymentId, WorkOrderId};
use crate::release::controller::{ReleaseError, Releases};

/// How long the records may take where nothing is known of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A deployment is taken back.
    Deployment,
    /// A release is.
    Release,
    /// Something that needs the records, and how it is said.
    Steer(&'static str),
}

/// What a request is answered by.
enum Found {
    Here(Response),
    /// By the records; where they do not answer, by this.
    Records(Option<Response>),
}

pub(super) async fn take_back(control: Control, request: Request, next: Next) -> Response {
    let wanted = target(request.method(), request.uri().path());
    let (Some((asked, named)), Some(releases)) = (wanted, control.releases()) else {
        return next.run(request).await;
    };
    if let Asked::Steer(verb) = asked {
        let answer = by_records(releases, next, request).await;
        return match heard(&control, answer) {
            Some(answer) => answer,
            None => instead(verb, &named).into_response(),
        };
    }
    let (parts, body) = request.into_parts();
    let (found, caller) = match permitted(&control, releases, &parts, asked, &named) {
        Some(Ok(permitted)) => permitted,
        Some(Err(problem)) if releases.is_alone() => return problem.into_response(),
        // Whom this process alone would not obey goes the way of all requests, before his body is read: he may have been
        // given the right a moment ago.
        refused_or_unknown => {
            let asked_again = Request::from_parts(parts, body);
            let answer = by_records(releases, next, asked_again).await;
            // Where they say nothing, what this process knows holds.
            let known = || match refused_or_unknown {
                Some(Err(problem)) => problem.into_response(),
                Some(Ok(_)) | None => unknown(),
            };
            return heard(&control, answer).unwrap_or_else(known);
        }
    };
    let whole = Limited::new(body, control.settings().max_body).collect();
    let body = match tokio::time::timeout(control.settings().body_timeout, whole).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return unreadable(&*error).into_response(),
        Err(_) => return too_slow().into_response(),
    };
    let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let fields = match body.is_empty() {
        true => Some(BackTo::default()),
        // What is wrong with it is said on the way of all requests.
        false => serde_json::from_slice::<BackTo>(&body).ok(),
    };
    let found = match &fields {
        Some(fields) => here(releases, asked, found, &caller, fields).await,
        None => Ok(Found::Records(None)),
    };
    match found {
        Err(problem) => problem.into_response(),
        Ok(Found::Here(answer)) => answer,
        Ok(Found::Records(fallback)) => {
            let answer = by_records(releases, next, again).await;
            match (fallback, answer) {
                // What was done is not told as what could not be.
                (Some(done), answer) => answer.filter(is_answer).unwrap_or(done),
                (None, answer) => heard(&control, answer).unwrap_or_else(unknown),
            }
        }
    }
}

/// What is to be done, and to which deployment or release.
fn target(method: &Method, path: &str) -> Option<(Asked, String)> {
    let path = path.strip_prefix(BASE)?;
    let (name, command) = path.rsplit_once('/')?;
    let (asked, name) = match (name.strip_prefix("/deployments/"), command) {
        (Some(name), "rollback") => (Asked::Deployment, name),
        (Some(name), "stop") => (Asked::Steer("stopped"), name),
        (Some(_), _) => return None,
        (None, command) => {
            let name = name.strip_prefix("/releases/")?;
            let asked = match command {
                "rollback" | "abort" => Asked::Release,
                "pause" => Asked::Steer("paused"),
                "resume" => Asked::Steer("resumed"),
                "promote" => Asked::Steer("promoted"),
                _ => return None,
            };
            (asked, name)
        }
    };
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    (*method == Method::POST).then(|| (asked, name.into_owned()))
}

/// `None` where they are not heard of.
async fn by_records(releases: &Releases, next: Next, request: Request) -> Option<Response> {
    if releases.is_alone() {
        return None;
    }
    tokio::select! {
        answer = tokio::time::timeout(PATIENCE, next.run(request)) => answer.ok(),
        () = releases.alone() => None,
    }
}

fn is_answer(answer: &Response) -> bool {
    answer.status() != StatusCode::SERVICE_UNAVAILABLE
}

/// `None` where it says no more than that the database does not answer; a disk that is full is another matter, which it
/// says itself.
fn heard(control: &Control, answer: Option<Response>) -> Option<Response> {
    let trouble = control.store().and_then(|store| store.trouble());
    let is_away = trouble.is_none_or(|it| it.code == "database_unavailable");
    answer.filter(|answer| is_answer(answer) || !is_away)
}

fn instead(verb: &str, named: &str) -> Problem {
    Problem::unavailable(format!(
        "the database does not answer, and without it nothing can be {verb}; what serves goes on, the analysis takes a \
         release back when its candidate breaks an objective, and `sluice rollback {named}` \
         (POST {BASE}/deployments/{named}/rollback) takes it back at once"
    ))
}

fn unknown() -> Response {
    let text =
        "the database does not answer, and this process knows of nothing to take back by that name";
    Problem::unavailable(text).into_response()
}

/// A deployment, and how it is called.
type Target = (DeploymentId, String);

/// What is named, and who asks, by what was published last; `None` where nothing by that name was.
fn permitted(
    control: &Control,
    releases: &Releases,
    parts: &Parts,
    asked: Asked,
    named: &str,
) -> Option<Result<(Target, Caller), Problem>> {
    let found = known(releases, asked, named)?;
    let not_there = || Problem::not_found("deployment", named);
    let snapshot = releases.snapshot();
    let caller = emergency_rights::caller(control, &snapshot, parts, found.0, not_there);
    Some(caller.map(|caller| (found, caller)))
}

async fn here(
    releases: &Releases,
    asked: Asked,
    (id, endpoint): Target,
    caller: &Caller,
    fields: &BackTo,
) -> Result<Found, Problem> {
    check_text("reason", &fields.reason)?;
    let alone = releases.is_alone();
    let (reason, to) = (&fields.reason, fields.to.as_deref());
    let back = match (asked, to) {
        (Asked::Release, Some(_)) => return Ok(Found::Records(None)),
        (Asked::Release, None) => releases.roll_release_back(caller, id, reason).await,
        (Asked::Deployment | Asked::Steer(_), to) => {
            releases.roll_back(caller, id, reason, to).await.map(Some)
        }
    };
    let back = match back {
        Err(ReleaseError::Deploy(DeployError::Forbidden(_))) if !alone => {
            return Ok(Found::Records(None));
        }
        back => back?,
    };
    let answer = back.map(|it| TakenBackView::of(releases, id, it).into_response(&endpoint));
    Ok(match (asked, answer) {
        // A release is shown as it is by its records.
        (Asked::Release, answer) => Found::Records(answer),
        (Asked::Deployment | Asked::Steer(_), Some(answer)) => Found::Here(answer),
        (Asked::Deployment | Asked::Steer(_), None) => Found::Records(None),
    })
}

/// By what was published last. A release by its own id is that one and no other.
fn known(releases: &Releases, asked: Asked, named: &str) -> Option<(DeploymentId, String)> {
    let snapshot = releases.snapshot();
    let order: Option<WorkOrderId> = named.parse().ok();
    let released = snapshot.releases.iter().map(|it| &it.candidate);
    let live = snapshot.revisions.iter();
    let mut named_so = live.chain(released).filter_map(|it| {
        let endpoint = Settings::read(&it.snapshot).ok()?.endpoint;
        let is_it = match order {
            Some(order) => it.work_order == order,
            None => endpoint == named || it.deployment.to_string() == named,
        };
        is_it.then_some((it.deployment, endpoint))
    });
    let found = named_so.next()?;
    match (asked, order) {
        (Asked::Release, Some(order)) => {
            let release = snapshot.release(found.0)?;
            (release.candidate.work_order == order).then_some(found)
        }
        _ => Some(found),
    }
}

#[cfg(test)]
mod tests;
