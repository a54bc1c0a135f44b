//! Layer 4: a panic in a handler is a 500.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{Request, Response};

use super::around::{Inner, Middleware};
use crate::error::ApiError;
use crate::{Body, Gateway, RequestBody};

#[derive(Clone, Copy)]
pub(super) struct Rescue;

impl Middleware for Rescue {
    async fn handle<S: Inner>(
        _gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        // What the handler held is dropped by the unwinding; nothing of it is used again.
        match AssertUnwindSafe(rest.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                tracing::error!(panic = message(&*panic), "a handler panicked");
                ApiError::internal("The server failed while answering the request.").into_response()
            }
        }
    }
}

/// What was said in panicking.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
