//! Layer 6: how much one key may ask a minute.
//!
//! Inference draws on the key's limits and the quotas that it shares; everything else on a limit of its own, so that an
//! application that has used up its department's quota does not lock the operators out. What takes a release back draws
//! on none: it is asked for when something is wrong already. Probes and metrics are never limited.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};

use super::around::{Inner, Middleware};
use crate::endpoint::{Access, Endpoint, Kind};
use crate::error::{ApiError, RateLimit};
use crate::limits::quota::{Purse, Refusal};
use crate::limits::{Exceeded, Level, format_reset};
use crate::metrics::Shed;
use crate::{Body, Gateway, RequestBody, RequestContext};

#[derive(Clone, Copy)]
pub(super) struct Limit;

impl Middleware for Limit {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let Some(context) = request.extensions().get::<RequestContext>() else {
            return rest.run(request).await;
        };
        let outcome = Arc::clone(&context.outcome);
        let purse = outcome.purse(gateway.anonymous());
        match drawn_on(request.method(), request.uri().path(), context.endpoint()) {
            DrawsOn::Nothing => return rest.run(request).await,
            DrawsOn::Control => {
                return match purse.key.take_control(context.received) {
                    Ok(()) => rest.run(request).await,
                    Err(exceeded) => {
                        gateway.metrics().shed(Shed::Requests);
                        too_many_for_control(&exceeded).into_response()
                    }
                };
            }
            DrawsOn::Inference => {}
        }
        if purse.is_unlimited() {
            return rest.run(request).await;
        }
        let estimate = estimate(request.headers());
        if let Err(refused) = purse.take(context.received, estimate) {
            gateway.metrics().shed(match refused.what {
                "tokens" => Shed::Tokens,
                _ => Shed::Requests,
            });
            let mut response = refusal(&refused).into_response();
            describe(purse, response.headers_mut());
            return response;
        }
        outcome.reserve(estimate);
        let mut response = rest.run(request).await;
        describe(purse, response.headers_mut());
        response
    }
}

/// Which limits a request is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DrawsOn {
    Nothing,
    Control,
    Inference,
}

/// By method and path alone: nothing of the request has been read yet.
pub(super) fn drawn_on(method: &Method, path: &str, endpoint: &Endpoint) -> DrawsOn {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let listed = matches!(
        endpoint.kind,
        Kind::Models | Kind::OneModel | Kind::Tensor(_)
    );
    match endpoint.access {
        Access::Open | Access::Operations => DrawsOn::Nothing,
        Access::Control if takes_back(method, path) => DrawsOn::Nothing,
        Access::Control => DrawsOn::Control,
        // Lists of models, and the tensor protocol's metadata and readiness.
        Access::Full if reads && listed => DrawsOn::Control,
        Access::Full => DrawsOn::Inference,
    }
}

/// Whether a request takes traffic from a revision: the way back is open however full it is.
pub(super) fn takes_back(method: &Method, path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    *method == Method::POST && ["rollback", "abort", "stop"].contains(&last)
}

fn too_many_for_control(exceeded: &Exceeded) -> ApiError {
    let message = format!(
        "Rate limit reached: {} requests per minute that are no inference (limits.control_requests_per_minute). \
         Please try again in {}.",
        exceeded.limit,
        format_reset(exceeded.retry_after)
    );
    ApiError::rate_limited(RateLimit::Requests, message, exceeded.retry_after)
}

/// Tokens to reserve before anything is read: a token is about four bytes of
/// JSON. Settled when the outcome is known.
fn estimate(headers: &HeaderMap) -> u64 {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .map_or(256, |bytes| (bytes / 4).max(1))
}

fn refusal(refused: &Refusal) -> ApiError {
    let (limit, unit) = match refused.what {
        "tokens" => (RateLimit::Tokens, "tokens"),
        _ => (RateLimit::Requests, "requests"),
    };
    let whose = match &refused.quota {
        Some(quota) => format!(" of the {quota}"),
        None => String::new(),
    };
    let message = format!(
        "Rate limit reached: {} {unit} per {}{whose}. Please try again in {}.",
        refused.limit,
        refused.period,
        format_reset(refused.retry_after)
    );
    ApiError::rate_limited(limit, message, refused.retry_after)
}

/// OpenAI's `x-ratelimit-*` headers, about the limit that is nearest.
fn describe(purse: Purse<'_>, headers: &mut HeaderMap) {
    const NAMES: [[HeaderName; 3]; 2] = [
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ];
    for (level, [limit, remaining, reset]) in purse.levels(Instant::now()).into_iter().zip(NAMES) {
        let Some(Level {
            limit: of,
            remaining: left,
            reset: until,
        }) = level
        else {
            continue;
        };
        headers.insert(limit, HeaderValue::from(of));
        headers.insert(remaining, HeaderValue::from(left));
        if let Ok(value) = HeaderValue::from_str(&format_reset(until)) {
            headers.insert(reset, value);
        }
    }
}
