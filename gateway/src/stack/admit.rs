//! Layer 8: whether there is room.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};

use super::around::{Inner, Middleware};
use crate::endpoint::Access;
use crate::error::ApiError;
use crate::metrics::Shed;
use crate::{Body, Gateway, RequestBody, RequestContext};

/// What a shed client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Admit;

impl Middleware for Admit {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let Some(context) = request.extensions().get::<RequestContext>() else {
            return rest.run(request).await;
        };
        if context.endpoint().access != Access::Full {
            return rest.run(request).await;
        }
        if let Some(refused) = too_large(&gateway, &request) {
            return refused.into_response();
        }
        // The permit is given back when the response's last byte has left.
        if !context.outcome.admit(gateway.admission()) {
            gateway.metrics().shed(Shed::Concurrency);
            return ApiError::overloaded(
                "The server is handling too many requests, please try again later.",
                RETRY_AFTER,
            )
            .into_response();
        }
        rest.run(request).await
    }
}

/// A body that says that it is too large is refused before it is read. (One that
/// does not say is refused while it is read.)
fn too_large(gateway: &Gateway, request: &Request<RequestBody>) -> Option<ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    let bytes: u64 = length.to_str().ok()?.parse().ok()?;
    let limit = gateway.config().server.max_body;
    (bytes > limit as u64).then(|| ApiError::too_large(limit))
}
