//! Layer 1: the request's id and context, and what its path means.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use super::around::{Inner, Middleware};
use crate::{Body, Gateway, RequestBody, RequestContext};

/// Name of the id, in requests and responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which revision answered; `none` where no deployment was asked. Left out where
/// `server.revision_header` hides it.
pub const REVISION: HeaderName = HeaderName::from_static("x-sluice-revision");

#[derive(Clone, Copy)]
pub(super) struct RequestId;

impl Middleware for RequestId {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        mut request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let (id, header) = accepted(request.headers()).unwrap_or_else(generated);
        let mut context = RequestContext::new(id, request.uri().path());
        context.shares = Some(Arc::clone(gateway.shares()));
        let outcome = Arc::clone(&context.outcome);
        request.extensions_mut().insert(context);
        let mut response = rest.run(request).await;
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, header);
        if gateway.shows_revision(outcome.principal().map(|principal| &**principal)) {
            let revision = outcome
                .deployment()
                .map_or(HeaderValue::from_static("none"), |deployment| {
                    deployment.series.revision_header.clone()
                });
            headers.insert(REVISION, revision);
        }
        response
    }
}

/// The client's own id, if it is short and plain enough to be logged as it is.
fn accepted(headers: &HeaderMap) -> Option<(Arc<str>, HeaderValue)> {
    let value = headers.get(REQUEST_ID)?;
    let id = value.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(plain))
        .then(|| (Arc::from(id), value.clone()))
}

/// 128 random bits.
fn generated() -> (Arc<str>, HeaderValue) {
    let mut id = String::with_capacity(36);
    _ = write!(id, "req_{:032x}", rand::random::<u128>());
    let header =
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("req_unknown"));
    (Arc::from(id), header)
}
