//! The Open Inference Protocol v2 over REST (KServe's and Triton's), for plain
//! tensor models: `/v2/…`. Errors are `{"error": "…"}`, as its clients expect.
//!
//! Reading order: the rows of [`crate::endpoint`] (what is asked), this file (the endpoints),
//! [`request`] and [`response`] (an inference's body), [`elements`] and
//! [`binary`] (tensors in JSON and in bytes), [`describe`] (metadata, statistics).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use sluice_engine::request::Timings;
use sluice_engine::tensor::{InferError, Inference, TensorModel};

use crate::api::ask::{Question, Told, Unanswered, ask_released};
use crate::api::body::unreadable;
use crate::api::health::{healthy, is_ready};
use crate::api::prompt;
use crate::context::RequestContext;
use crate::endpoint::Tensor;
use crate::error::ApiError;
use crate::metrics::Shed;
use crate::release::Class;
use crate::remote::RemotePool;
use crate::router::split::Subject;
use crate::router::{Deployment, LocalModel, RouteError};
use crate::{Body, BoxError, Gateway, full};

mod binary;
mod describe;
mod elements;
mod request;
mod response;
#[cfg(test)]
mod tests;

use request::InferRequest;
use response::InferResponse;

/// Where the JSON of a body ends and binary tensors begin.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Bodies above this are parsed and written on the blocking pool, so that other
/// connections of the same thread do not wait.
const INLINE: usize = 256 << 10;

type Answer = Result<Response<Body>, ApiError>;

/// Answers `/v2` and all paths below it.
pub(crate) async fn answer<B>(
    gateway: &Gateway,
    context: &RequestContext,
    asked: Tensor,
    parts: &Parts,
    body: B,
) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let path = parts.uri.path();
    if let Err(error) = context.endpoint().check(&parts.method, path) {
        return refuse(error);
    }
    let answer = match asked {
        Tensor::Server => Ok(ok(&describe::server())),
        Tensor::Live => Ok(ok(&json!({"live": true}))),
        Tensor::Ready => {
            let is_ready = is_ready(gateway);
            Ok(ready(&json!({"ready": is_ready}), is_ready))
        }
        Tensor::Index => index(gateway, context, parts, body).await,
        Tensor::Repository => Err(ApiError::bad_request(
            "unsupported_value",
            "models are loaded and unloaded through the server's configuration, not by this request",
        )),
        Tensor::AllStatistics => Ok(all_statistics(gateway, context)),
        Tensor::Unknown => Err(ApiError::unknown_url(&parts.method, path)),
        Tensor::Metadata => about(gateway, context).map(|of| ok(&describe::metadata(&of))),
        Tensor::Config => about(gateway, context).map(|of| ok(&describe::config(&of))),
        Tensor::ModelReady => about(gateway, context)
            .map(|of| model_ready(gateway, &of))
            .or_else(|error| not_ready(context, error)),
        Tensor::Statistics => about(gateway, context).and_then(|of| statistics(&of)),
        Tensor::Infer => match routed(gateway, context, parts) {
            Ok(deployment) => infer(gateway, context, parts, body, &deployment).await,
            Err(error) => Err(error),
        },
    };
    answer.unwrap_or_else(refuse)
}

/// The deployment that a question is about: the revision that the path names, or else the
/// stable one.
fn about(gateway: &Gateway, context: &RequestContext) -> Result<Arc<Deployment>, ApiError> {
    let (name, version) = named(context);
    found(gateway.deployment(context, name, version), name, version)
}

/// The deployment that runs an inference: the revision that the path names, or else one of
/// the two of a release.
fn routed(
    gateway: &Gateway,
    context: &RequestContext,
    parts: &Parts,
) -> Result<Arc<Deployment>, ApiError> {
    let (name, version) = named(context);
    let subject = Subject {
        headers: &parts.headers,
        user: None,
        principal: context.principal.as_deref(),
    };
    let routed = match version {
        Some(version) => gateway.route_to(context, name, version, &subject),
        None => gateway.route(context, name, &subject).map(Some),
    };
    found(routed, name, version)
}

/// The names in the path. A row of the table that needs one fits no path without.
fn named(context: &RequestContext) -> (&str, Option<&str>) {
    let path = &context.path;
    (
        path.model.as_deref().unwrap_or_default(),
        path.version.as_deref(),
    )
}

