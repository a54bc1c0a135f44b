//! `/api/v1`: the records and their states over HTTP.
//!
//! A request passes [`registry`] (route, right, key's scope, strict input), then a handler in `records`, which
//! calls the store; it leaves as a record, a page or a [`problem`]. Rights are checked in one place each: the role
//! before the handler, department and secrecy by what [`resource`] lets a caller find at all.
//!
//! The routes and their types are written once. The OpenAPI document at `/api/v1/openapi.json` and the page at
//! `/api/v1/docs` are made of them.

mod body;
mod call;
mod caller;
mod content;
mod emergency;
mod emergency_rights;
mod events;
pub(crate) mod file_people;
mod idempotency;
mod input;
mod openapi;
mod problem;
mod records;
mod registry;
mod resource;
mod route;
mod serve;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use axum::Router;
use axum::middleware::from_fn;
use axum::response::{Html, IntoResponse as _};
use axum::routing::get;
use http::{HeaderValue, Request, header};
use sluice_gateway::stack::ControlService;
use sluice_gateway::{Body, RequestBody};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use crate::control::Control;
use registry::{BASE, Registry};

pub use problem::{FieldError, Problem};

/// The routes, and the document that describes them.
fn routes(control: &Control) -> (Router, serde_json::Value) {
    let mut api = Registry::new(control.clone());
    records::people::serve_all(&mut api);
    records::keys::serve_all(&mut api);
    records::models::serve_all(&mut api);
    records::versions::serve_all(&mut api);
    records::approvals::serve_all(&mut api);
    records::requirements::serve_all(&mut api);
    records::datasets::serve_all(&mut api);
    records::trainings::serve_all(&mut api);
    records::evaluations::serve_all(&mut api);
    records::evaluation_runs::serve_all(&mut api);
    records::artifacts::serve_all(&mut api);
    records::uploads::serve_all(&mut api);
    records::downloads::serve_all(&mut api);
    records::imports::serve_all(&mut api);
    records::conversions::serve_all(&mut api);
    records::deployments::serve_all(&mut api);
    records::work_orders::serve_all(&mut api);
    records::releases::serve_all(&mut api);
    records::tasks::serve_all(&mut api);
    records::accounting::serve_all(&mut api);
    records::names::serve_all(&mut api);
    records::apply::serve_all(&mut api);
    api.finish()
}

/// What the API is, as an OpenAPI 3.1 document.
pub fn openapi() -> serde_json::Value {
    routes(&Control::new(crate::control::ControlSettings::default())).1
}

/// All of `/api`, as a router.
pub fn router(control: &Control) -> Router {
    let (router, document) = routes(control);
    let document = document.to_string();
    let json = move || {
        let document = document.clone();
        async move {
            let mut response = document.into_response();
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            response
        }
    };
    // Taking back does not wait for the database.
    let control = control.clone();
    let router = router.layer(from_fn(move |request, next| {
        emergency::take_back(control.clone(), request, next)
    }));
    // The description is of no record and says nothing of one: whoever may reach the API may read it.
    router
        .route(&format!("{BASE}/openapi.json"), get(json))
        .route(&format!("{BASE}/docs"), get(|| async { page() }))
}

/// A page for people, made in the browser from the document; nothing is loaded from elsewhere.
fn page() -> axum::response::Response {
    let mut response = Html(include_str!("docs.html")).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
        ),
    );
    response
}

/// The API as the gateway takes it.
pub fn service(control: &Control) -> ControlService {
    let router = router(control);
    BoxCloneSyncService::new(service_fn(move |request: Request<RequestBody>| {
        let router = router.clone();
        async move {
            let request = request.map(axum::body::Body::new);
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(response.map(|body| {
                use http_body_util::BodyExt as _;
                Body::new(body.map_err(Into::into))
            }))
        }
    }))
}
