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
        context.trace = trace(request.headers());
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

/// The trace id of a `traceparent`: `00-TRACE-SPAN-FLAGS`, in lower-case hex. Versions to come
/// begin alike. All zeros are none.
fn trace(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.bytes().all(hex)
    };
    let fits = version.len() == 2 && version != "ff" && trace.len() == 32 && span.len() == 16;
    let known = trace.bytes().any(|byte| byte != b'0');
    (fits && known && [version, trace, span].into_iter().all(is_hex)).then(|| Arc::from(trace))
}

/// 128 random bits.
fn generated() -> (Arc<str>, HeaderValue) {
    let mut id = String::with_capacity(36);
    _ = write!(id, "req_{:032x}", rand::random::<u128>());
    let header =
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("req_unknown"));
    (Arc::from(id), header)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_trace_is_that_of_a_proper_traceparent() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            trace(&headers).map(|it| it.to_string())
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id.into()));
        assert_eq!(
            of(&format!("01-{id}-00f067aa0ba902b7-01-more")),
            Some(id.into())
        );
        for wrong in [
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{id}x-00f067aa0ba902b7-01"),
            format!("00-{id}"),
            "nonsense".into(),
        ] {
            assert_eq!(of(&wrong), None, "{wrong}");
        }
    }
}
