//! What a handler is handed and what it hands back.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::caller::Caller;
use super::input;
use super::problem::Problem;
use crate::control::Control;
use crate::deploy::{Caller as Deployer, Deployments};
use crate::domain::roles::{Verb, authorize};
use crate::id::DepartmentId;
use crate::store::{Actor, DEFAULT_LIMIT, Page, Record, Store, Stored};

/// Who does what where: the part of a request that all service functions need.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub control: Control,
    pub store: Store,
    pub caller: Caller,
    pub verb: Verb,
    /// The request may change something.
    pub writes: bool,
    /// The id of the HTTP request.
    pub request: String,
}

/// One request whose sender may make it, as far as role and scope go.
#[derive(Debug)]
pub(crate) struct Call<Q = NoQuery, B = NoBody> {
    pub(super) desk: Desk,
    pub(super) path: HashMap<String, String>,
    pub(super) query: Q,
    pub(super) body: B,
    /// The version that `If-Match` names.
    pub(super) expected: Option<i64>,
}

impl<Q, B> Call<Q, B> {
    /// The segment of the path that the route calls `name`.
    pub(super) fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The same with another body, and the one that it had.
    fn exchange<C>(self, body: C) -> (Call<Q, C>, B) {
        let call = Call {
            desk: self.desk,
            path: self.path,
            query: self.query,
            body,
            expected: self.expected,
        };
        (call, self.body)
    }

    pub(super) fn without_body(self) -> (Call<Q, NoBody>, B) {
        self.exchange(NoBody)
    }

    pub(super) fn with<C>(self, body: C) -> Call<Q, C> {
        self.exchange(body).0
    }
}

impl<B> Call<Value, B> {
    /// With the query as a route's type.
    pub(super) fn typed<Q: DeserializeOwned>(self) -> Result<Call<Q, B>, Problem> {
        let query = input::typed(self.query).map_err(|mut problem| {
            problem.set_status(StatusCode::BAD_REQUEST);
            problem
        })?;
        Ok(Call {
            desk: self.desk,
            path: self.path,
            query,
            body: self.body,
            expected: self.expected,
        })
    }
}

impl Desk {
    pub(super) fn actor(&self) -> Actor {
        Actor::person(self.caller.principal, self.caller.name.clone())
            .in_request(self.request.clone())
    }

    /// What is asked of deployments.
    pub(super) fn deployments(&self) -> Deployments {
        Deployments::new(self.store.clone(), Arc::clone(self.control.wake()))
    }

    /// The caller, as deployments know one.
    pub(super) fn deployer(&self) -> Deployer {
        Deployer {
            actor: self.actor(),
            role: self.caller.role,
            department: Some(self.caller.department),
        }
    }

    /// Whether the caller may do this to what belongs to `owner`.
    pub(super) fn allow(&self, owner: Option<DepartmentId>) -> Result<(), Problem> {
        Ok(authorize(
            self.caller.role,
            self.caller.department,
            self.verb,
            owner,
        )?)
    }
}

/// A route that takes no parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// Which page, for lists without filters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// Items a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

pub(super) fn limit_of(limit: Option<u32>) -> u32 {
    limit.unwrap_or(DEFAULT_LIMIT)
}

/// What a route reads from the body.
pub(crate) trait Payload: Sized + Send {
    /// `None` for routes without a body.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// # Errors
    /// The document is not one, naming the field.
    fn read(document: Value) -> Result<Self, Problem>;
}

/// No body, or an empty object.
#[derive(Debug)]
pub(crate) struct NoBody;

impl Payload for NoBody {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn read(document: Value) -> Result<Self, Problem> {
        match document.as_object().and_then(|fields| fields.keys().next()) {
            Some(field) => Err(Problem::field(field, "is not known; this takes no body")),
            None => Ok(Self),
        }
    }
}

/// A document that is a `T`.
#[derive(Debug)]
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + Send> Payload for Body<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn read(document: Value) -> Result<Self, Problem> {
        input::typed(document).map(Self)
    }
}

/// Some fields of a `T`: those that change. `null` clears one.
#[derive(Debug)]
pub(crate) struct Patch<T> {
    changes: Value,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Serialize + JsonSchema> Patch<T> {
    /// `current` with the changes.
    pub(super) fn over(&self, current: &T) -> Result<T, Problem> {
        let current = serde_json::to_value(current)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        input::typed(input::merged(current, self.changes.clone()))
    }
}

impl<T: DeserializeOwned + Serialize + JsonSchema> Payload for Patch<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        let mut schema = T::json_schema(generator);
        schema.remove("required");
        // What is absent stays as it is, whatever a new record would have.
        let properties = schema.get_mut("properties");
        for property in properties
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(|it| it.values_mut())
        {
            if let Some(property) = property.as_object_mut() {
                property.remove("default");
            }
        }
        Some(schema)
    }
    fn read(document: Value) -> Result<Self, Problem> {
        Ok(Self {
            changes: document,
            of: std::marker::PhantomData,
        })
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(super) body: T,
    /// Becomes the `ETag`, which `If-Match` takes.
    pub(super) version: Option<i64>,
    /// Where the new record is: makes it a 201.
    pub(super) created: Option<String>,
    /// What is kept for those who repeat the request, where that must be less than the answer.
    pub(super) kept: Option<Value>,
}

impl<T> Answer<T> {
    pub(super) fn of(body: T) -> Self {
        Self {
            body,
            version: None,
            created: None,
            kept: None,
        }
    }

    pub(super) fn at(mut self, location: impl Into<String>) -> Self {
        self.created = Some(location.into());
        self
    }
}

/// An answer as it is sent, without a body for [`Nothing`].
pub(super) type Done = Answer<Option<Value>>;

impl<T: Serialize + 'static> Answer<T> {
    pub(super) fn untyped(self) -> Result<Done, Problem> {
        let nothing = std::any::TypeId::of::<T>() == std::any::TypeId::of::<Nothing>();
        let body = match nothing {
            true => None,
            false => Some(serde_json::to_value(&self.body).map_err(|error| unwritable(&error))?),
        };
        Ok(Answer {
            body,
            version: self.version,
            created: self.created,
            kept: self.kept,
        })
    }
}

fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "an answer is not JSON");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the answer could not be written",
    )
}

impl<R: Record> Answer<Stored<R>> {
    /// A record, with its version.
    pub(super) fn record(stored: Stored<R>) -> Self {
        let version = Some(stored.version);
        Self {
            version,
            ..Self::of(stored)
        }
    }
}

/// Answered by 204.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Nothing {}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub(crate) struct Items<T> {
    pub items: Vec<T>,
    /// Hand it back as `cursor`; `null` on the last page.
    pub next_cursor: Option<String>,
}

impl<T> From<Page<T>> for Items<T> {
    fn from(page: Page<T>) -> Self {
        Self {
            items: page.items,
            next_cursor: page.next,
        }
    }
}
