//! The endpoints: one file each. The only place that knows OpenAI's JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::error::ApiError;
use crate::{Body, BoxError, Gateway, RequestContext};

mod oip;

/// Answers one request. The stack has put a [`crate::RequestContext`] into its
/// extensions; without one, a fresh context is made (tests).
///
/// Errors are answered in OpenAI's form; an answer always comes back.
pub async fn route<B>(gateway: Arc<Gateway>, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/v2" || path.starts_with("/v2/") {
        let context = match parts.extensions.get::<RequestContext>() {
            Some(context) => context.clone(),
            None => RequestContext::new("none"),
        };
        return oip::answer(&gateway, &context, &parts, body).await;
    }
    ApiError::unknown_url(&parts.method, path).into_response()
}
