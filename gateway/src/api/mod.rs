//! The endpoints: one file each. The only place that knows OpenAI's JSON.
//!
//! A request comes in by [`route`]: [`paths`] says which [`paths::Endpoint`] it
//! means, [`call`] reads its body and finds its model, and the endpoint's file
//! does the rest: parse → ask the engine → answer. What several endpoints share:
//! [`fields`] (reading JSON with errors that name the field), [`sampling`],
//! [`constraint`], [`choices`] (the engine's events) and [`sse`].

mod body;
mod call;
mod chat;
mod choices;
mod chunk;
mod classify;
mod completions;
mod constraint;
mod embeddings;
mod fields;
#[cfg(test)]
mod fuzz;
mod health;
mod ids;
mod json;
mod logprob;
mod models;
mod oip;
pub(crate) mod paths;
mod prompt;
mod release;
mod rerank;
mod sampling;
mod sse;
mod stream;
#[cfg(test)]
mod tests;
mod tokenize;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};

use crate::context::RequestContext;
use crate::error::ApiError;
use crate::{Body, BoxError, Gateway};
pub(crate) use call::Asked;
use paths::{Endpoint, Health};

/// Answers one request. The stack has put a [`RequestContext`] into its
/// extensions; without one a fresh context is made.
///
/// Errors are answered in OpenAI's form; an answer always comes back.
pub async fn route<B>(gateway: Arc<Gateway>, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let context = match request.extensions().get::<RequestContext>() {
        Some(context) => context.clone(),
        None => RequestContext::new(ids::random("req_")),
    };
    let answer = dispatch(gateway, &context, request).await;
    let mut response = answer.unwrap_or_else(ApiError::into_response);
    stamp(&mut response, &context);
    response
}

async fn dispatch<B>(
    gateway: Arc<Gateway>,
    context: &RequestContext,
    request: Request<B>,
) -> Result<Response<Body>, ApiError>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let is_oip = path == "/v2" || path.starts_with("/v2/");
    if is_oip && path != "/v2/rerank" {
        return Ok(oip::answer(&gateway, context, &parts, body).await);
    }
    let Some(endpoint) = Endpoint::find(path) else {
        return Err(ApiError::unknown_url(&parts.method, path));
    };
    if !endpoint.takes(&parts.method) {
        return Err(ApiError::method_not_allowed(
            &parts.method,
            path,
            endpoint.methods(),
        ));
    }
    match endpoint {
        Endpoint::Health(Health::Live) => return health::live(),
        Endpoint::Health(Health::Ready) => return health::asked(&gateway, parts.uri.query()),
        Endpoint::Version => return health::version(),
        Endpoint::Models => return models::list(&gateway, context),
        Endpoint::Model(id) => return models::get(&gateway, context, &id),
        _ => {}
    }
    body::check_encoding(&parts.headers)?;
    let limits = body::Limits::of(gateway.config());
    let body = body::read(&parts.headers, body, limits).await?;
    body::check_json(&parts.headers)?;
    let asked = Asked::read(endpoint, parts, body)?;
    asked.answer(&gateway, context).await
}

/// The headers that every answer carries.
fn stamp(response: &mut Response<Body>, context: &RequestContext) {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        let name = HeaderName::from_static(name);
        if let Ok(value) = HeaderValue::from_str(value)
            && !headers.contains_key(&name)
        {
            headers.insert(name, value);
        }
    };
    set("x-request-id", &context.id);
    if let Some(deployment) = context.outcome.deployment() {
        set("x-sluice-revision", &deployment.revision);
    }
    let elapsed = context.received.elapsed().as_millis();
    set("openai-processing-ms", &elapsed.to_string());
}
