//! What a refused request is told: RFC 9457, with the field at fault where there is one.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;

use crate::deploy::DeployError;
use crate::domain::roles::Forbidden;
use crate::id::IdError;
use crate::release::controller::ReleaseError;
use crate::store::{StorageFault, StoreError};

/// A field of the request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// Path of the field: `thresholds.f1`.
    pub field: String,
    pub message: String,
}

/// An answer that is no success, as `application/problem+json`. Boxed, because it is in every `Result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Told>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct Told {
    /// `urn:sluice:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The code in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened this time, and what would be right.
    detail: String,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    errors: Vec<FieldError>,
    /// After an event that is not legal in the record's state: those that are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    legal_events: Option<Vec<String>>,
    /// Seconds until another try makes sense.
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl Problem {
    /// Adds its schema, under the name `Problem`.
    pub(super) fn describe(generator: &mut SchemaGenerator) {
        let _ = generator.subschema_for::<Told>();
    }

    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Told {
            kind: format!("urn:sluice:problem:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            legal_events: None,
            retry_after: None,
        }))
    }

    /// 422: a field's value is not acceptable.
    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            format!("{field}: {message}"),
        );
        problem.0.errors.push(FieldError { field, message });
        problem
    }

    /// 404. Also for what exists and the caller may not know of.
    pub(super) fn not_found(kind: &str, id: &str) -> Self {
        let shown: String = id.chars().take(64).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no {kind} {shown}"),
        )
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn conflict(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.0.retry_after = Some(2);
        problem
    }

    /// The same request is being carried out.
    pub(super) fn in_progress(detail: &str) -> Self {
        let mut problem = Self::conflict("in_progress", detail);
        problem.0.retry_after = Some(1);
        problem
    }

    /// The disk does not take it; nothing was written.
    pub(super) fn storage(fault: StorageFault) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            fault.code(),
            fault.to_string(),
        );
        problem.0.retry_after = Some(5);
        problem
    }

    /// The same of the disk that content lies on, which may be another than the database's.
    pub(super) fn content(fault: StorageFault, detail: String) -> Self {
        let mut problem = Self::storage(fault);
        problem.0.detail = detail;
        problem
    }

    /// The storage's fault that it tells of.
    pub(super) fn storage_fault(&self) -> Option<StorageFault> {
        let code = self.0.kind.rsplit(':').next()?;
        StorageFault::of_code(code)
    }

    /// The same with one more field at fault.
    #[must_use]
    pub(super) fn and(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.errors.push(FieldError {
            field: field.into(),
            message: message.into(),
        });
        self
    }

    /// The same, about a part of the document: its fields are named from there.
    #[must_use]
    pub(super) fn within(mut self, part: &str) -> Self {
        self.0.detail = format!("{part}: {}", self.0.detail);
        for error in &mut self.0.errors {
            error.field = format!("{part}.{}", error.field);
        }
        self
    }

    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.0.status = status.as_u16();
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::NotFound { kind, id } => Self::not_found(kind, &id),
            StoreError::Stale { .. } => Self::conflict("stale", text),
            StoreError::Conflict { field, .. } => {
                Self::conflict("conflict", text).and(field, "is taken")
            }
            StoreError::IllegalTransition(illegal) => {
                let mut problem = Self::conflict("illegal_transition", text);
                problem.0.legal_events = Some(illegal.legal);
                problem
            }
            StoreError::Reference => Self::conflict("reference", text),
            StoreError::Fixed { field, .. } => Self::field(field, text),
            StoreError::Invalid { field, problem } => Self::field(field, problem),
            StoreError::Unavailable(_) => Self::unavailable(text),
            StoreError::Storage { fault, cause } => {
                tracing::warn!(
                    code = fault.code(),
                    ?cause,
                    "a write was refused by the storage"
                );
                Self::storage(fault)
            }
            StoreError::NewerSchema { .. } => Self::unavailable(text),
            StoreError::Malformed { .. } | StoreError::Migration(_) | StoreError::Database(_) => {
                tracing::error!(error = ?error, "the store failed");
                // What the database said stays in the log: it may quote data.
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
        }
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let text = error.to_string();
        match error {
            DeployError::Store(error) => error.into(),
            DeployError::Forbidden(error) => error.into(),
            DeployError::Gate(missing) => {
                let detail = "the approval gate is closed; errors says what is missing";
                let problem = Self::conflict("gate_closed", detail);
                missing.iter().fold(problem, |problem, missing| {
                    problem.and(missing.requirement().word(), missing.to_string())
                })
            }
            DeployError::Quota(exceeded) => {
                let detail = "a quota does not allow it; errors says which";
                let problem = Self::conflict("quota_exceeded", detail);
                exceeded.iter().fold(problem, |problem, exceeded| {
                    problem.and(exceeded.what, exceeded.to_string())
                })
            }
            DeployError::NotApproved(_) => Self::conflict("not_approved", text),
            DeployError::DigestChanged { .. } => Self::conflict("digest_changed", text),
            DeployError::Busy(_) => Self::conflict("busy", text),
            DeployError::NothingLive => Self::conflict("nothing_live", text),
            DeployError::NothingEarlier => Self::conflict("nothing_earlier", text),
            DeployError::Unnamed(_) => Self::field("to", text),
        }
    }
}

impl From<ReleaseError> for Problem {
    fn from(error: ReleaseError) -> Self {
        let text = error.to_string();
        match error {
            ReleaseError::Deploy(error) => error.into(),
            ReleaseError::Refused(_) => Self::conflict("refused", text),
            ReleaseError::NoRelease(_) => Self::conflict("no_release", text),
            ReleaseError::NotBegun(..) => Self::conflict("not_begun", text),
            ReleaseError::NoDatabase => Self::unavailable(text),
        }
    }
}

impl From<Forbidden> for Problem {
    fn from(error: Forbidden) -> Self {
        Self::forbidden(error.to_string())
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
