//! From a request to its answer, the same for every route: who asks, what was sent, the right to it, and that a repeated
//! write is done once. Handlers come with their types erased ([`Handler`]), so that this is compiled once and not for each
//! of them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Body as AxumBody;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use sluice_gateway::{BodyError, RequestContext};

use super::body::{Sent, discard};
use super::call::{Call, Desk, Done, NoBody};
use super::caller::{Caller, identify};
use super::idempotency::{self, Key};
use super::input;
use super::problem::Problem;
use super::route::{BASE, Route};
use crate::control::Control;
use crate::store::Store;

/// What is left to do for a request that was read and may be made; on the store that it is handed.
pub(super) type Work = Box<dyn FnOnce(Store) -> BoxFuture<'static, Result<Done, Problem>> + Send>;

pub(super) type Doing<T> = Result<BoxFuture<'static, Result<T, Problem>>, Problem>;

/// Reads the query and the body as a route's own types, or says what is wrong with them.
type Reads = dyn Fn(Call<Value, Value>) -> Result<Work, Problem> + Send + Sync;
type Does<B, T> = dyn Fn(Call<Value, B>, HeaderMap) -> Doing<T> + Send + Sync;

/// A route's handler.
pub(super) enum Handler {
    /// Takes a document, gives one.
    Json(Box<Reads>),
    /// Gives something of its own: server-sent events, a page.
    Raw(Box<Does<NoBody, Response>>),
    /// Takes bytes of any length, which it reads as they come and limits itself.
    Bytes(Box<Does<Sent, Done>>),
}

/// A route with what serves it.
pub(super) struct Operation {
    pub route: Route,
    /// The schema of its query, by which that is read.
    pub query: Value,
    pub handler: Handler,
}

/// The answer to a request.
pub(super) async fn serve(
    control: Control,
    operation: Arc<Operation>,
    request: Request,
) -> Response {
    let answered = match &operation.handler {
        Handler::Json(handler) => json(&control, &operation, &**handler, request).await,
        Handler::Raw(handler) => {
            let doing = async {
                let store = store(&control)?;
                let (arrived, body) = Arrived::head(request).await?;
                // Before anything is read of the body.
                let caller = arrived.caller(&control, &store, operation.route).await?;
                arrived.document(&control, operation.route, body).await?;
                let headers = arrived.parts.headers.clone();
                let call = arrived.call(&control, store, caller, &operation, NoBody)?;
                handler(call, headers)?.await
            };
            return doing.await.unwrap_or_else(IntoResponse::into_response);
        }
        Handler::Bytes(handler) => {
            let doing = async {
                let store = store(&control)?;
                let (arrived, body) = Arrived::head(request).await?;
                // From here on: however it ends, the rest of the body is dealt with.
                let sent = Sent::new(body);
                // Who may not is told before anything is read.
                let caller = arrived.caller(&control, &store, operation.route).await?;
                let headers = arrived.parts.headers.clone();
                let call = arrived.call(&control, store, caller, &operation, sent)?;
                let done = handler(call, headers)?.await?;
                Ok(reply(&control, operation.route, done).0)
            };
            doing.await
        }
    };
    look_after(&control, storage_failed(&answered)).await;
    answered.unwrap_or_else(IntoResponse::into_response)
}

async fn json(
    control: &Control,
    operation: &Operation,
    handler: &Reads,
    request: Request,
) -> Result<Response, Problem> {
    let route = operation.route;
    let store = store(control)?;
    let (arrived, body) = Arrived::head(request).await?;
    let caller = arrived.caller(control, &store, route).await?;
    let document = arrived.document(control, route, body).await?;
    let key = match route.writes() {
        true => Key::of(&arrived.parts, caller.principal, &document)?,
        false => None,
    };
    let known = match route.writes() {
        true => None,
        false => arrived.parts.headers.get(header::IF_NONE_MATCH).cloned(),
    };
    let call = arrived.call(control, store.clone(), caller, operation, document)?;
    let work = handler(call)?;
    let Some(key) = key else {
        let done = work(store).await?;
        if let (Some(known), Some(version)) = (known, done.version)
            && names(&known, version)
        {
            return Ok(idempotency::Kept::not_modified(version).into_response());
        }
        return Ok(reply(control, route, done).0);
    };
    let times = control.settings().idempotency;
    let control = control.clone();
    let doing = {
        let control = control.clone();
        async move {
            let replying = control.clone();
            let work = move |store| async move { Ok(reply(&replying, route, work(store).await?)) };
            let done = key.once(&store, times, work).await;
            // Said before it was committed, too, to whoever then found nothing.
            control.announce();
            done
        }
    };
    // The client may leave; what it began is brought to its end. But for taking back: who waits for that no longer has
    // it done by other means.
    if route.path.ends_with("/rollback") {
        doing.await
    } else {
        control.to_the_end(doing).await
    }
}