fn found(
    found: Result<Option<Arc<Deployment>>, RouteError>,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Deployment>, ApiError> {
    let found = found.map_err(|error| ApiError::from_route(&error, name))?;
    found.ok_or_else(|| {
        let version = version.unwrap_or_default();
        ApiError::model_not_found(&format!("{name}/versions/{version}"))
    })
}

fn model_ready(gateway: &Gateway, deployment: &Deployment) -> Response<Body> {
    let is_ready = !gateway.is_draining() && healthy(deployment);
    ready(
        &json!({"name": &*deployment.name, "ready": is_ready}),
        is_ready,
    )
}

/// A model that is meant to be served and is not answers this question, too.
fn not_ready(context: &RequestContext, error: ApiError) -> Answer {
    if error.status() != StatusCode::SERVICE_UNAVAILABLE {
        return Err(error);
    }
    let (name, _) = named(context);
    Ok(ready(&json!({"name": name, "ready": false}), false))
}

/// The models that the caller's key may use; only the healthy ones when the body
/// says `{"ready": true}`.
async fn index<B>(gateway: &Gateway, context: &RequestContext, parts: &Parts, body: B) -> Answer
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = read_body(gateway, &parts.headers, body).await?;
    let wanted: Value = match &*body {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(ApiError::malformed)?,
    };
    let ready_only = wanted.get("ready").and_then(Value::as_bool) == Some(true);
    let routes = gateway.routes();
    let entries: Vec<_> = routes
        .usable(context.principal.as_deref())
        .map(|deployment| (deployment, !gateway.is_draining() && healthy(deployment)))
        .filter(|(_, healthy)| *healthy || !ready_only)
        .map(|(deployment, healthy)| describe::index_entry(deployment, healthy))
        .collect();
    Ok(ok(&Value::Array(entries)))
}

fn all_statistics(gateway: &Gateway, context: &RequestContext) -> Response<Body> {
    let routes = gateway.routes();
    let entries: Vec<_> = routes
        .usable(context.principal.as_deref())
        .filter_map(|each| Some(describe::statistics(each, &describe::tensor_model(each)?)))
        .collect();
    ok(&json!({"model_stats": entries}))
}

fn statistics(deployment: &Deployment) -> Answer {
    let model = describe::tensor_model(deployment).ok_or_else(|| no_tensor_model(deployment))?;
    Ok(ok(
        &json!({"model_stats": [describe::statistics(deployment, &model)]}),
    ))
}

fn no_tensor_model(deployment: &Deployment) -> ApiError {
    ApiError::bad_request(
        "unsupported_value",
        format!(
            "the model `{}` does not take tensors; use the endpoints under /v1",
            deployment.name
        ),
    )
}

async fn infer<B>(
    gateway: &Gateway,
    context: &RequestContext,
    parts: &Parts,
    body: B,
    deployment: &Arc<Deployment>,
) -> Answer
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let inference = RawInference {
        gateway,
        json_length: json_length(&parts.headers)?,
        body: read_body(gateway, &parts.headers, body).await?,
    };
    let placement = context.outcome.placement();
    let answer = ask_released(&inference, context, placement, deployment).await;
    answer.or_else(Told::into_result)
}

/// An inference as it came.
struct RawInference<'a> {
    gateway: &'a Gateway,
    json_length: Option<usize>,
    body: Bytes,
}

impl Question for RawInference<'_> {
    fn needs_executor(&self) -> bool {
        true
    }

    async fn ask_model(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        model: Arc<LocalModel>,
    ) -> Result<Response<Body>, Unanswered> {
        let LocalModel::Tensor(model) = &*model else {
            return Err(no_tensor_model(deployment).into());
        };
        let (json_length, body) = (self.json_length, self.body.clone());
        infer_on(self.gateway, context, json_length, body, deployment, model).await
    }

    async fn ask_upstream(
        &self,
        _context: &RequestContext,
        deployment: &Arc<Deployment>,
        _pool: &RemotePool,
    ) -> Result<Response<Body>, Unanswered> {
        Err(no_tensor_model(deployment).into())
    }
}

