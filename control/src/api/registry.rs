//! The one list of routes. Registering a route names the right that it takes and its types, and out of that come
//! the checks before the handler, the OpenAPI document, and the table that the tests try each role against:
//! a route that is missing from one of them cannot be written.

use std::collections::HashMap;
use std::future::Future;

use axum::RequestExt as _;
use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, on};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_gateway::{BodyError, RequestContext};

use super::body::{Sent, discard};
use super::call::{Answer, Call, Desk, NoBody, NoQuery, Payload};
use super::caller::{Caller, identify};
use super::idempotency::{self, Key};
use super::input;
use super::openapi::{Document, Operation, RequestBody};
use super::problem::Problem;
pub(super) use super::route::{BASE, Route, delete, get, patch, post, put};
use crate::control::Control;
use crate::store::Store;

/// Routes as they are registered.
pub(super) struct Registry {
    control: Control,
    paths: Vec<(&'static str, MethodRouter)>,
    generator: SchemaGenerator,
    document: Document,
}

impl Registry {
    pub(super) fn new(control: Control) -> Self {
        let settings = schemars::generate::SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            control,
            paths: Vec::new(),
            generator: settings.into_generator(),
            document: Document::new(),
        }
    }

    fn add(&mut self, path: &'static str, routed: MethodRouter) {
        match self.paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).merge(routed),
            None => self.paths.push((path, routed)),
        }
    }

    /// A route that answers with JSON.
    pub(super) fn route<Q, B, T, H, F>(&mut self, route: Route, handler: H)
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: Payload + 'static,
        T: Serialize + JsonSchema + Send + 'static,
        H: Fn(Call<Q, B>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
    {
        let shown = self.generator.subschema_for::<T>();
        let query = self.describe::<Q, B>(route, Some(shown));
        let control = self.control.clone();
        let answer = move |request: Request| {
            let (control, handler, query) = (control.clone(), handler.clone(), query.clone());
            async move {
                let answered = answer(&control, route, &query, request, handler).await;
                look_after(&control, storage_failed(&answered)).await;
                answered.unwrap_or_else(IntoResponse::into_response)
            }
        };
        self.add(route.path, on(route.filter(), answer));
    }

    /// A route that answers with something of its own: server-sent events, a document.
    pub(super) fn raw<Q, H, F>(&mut self, route: Route, handler: H)
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        H: Fn(Call<Q, NoBody>, HeaderMap) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let query = self.describe::<Q, NoBody>(route, None);
        let control = self.control.clone();
        let answer = move |request: Request| {
            let (control, handler, query) = (control.clone(), handler.clone(), query.clone());
            async move {
                let answered = async {
                    let store = store(&control)?;
                    let (arrived, body) = Arrived::head(request).await?;
                    // Before anything is read of the body.
                    let caller = arrived.caller(&control, &store, route).await?;
                    arrived.document(&control, route, body).await?;
                    let headers = arrived.parts.headers.clone();
                    let call = arrived.call(&control, store, caller, route, &query, NoBody)?;
                    handler(call, headers).await
                };
                answered.await.unwrap_or_else(IntoResponse::into_response)
            }
        };
        self.add(route.path, on(route.filter(), answer));
    }

    /// A route whose body is bytes of any length, which its handler reads as they come. It limits them itself.
    pub(super) fn bytes<T, H, F>(&mut self, route: Route, handler: H)
    where
        T: Serialize + JsonSchema + Send + 'static,
        H: Fn(Call<NoQuery, Sent>, HeaderMap) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
    {
        let shown = self.generator.subschema_for::<T>();
        let query = self.note::<NoQuery>(route, RequestBody::Bytes, Some(shown));
        let control = self.control.clone();
        let answer = move |request: Request| {
            let (control, handler, query) = (control.clone(), handler.clone(), query.clone());
            async move {
                let answered: Result<Response, Problem> = async {
                    let store = store(&control)?;
                    let (arrived, body) = Arrived::head(request).await?;
                    // From here on: however it ends, the rest of the body is dealt with.
                    let sent = Sent::new(body);
                    // Who may not is told before anything is read.
                    let caller = arrived.caller(&control, &store, route).await?;
                    let headers = arrived.parts.headers.clone();
                    let call = arrived.call(&control, store, caller, route, &query, sent)?;
                    let answer = handler(call, headers).await?;
                    reply(&control, route, answer).map(|(response, _)| response)
                }
                .await;
                look_after(&control, storage_failed(&answered)).await;
                answered.unwrap_or_else(IntoResponse::into_response)
            }
        };
        self.add(route.path, on(route.filter(), answer));
    }

    /// Notes the operation; returns the schema of its query, by which that is read.
    fn describe<Q: JsonSchema, B: Payload>(
        &mut self,
        route: Route,
        answer: Option<schemars::Schema>,
    ) -> Value {
        let body = match B::schema(&mut self.generator) {
            Some(schema) => RequestBody::Json(schema.to_value()),
            None => RequestBody::None,
        };
        self.note::<Q>(route, body, answer)
    }

    fn note<Q: JsonSchema>(
        &mut self,
        route: Route,
        body: RequestBody,
        answer: Option<schemars::Schema>,
    ) -> Value {
        let query = Q::json_schema(&mut self.generator).to_value();
        self.document.add(&Operation {
            method: route.method,
            path: route.path,
            verb: route.verb,
            summary: route.summary,
            query: &query,
            body,
            answer: answer.map(schemars::Schema::to_value),
        });
        query
    }

    /// The router and the OpenAPI document of all that was registered.
    pub(super) fn finish(mut self) -> (Router, Value) {
        let _ = self.generator.subschema_for::<Problem>();
        let document = self.document.finish(&self.generator.take_definitions(true));
        let mut router = Router::new();
        for (path, methods) in self.paths {
            let methods = methods.fallback(wrong_method);
            router = router.route(&format!("{BASE}{path}"), methods);
        }
        (router.fallback(no_such_path), document)
    }
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

