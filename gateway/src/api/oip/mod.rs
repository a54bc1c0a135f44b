//! The Open Inference Protocol v2 over REST (KServe's and Triton's), for plain
//! tensor models: `/v2/…`. Errors are `{"error": "…"}`, as its clients expect.

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use serde_json::json;

use crate::context::RequestContext;
use crate::error::ApiError;
use crate::{Body, BoxError, Gateway, full};

mod path;

pub(crate) use path::Oip;

/// Answers `/v2` and all paths below it.
pub(crate) async fn answer<B>(
    gateway: &Gateway,
    context: &RequestContext,
    parts: &Parts,
    body: B,
) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let path = parts.uri.path();
    let Some(endpoint) = Oip::find(path) else {
        return refuse(ApiError::unknown_url(&parts.method, path));
    };
    if !endpoint.takes(&parts.method) {
        return refuse(ApiError::method_not_allowed(&parts.method, path));
    }
    _ = (gateway, context, body);
    refuse(ApiError::unavailable("the tensor protocol is being built"))
}

/// An error in the protocol's form; the status and headers stay as they are.
fn refuse(error: ApiError) -> Response<Body> {
    let text = json!({"error": error.message()}).to_string();
    let (mut parts, _) = error.into_response().into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, full(text))
}