async fn infer_on(
    gateway: &Gateway,
    context: &RequestContext,
    json_length: Option<usize>,
    body: Bytes,
    deployment: &Deployment,
    model: &TensorModel,
) -> Result<Response<Body>, Unanswered> {
    let size = body.len();
    let request = off_path(context, size, move || {
        InferRequest::parse(&body, json_length)
    })
    .await??;
    let timeout = request
        .timeout
        .and_then(|timeout| context.received.checked_add(timeout));
    let deadline = context.deadline.into_iter().chain(timeout).min();

    let started = Instant::now();
    let result = model
        .infer_timed(request.inputs, Some(&request.outputs), deadline)
        .await;
    context.outcome.add_target_time(started.elapsed());
    let Inference { outputs, timings } = result.map_err(|error| failed(gateway, &error))?;
    context.outcome.add_timings(Timings {
        queue: timings.queue,
        prefill: timings.compute,
        decode: Duration::ZERO,
    });

    let size = outputs.iter().map(|tensor| tensor.data.len() * 8).sum();
    let (name, revision) = (
        Arc::clone(&deployment.name),
        Arc::clone(&deployment.revision),
    );
    let (id, encoding) = (request.id, request.encoding);
    off_path(context, size, move || {
        response::write(&name, &revision, id.as_deref(), &outputs, &encoding)
    })
    .await?
    .map(infer_response)
    .map_err(|error| ApiError::internal(error.to_string()).into())
}

/// The one mapping from the engine's refusals.
fn failed(gateway: &Gateway, error: &InferError) -> Unanswered {
    let text = error.to_string();
    let error = match error {
        InferError::Unavailable(_) => return Unanswered::NotBegun(ApiError::unavailable(text)),
        InferError::Invalid { .. } | InferError::Refused(_) => {
            ApiError::bad_request("invalid_value", text)
        }
        InferError::QueueFull { retry_after, .. } => {
            gateway.metrics().shed(Shed::Queue);
            ApiError::overloaded(text, *retry_after)
        }
        InferError::DeadlineUnmeetable { expected_wait } => {
            gateway.metrics().shed(Shed::Deadline);
            let told = Told::Error(ApiError::overloaded(text, *expected_wait));
            return Unanswered::Failed(Class::OwnDeadline, told);
        }
        InferError::Deadline => ApiError::deadline(),
        InferError::Failed(_) => ApiError::internal(text),
    };
    error.into()
}

fn infer_response(answer: InferResponse) -> Response<Body> {
    let Some(json_length) = answer.json_length else {
        return json_body(answer.body);
    };
    let mut response = Response::new(full(answer.body));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(JSON_LENGTH, HeaderValue::from(json_length));
    response
}

/// `Inference-Header-Content-Length`, when the body has a binary part.
fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| {
        ApiError::bad_request(
            "invalid_value",
            "Inference-Header-Content-Length must be the number of bytes of the JSON part",
        )
    })
}

/// Reads a body whole, within the limits of `[server]`.
async fn read_body<B>(gateway: &Gateway, headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let compressed = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if compressed {
        return Err(ApiError::bad_request(
            "unsupported_value",
            "compressed request bodies are not supported; send it without Content-Encoding",
        ));
    }
    let server = &gateway.config().server;
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > server.max_body as u64) {
        return Err(ApiError::too_large(server.max_body));
    }
    let whole = Limited::new(body, server.max_body).collect();
    match tokio::time::timeout(server.body_timeout, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(unreadable(&error, server.max_body)),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

/// Runs work on a body of that size where it disturbs nobody.
async fn off_path<T: Send + 'static>(
    context: &RequestContext,
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if size <= INLINE {
        return Ok(work());
    }
    let turn = prompt::turn(context, size).await;
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::internal("the request's body could not be processed"))
}

fn ok(value: &Value) -> Response<Body> {
    json_body(value.to_string().into_bytes())
}

/// The same with the status that load balancers look at.
fn ready(value: &Value, is_ready: bool) -> Response<Body> {
    let mut response = ok(value);
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn json_body(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An error in the protocol's form; status and headers stay as they are.
fn refuse(error: ApiError) -> Response<Body> {
    let text = json!({"error": error.message()}).to_string();
    let (parts, _) = error.into_response().into_parts();
    Response::from_parts(parts, full(text))
}
