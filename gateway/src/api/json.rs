//! Writing JSON answers.

use bytes::{BufMut as _, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde::Serialize;

use crate::error::ApiError;
use crate::{Body, full};

/// 200 with a JSON body.
pub(crate) fn ok(answer: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| ApiError::internal(format!("the answer could not be written: {error}")))?;
    let mut response = Response::new(full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Appends a value as JSON. What is written here (strings, numbers, plain
/// structs) has no failing case, and the buffer grows as needed.
pub(crate) fn push(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    _ = serde_json::to_writer(out.writer(), value);
}
