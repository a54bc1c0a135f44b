//! Layer 3: which web pages may read the answers (CORS). Off unless origins are
//! configured: a server on loopback must not be open to every page that its user visits.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::around::{Inner, Middleware};
use crate::{Body, Gateway, RequestBody, full};

#[derive(Clone, Copy)]
pub(super) struct Cors;

/// What a page's script may read of an answer's head, beyond the few headers that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-sluice-revision, openai-processing-ms, retry-after, \
     x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
);
/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

impl Middleware for Cors {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let allowed = allowed(&gateway.config().server.cors_origins, request.headers());
        let Some(origin) = allowed else {
            return rest.run(request).await;
        };
        let preflight = request.method() == Method::OPTIONS
            && request
                .headers()
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = if preflight {
            answer_preflight(request.headers())
        } else {
            rest.run(request).await
        };
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

/// The origin to name in the answer, if the request has one that may read it.
pub(super) fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let listed = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    origins.iter().any(listed).then(|| origin.clone())
}

/// A browser asks before it sends; it carries no key yet.
fn answer_preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}
