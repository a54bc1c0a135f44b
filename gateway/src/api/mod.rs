//! The endpoints: one file each. The only place that knows OpenAI's JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::error::ApiError;
use crate::{Body, BoxError, Gateway};

/// Answers one request. The stack has put a [`crate::RequestContext`] into its
/// extensions; without one, a fresh context is made (tests).
///
/// Errors are answered in OpenAI's form; an answer always comes back.
pub async fn route<B>(_gateway: Arc<Gateway>, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    ApiError::unknown_url(request.method(), request.uri().path()).into_response()
}
