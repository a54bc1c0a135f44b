//! The one list of layers, in the order in which a request meets them.

pub mod access_log;
mod admit;
mod around;
mod authenticate;
mod cors;
mod deadline;
mod host;
mod limit;
mod request_id;
mod rescue;
#[cfg(test)]
mod tests;
mod visitor;

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, header};
use tower::{ServiceBuilder, service_fn};

use crate::endpoint::Kind;
use crate::error::ApiError;
use crate::metrics::{Format, Reader, Shed};
use crate::{Body, Gateway, RequestBody, RequestContext, api, full};
use around::Around;
pub use around::Inner;
pub use request_id::{REQUEST_ID, REVISION};

/// What answers `/api`: set by [`Gateway::set_control`], and not known further here.
pub type ControlService =
    tower::util::BoxCloneSyncService<Request<RequestBody>, Response<Body>, Infallible>;

/// Everything between a connection and `endpoints`. Cheap to clone.
pub fn build<S: Inner>(gateway: &Arc<Gateway>, endpoints: S) -> impl Inner {
    ServiceBuilder::new()
        // Gives the request its id and context; puts id and revision on the answer.
        .layer(Around::new(gateway, request_id::RequestId))
        // Sees every answer to its last byte: log line, metrics, settling, permit.
        .layer(Around::new(gateway, access_log::AccessLog))
        // One proper Host; where no key is asked for, no pages of strangers.
        .layer(Around::new(gateway, visitor::Visitor))
        // Which web pages may read the answers, where any may.
        .layer(Around::new(gateway, cors::Cors))
        // A panic below is a 500, not a lost connection.
        .layer(Around::new(gateway, rescue::Rescue))
        // Who asks: 401 without a known key.
        .layer(Around::new(gateway, authenticate::Authenticate))
        // How much: 429 beyond the key's requests or tokens a minute.
        .layer(Around::new(gateway, limit::Limit))
        // Until when: x-request-timeout-ms; 504 if there is no head by then.
        .layer(Around::new(gateway, deadline::Deadline))
        // Whether there is room: 503 at once when too much is in flight.
        .layer(Around::new(gateway, admit::Admit))
        .service(endpoints)
}

/// What the stack stands around.
pub fn endpoints(gateway: &Arc<Gateway>) -> impl Inner {
    let gateway = Arc::clone(gateway);
    service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(endpoint(gateway, request).await) }
    })
}

async fn endpoint(gateway: Arc<Gateway>, request: Request<RequestBody>) -> Response<Body> {
    let context = request.extensions().get::<RequestContext>();
    let Some(endpoint) = context.map(RequestContext::endpoint) else {
        return ApiError::internal("a request without a context").into_response();
    };
    let method = endpoint.check(request.method(), request.uri().path());
    match (endpoint.kind, method) {
        (Kind::Metrics | Kind::Stats, Err(error)) => error.into_response(),
        (Kind::Metrics, Ok(())) => {
            let format = Format::negotiate(request.headers());
            let context = context.cloned();
            scrape(gateway, format, context).await
        }
        (Kind::Stats, Ok(())) => {
            let reader = Reader::of(context, gateway.config().auth.required);
            let stats = gateway
                .metrics()
                .stats(&gateway.routes(), gateway.observer(), reader);
            with_type(full(stats), "application/json")
        }
        (Kind::Control, _) => match gateway.control() {
            Some(control) => control.clone().run(request).await,
            None => api::route(gateway, request).await,
        },
        _ => {
            let noted = Arc::clone(&gateway);
            let response = api::route(gateway, request).await;
            let serves = matches!(endpoint.kind, Kind::Model(_) | Kind::Tensor(_));
            if serves && response.status() == http::StatusCode::SERVICE_UNAVAILABLE {
                noted.metrics().shed(Shed::Queue);
            }
            response
        }
    }
}

/// Beside the runtime's workers, which must not stand still for the milliseconds that hundreds of
/// deployments take, and one at a time, since an answer is megabytes.
async fn scrape(
    gateway: Arc<Gateway>,
    format: Format,
    context: Option<RequestContext>,
) -> Response<Body> {
    let turn = Arc::clone(&gateway.metrics().scraping).lock_owned().await;
    let exposition = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let reader = Reader::of(context.as_ref(), gateway.config().auth.required);
        gateway
            .metrics()
            .expose_to(&gateway.routes(), format, reader)
    });
    match exposition.await {
        Ok(exposition) => with_type(full(exposition), format.content_type()),
        Err(error) => {
            ApiError::internal(format!("the metrics could not be read: {error}")).into_response()
        }
    }
}

fn with_type(body: Body, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let value = http::HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