async fn wrong_method(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!(
            "{} is not what {} takes; see {BASE}/docs",
            request.method(),
            request.uri().path()
        ),
    )
}

async fn no_such_path(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(128).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("there is nothing at {path}; {BASE}/docs lists what there is"),
    )
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

    fn call<Q: DeserializeOwned, B>(
        self,
        control: &Control,
        store: Store,
        caller: Caller,
        route: Route,
        query: &Value,
        body: B,
    ) -> Result<Call<Q, B>, Problem> {
        let query = input::query(self.parts.uri.query().unwrap_or(""), query)?;
        let query = input::typed(query).map_err(|mut problem| {
            problem.set_status(StatusCode::BAD_REQUEST);
            problem
        })?;
        let request = self
            .parts
            .extensions
            .get::<RequestContext>()
            .map(|context| context.id.to_string())
            .unwrap_or_default();
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

async fn answer<Q, B, T, H, F>(
    control: &Control,
    route: Route,
    query: &Value,
    request: Request,
    handler: H,
) -> Result<Response, Problem>
where
    Q: DeserializeOwned + Send + 'static,
    B: Payload + 'static,
    T: Serialize + Send + 'static,
    H: Fn(Call<Q, B>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
{
    let store = store(control)?;
    let (arrived, body) = Arrived::head(request).await?;
    let caller = arrived.caller(control, &store, route).await?;
    let document = arrived.document(control, route, body).await?;
    let key = match route.writes() {
        true => Key::of(&arrived.parts, caller.principal, &document)?,
        false => None,
    };
    let body = B::read(document)?;
    let mut call = arrived.call(control, store.clone(), caller, route, query, body)?;
    let Some(key) = key else {
        let answered = handler(call).await?;
        return reply(control, route, answered).map(|(response, _)| response);
    };
    let times = control.settings().idempotency;
    let control = control.clone();
    let doing = {
        let control = control.clone();
        async move {
            let replying = control.clone();
            let work = move |store| async move {
                call.desk.store = store;
                reply(&replying, route, handler(call).await?)
            };
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
fn reply<T: Serialize + 'static>(
    control: &Control,
    route: Route,
    answer: Answer<T>,
) -> Result<(Response, idempotency::Kept), Problem> {
    if route.writes() {
        control.changed();
    }
    let nothing = std::any::TypeId::of::<T>() == std::any::TypeId::of::<super::call::Nothing>();
    let body = if nothing {
        Value::Null
    } else {
        serde_json::to_value(&answer.body).map_err(|error| {
            tracing::error!(%error, path = route.path, "an answer is not JSON");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the answer could not be written",
            )
        })?
    };
    let status = match (&answer.created, nothing) {
        (Some(_), _) => StatusCode::CREATED,
        (None, true) => StatusCode::NO_CONTENT,
        (None, false) => StatusCode::OK,
    };
    let kept = idempotency::Kept {
        status: status.as_u16(),
        version: answer.version,
        location: answer.created.map(|path| format!("{BASE}{path}")),
        body: answer.kept.unwrap_or_else(|| body.clone()),
    };
    let shown = idempotency::Kept {
        body,
        ..kept.clone()
    };
    Ok((shown.into_response(), kept))
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
