//! Reading a request's body, within bounds.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::config::Config;
use crate::error::{ApiError, RateLimit};
use crate::{BodyError, BoxError};

/// What a body may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) size: usize,
    /// From the first to the last byte.
    pub(crate) time: Duration,
}

impl Limits {
    /// Those of `[server]`.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            size: config.server.max_body,
            time: config.server.body_timeout,
        }
    }
}

/// Reads a body whole. A declared length over the limit is refused before
/// anything is read, so that the client learns it at once.
pub(crate) async fn read<B>(headers: &HeaderMap, body: B, limits: Limits) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.size as u64) {
        return Err(ApiError::too_large(limits.size));
    }
    let whole = Limited::new(body, limits.size).collect();
    match tokio::time::timeout(limits.time, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(unreadable(&error, limits.size)),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

/// Why a body could not be read to its end.
pub(crate) fn unreadable(error: &BoxError, limit: usize) -> ApiError {
    if error.is::<LengthLimitError>() {
        return ApiError::too_large(limit);
    }
    match error.downcast_ref::<BodyError>() {
        Some(BodyError::TooSlow(_)) => ApiError::body_timeout(),
        Some(slow @ BodyError::TooMany(_)) => {
            let message = format!("Too many requests at once: {slow}.");
            ApiError::rate_limited(RateLimit::Requests, message, Duration::from_secs(1))
        }
        Some(BodyError::Broken(_)) | None => ApiError::bad_request(
            "incomplete_body",
            format!("The request body could not be read: {error}"),
        ),
    }
}

/// Refuses a compressed body, which would be refused as broken JSON otherwise.
/// (Unpacking it would let a small request become a large one.)
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else {
        return Ok(());
    };
    let encoding = value.to_str().unwrap_or("bytes that are no text").trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        Ok(())
    } else {
        Err(ApiError::content_encoding(encoding))
    }
}

/// Refuses a body that says that it is something else than JSON. As at OpenAI, a
/// missing type is fine; so are curl's default and `text/plain`.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let Ok(text) = value.to_str() else {
        return Err(ApiError::content_type("bytes that are no text"));
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let lower = essence.to_ascii_lowercase();
    let lenient = [
        "",
        "application/json",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/json",
        "text/plain",
    ];
    if lenient.contains(&lower.as_str()) || lower.ends_with("+json") {
        Ok(())
    } else {
        Err(ApiError::content_type(essence))
    }
}
