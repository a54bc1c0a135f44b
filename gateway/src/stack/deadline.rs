//! Layer 7: until when an answer is worth something.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};

use super::around::{Inner, Middleware};
use crate::endpoint::Access;
use crate::error::ApiError;
use crate::metrics::Shed;
use crate::{Body, Gateway, RequestBody, RequestContext};

const HEADER: &str = "x-request-timeout-ms";

#[derive(Clone, Copy)]
pub(super) struct Deadline;

impl Middleware for Deadline {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        mut request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let context = request.extensions().get::<RequestContext>();
        if context.is_none_or(|context| context.endpoint().access != Access::Full) {
            return rest.run(request).await;
        }
        let limits = &gateway.config().limits;
        let chosen;
        let allowed = match requested(request.headers()) {
            Ok(asked) => {
                chosen = asked.is_some_and(|asked| asked <= limits.max_deadline);
                asked
                    .unwrap_or(limits.default_deadline)
                    .min(limits.max_deadline)
            }
            Err(error) => return error.into_response(),
        };
        let Some(context) = request.extensions_mut().get_mut::<RequestContext>() else {
            return rest.run(request).await;
        };
        if chosen {
            context.outcome.set_own_deadline(allowed);
        }
        let deadline = context.received + allowed;
        context.deadline = Some(deadline);
        match tokio::time::timeout_at(deadline.into(), rest.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                gateway.metrics().shed(Shed::Deadline);
                ApiError::deadline().into_response()
            }
        }
    }
}

fn requested(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    match value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
    {
        Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => Err(ApiError::invalid_value(
            HEADER,
            format!("Invalid '{HEADER}': expected a whole number of milliseconds, at least 1."),
        )),
    }
}
