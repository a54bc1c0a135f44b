//! The endpoints: one file each. The only place that knows OpenAI's JSON.
//!
//! A request comes in by [`route`]: the table of [`crate::endpoint`] has said what its path
//! means, [`call`] reads its body and finds its model, and the endpoint's file
//! does the rest: parse → ask the engine → answer. What several endpoints share:
//! [`fields`] (reading JSON with errors that name the field), [`peers`] (fields that others
//! document and that are refused), [`sampling`], [`constraint`], [`choices`] (the engine's events) and [`sse`].

mod ask;
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
pub(crate) mod health;
mod ids;
mod json;
mod logprob;
mod models;
mod oip;
mod peers;
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
use crate::endpoint::Kind;
use crate::error::ApiError;
use crate::{Body, BoxError, Gateway};
pub(crate) use ask::ask;
pub(crate) use call::Asked;

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
        None => RequestContext::new(ids::random("req_"), request.uri().path()),
    };
    let answer = dispatch(Arc::clone(&gateway), &context, request).await;
    let mut response = answer.unwrap_or_else(ApiError::into_response);
    stamp(&gateway, &mut response, &context);
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
    let endpoint = context.endpoint();
    if let Kind::Tensor(asked) = endpoint.kind {
        return Ok(oip::answer(&gateway, context, asked, &parts, body).await);
    }
    endpoint.check(&parts.method, parts.uri.path())?;
    let protocol = match endpoint.kind {
        Kind::Model(protocol) => protocol,
        Kind::Live => return health::live(),
        Kind::Ready => return health::asked(&gateway, context, parts.uri.query()),
        Kind::Version => return health::version(),
        Kind::Models => return models::list(&gateway, context),
        Kind::OneModel => {
            let model = context.path.model.as_deref().unwrap_or_default();
            return models::get(&gateway, context, model);
        }
        // What is answered elsewhere, where it is on: here it is not.
        Kind::Tensor(_) | Kind::Metrics | Kind::Stats | Kind::Control | Kind::Unknown => {
            return Err(ApiError::unknown_url(&parts.method, parts.uri.path()));
        }
    };
    body::check_encoding(&parts.headers)?;
    body::check_json(&parts.headers)?;
    let limits = body::Limits::of(gateway.config());
    let body = body::read(&parts.headers, body, limits).await?;
    let asked = Asked::read(protocol, parts, body)?;
    asked.answer(&gateway, context).await
}

/// The headers that every answer carries.
fn stamp(gateway: &Gateway, response: &mut Response<Body>, context: &RequestContext) {
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
    if gateway.shows_revision(context.principal.as_deref())
        && let Some(deployment) = context.outcome.deployment()
    {
        set("x-sluice-revision", &deployment.revision);
    }
    let elapsed = context.received.elapsed().as_millis();
    set("openai-processing-ms", &elapsed.to_string());
}
