//! A proper `Host`, and, where nobody is asked for a key, no pages of strangers.
//!
//! A key in a header is proof enough that no foreign page has made the browser send the request:
//! it cannot know one. So with authentication on nothing here but the `Host` itself is looked at.

use std::sync::Arc;

use http::{Request, Response, header};

use super::around::{Inner, Middleware};
use super::{cors, host};
use crate::endpoint::Kind;
use crate::error::ApiError;
use crate::{Body, Gateway, RequestBody, RequestContext};

#[derive(Clone, Copy)]
pub(super) struct Visitor;

impl Middleware for Visitor {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        match check(&gateway, &request) {
            Ok(()) => rest.run(request).await,
            Err(refused) => refused.into_response(),
        }
    }
}

fn check<B>(gateway: &Gateway, request: &Request<B>) -> Result<(), ApiError> {
    let named = host::named(request)
        .map_err(|wrong| ApiError::bad_request("invalid_host", wrong.to_string()))?;
    let config = gateway.config();
    if config.auth.required {
        return Ok(());
    }
    let known = |host| host::is_known(host, &config.server.allowed_hosts);
    if !named.as_ref().is_none_or(known) {
        return Err(ApiError::foreign(
            "unknown_host",
            "The server is not known by this name. Where authentication is off, names beside \
             localhost must be listed in `server.allowed_hosts`.",
        ));
    }
    let headers = request.headers();
    // Pages that may read the answers may ask, too.
    if cors::allowed(&config.server.cors_origins, headers).is_some() {
        return Ok(());
    }
    if host::is_foreign(named.as_ref(), headers) {
        return Err(ApiError::foreign(
            "foreign_origin",
            "A page of another origin may not ask this server. Origins that may are listed in \
             `server.cors_origins`.",
        ));
    }
    if is_done(request) && host::could_be_a_form(request.method(), headers) {
        return Err(ApiError::foreign(
            "content_type_required",
            "Where authentication is off, a write needs `Content-Type: application/json` or \
             `application/octet-stream`, or the header `x-sluice-console: 1`: without, a web page \
             could have sent it.",
        ));
    }
    Ok(())
}

/// Whether what is asked for would be done as it is. A method that is not taken does nothing, whoever sends it: that one is told
/// the right ones. And clients of the Open Inference Protocol (Triton's) name no type at all; a form names one, and a page's
/// script its origin.
fn is_done<B>(request: &Request<B>) -> bool {
    let context = request.extensions().get::<RequestContext>();
    context.is_none_or(|context| {
        let endpoint = context.endpoint();
        let is_untyped = !request.headers().contains_key(header::CONTENT_TYPE);
        let is_tritons = is_untyped && matches!(endpoint.kind, Kind::Tensor(_));
        let taken = endpoint.check(request.method(), request.uri().path());
        let is_refused = endpoint.is_known() && taken.is_err();
        !is_refused && !is_tritons
    })
}
