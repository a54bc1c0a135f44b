//! The one list of routes. Registering a route names the right that it takes and its types, and out of that come
//! the checks before the handler, the OpenAPI document, and the table that the tests try each role against:
//! a route that is missing from one of them cannot be written.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodRouter, on};
use http::{HeaderMap, StatusCode};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::Sent;
use super::call::{Answer, Call, Done, NoBody, NoQuery, Payload};
use super::openapi::{self, Document, RequestBody};
use super::problem::Problem;
pub(super) use super::route::{BASE, Route, delete, get, patch, post, put};
use super::serve::{Doing, Handler, Operation, Work, serve};
use crate::control::Control;

/// Routes as they are registered.
pub(super) struct Registry {
    control: Control,
    paths: Vec<(&'static str, MethodRouter)>,
    /// Of what is sent: a field with a default may be left out.
    generator: SchemaGenerator,
    /// Of what is answered: a field that is always there is required, also where it may be null.
    answers: SchemaGenerator,
    document: Document,
}

impl Registry {
    pub(super) fn new(control: Control) -> Self {
        let settings = schemars::generate::SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            control,
            paths: Vec::new(),
            generator: settings.clone().into_generator(),
            answers: settings.for_serialize().into_generator(),
            document: Document::new(),
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
        let shown = self.answers.subschema_for::<T>();
        let query = self.describe::<Q, B>(route, Some(shown));
        let read = move |call: Call<Value, Value>| -> Result<Work, Problem> {
            let (call, document) = call.without_body();
            let body = B::read(document)?;
            let mut call = call.typed::<Q>()?.with(body);
            let handler = handler.clone();
            Ok(Box::new(move |store| {
                call.desk.store = store;
                Box::pin(async move { handler(call).await?.untyped() })
            }))
        };
        self.add(route, query, Handler::Json(Box::new(read)));
    }

    /// A route that answers with something of its own: server-sent events, a document.
    pub(super) fn raw<Q, H, F>(&mut self, route: Route, handler: H)
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        H: Fn(Call<Q, NoBody>, HeaderMap) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let query = self.describe::<Q, NoBody>(route, None);
        let handler = move |call: Call<Value, NoBody>, headers: HeaderMap| -> Doing<Response> {
            Ok(Box::pin(handler(call.typed()?, headers)))
        };
        self.add(route, query, Handler::Raw(Box::new(handler)));
    }

    /// A route whose body is bytes of any length, which its handler reads as they come. It limits them itself.
    pub(super) fn bytes<T, H, F>(&mut self, route: Route, handler: H)
    where
        T: Serialize + JsonSchema + Send + 'static,
        H: Fn(Call<NoQuery, Sent>, HeaderMap) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
    {
        let shown = self.answers.subschema_for::<T>();
        let query = self.note::<NoQuery>(route, RequestBody::Bytes, Some(shown));
        let handler = move |call: Call<Value, Sent>, headers: HeaderMap| -> Doing<Done> {
            let doing = handler(call.typed()?, headers);
            Ok(Box::pin(async move { doing.await?.untyped() }))
        };
        self.add(route, query, Handler::Bytes(Box::new(handler)));
    }

    fn add(&mut self, route: Route, query: Value, handler: Handler) {
        let operation = Arc::new(Operation {
            route,
            query,
            handler,
        });
        let control = self.control.clone();
        let answer = move |request| serve(control.clone(), Arc::clone(&operation), request);
        let routed = on(route.filter(), answer);
        match self
            .paths
            .iter_mut()
            .find(|(known, _)| *known == route.path)
        {
            Some((_, methods)) => *methods = std::mem::take(methods).merge(routed),
            None => self.paths.push((route.path, routed)),
        }
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
        self.document.add(&openapi::Operation {
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
        Problem::describe(&mut self.answers);
        let mut schemas = self.answers.take_definitions(true);
        for (name, schema) in self.generator.take_definitions(true) {
            let answered = schemas.insert(name.clone(), schema);
            debug_assert!(
                answered.is_none() || answered.as_ref() == schemas.get(&name),
                "{name} is sent and answered, and has two schemas"
            );
        }
        let document = self.document.finish(&schemas);
        let mut router = Router::new();
        for (path, methods) in self.paths {
            let methods = methods.fallback(wrong_method);
            router = router.route(&format!("{BASE}{path}"), methods);
        }
        (router.fallback(no_such_path), document)
    }
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
