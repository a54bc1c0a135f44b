//! Layer 6: how much one key may ask a minute.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};

use super::around::{Inner, Middleware};
use crate::endpoint::Access;
use crate::error::{ApiError, RateLimit};
use crate::limits::quota::{Purse, Refusal};
use crate::limits::{Level, format_reset};
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
        let access = context.endpoint().access;
        if !matches!(access, Access::Full | Access::Control) {
            return rest.run(request).await;
        }
        let outcome = Arc::clone(&context.outcome);
        let purse = outcome.purse(gateway.anonymous());
        if purse.is_unlimited() {
            return rest.run(request).await;
        }
        let estimate = match access {
            Access::Control => 0,
            _ => estimate(request.headers()),
        };
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