/// The response, and what is kept of it for those who repeat the request.
fn reply(control: &Control, route: Route, done: Done) -> (Response, idempotency::Kept) {
    if route.writes() {
        control.changed();
    }
    let status = match (&done.created, &done.body) {
        (Some(_), _) => StatusCode::CREATED,
        (None, None) => StatusCode::NO_CONTENT,
        (None, Some(_)) => StatusCode::OK,
    };
    let body = done.body.unwrap_or(Value::Null);
    let kept = idempotency::Kept {
        status: status.as_u16(),
        version: done.version,
        location: done.created.map(|path| format!("{BASE}{path}")),
        body: done.kept.unwrap_or_else(|| body.clone()),
    };
    let shown = idempotency::Kept {
        body,
        ..kept.clone()
    };
    (shown.into_response(), kept)
}

/// Where the storage refused a write, whether it still does: `/health/ready?of=control` says so from this answer on.
async fn look_after(control: &Control, storage_failed: bool) {
    if storage_failed && let Some(store) = control.store() {
        store.look().await;
    }
}

fn storage_failed(answered: &Result<Response, Problem>) -> bool {
    let problem = answered.as_ref().err();
    problem.is_some_and(|it| it.storage_fault().is_some())
}

fn store(control: &Control) -> Result<Store, Problem> {
    control.store().cloned().ok_or_else(|| {
        Problem::unavailable("the control plane has no database yet; the server's log says why")
    })
}

/// A request with its path and headers understood.
struct Arrived {
    parts: Parts,
    path: HashMap<String, String>,
    expected: Option<i64>,
}

impl Arrived {
    /// The body. Who asks, and whether he may, is known before: what is not allowed is not read.
    async fn document(
        &self,
        control: &Control,
        route: Route,
        body: AxumBody,
    ) -> Result<Value, Problem> {
        match route.writes() {
            true => read_body(control, &self.parts.headers, body).await,
            false => Ok(Value::Object(serde_json::Map::new())),
        }
    }

    /// All but the body, which is not read yet.
    async fn head(mut request: Request) -> Result<(Self, AxumBody), Problem> {
        let path = request
            .extract_parts::<RawPathParams>()
            .await
            .map_err(|error| Problem::bad_request(error.to_string()))?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<HashMap<_, _>>();
        if path.values().any(|value| value.contains('\0')) {
            return Err(Problem::bad_request(
                "the path must not hold a NUL character",
            ));
        }
        let (parts, body) = request.into_parts();
        let expected = if_match(&parts.headers)?;
        let arrived = Self {
            parts,
            path,
            expected,
        };
        Ok((arrived, body))
    }

    async fn caller(
        &self,
        control: &Control,
        store: &Store,
        route: Route,
    ) -> Result<Caller, Problem> {
        let caller = identify(control, store, &self.parts).await?;
        caller.check(route.verb, route.writes())?;
        Ok(caller)
    }

    /// The call, its query and body still untyped.
    fn call<B>(
        self,
        control: &Control,
        store: Store,
        caller: Caller,
        operation: &Operation,
        body: B,
    ) -> Result<Call<Value, B>, Problem> {
        let query = input::query(self.parts.uri.query().unwrap_or(""), &operation.query)?;
        let request = self
            .parts
            .extensions
            .get::<RequestContext>()
            .map(|context| context.id.to_string())
            .unwrap_or_default();
        let route = operation.route;
        Ok(Call {
            desk: Desk {
                control: control.clone(),
                store,
                caller,
                verb: route.verb,
                writes: route.writes(),
                request,
            },
            path: self.path,
            query,
            body,
            expected: self.expected,
        })
    }
}

/// Whether `If-None-Match` names this version: a list of tags, weak ones too, or `*` (RFC 9110, 13.1.2).
fn names(known: &HeaderValue, version: i64) -> bool {
    let tag = format!("\"{version}\"");
    let mut tags = known.to_str().unwrap_or("").split(',').map(str::trim);
    tags.any(|it| it == "*" || it.strip_prefix("W/").unwrap_or(it) == tag)
}

fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    if text == "*" {
        return Ok(None);
    }
    text.trim_start_matches("W/")
        .trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| {
            Problem::bad_request("If-Match: should be the version that was read, such as \"3\"")
        })
}

/// Why a body did not come to its end.
pub(super) fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<BodyError>()) {
        Some(BodyError::TooSlow(_)) => too_slow(),
        Some(many @ BodyError::TooMany(_)) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_bodies",
            many.to_string(),
        ),
        Some(BodyError::Broken(_)) | None => Problem::bad_request("the body broke off"),
    }
}

pub(super) fn too_slow() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "request_timeout",
        "the body did not arrive in time",
    )
}

async fn read_body(
    control: &Control,
    headers: &HeaderMap,
    body: AxumBody,
) -> Result<Value, Problem> {
    let limit = control.settings().max_body;
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {limit} bytes"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        // Read and thrown away, so that a client that sends before it reads sees the answer.
        tokio::spawn(discard(body));
        return Err(too_large());
    }
    let whole = Limited::new(body, limit).collect();
    let bytes = tokio::time::timeout(control.settings().body_timeout, whole)
        .await
        .map_err(|_| too_slow())?
        .map_err(
            |error| match error.is::<http_body_util::LengthLimitError>() {
                true => too_large(),
                false => unreadable(&*error),
            },
        )?
        .to_bytes();
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let media = value.split(';').next().unwrap_or("").trim();
            media.eq_ignore_ascii_case("application/json") || media.ends_with("+json")
        });
    if !bytes.is_empty() && !is_json {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type: should be application/json",
        ));
    }
    input::document(&bytes)
}
