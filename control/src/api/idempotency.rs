//! `Idempotency-Key`: a write that is repeated with the same key is answered as the first time, and done once.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use crate::id::PrincipalId;
use crate::store::{Idempotency, Store};

const HEADER: &str = "idempotency-key";
const LONGEST: usize = 128;

/// An answer as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub status: u16,
    pub version: Option<i64>,
    pub location: Option<String>,
    /// `null` for an answer without a body.
    pub body: Value,
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        let empty = self.status == StatusCode::NO_CONTENT.as_u16();
        let bytes = if empty {
            Vec::new()
        } else {
            serde_json::to_vec(&self.body).unwrap_or_default()
        };
        let mut response = Response::new(bytes.into());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        if !empty {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        if let Some(version) = self.version
            && let Ok(value) = HeaderValue::from_str(&format!("\"{version}\""))
        {
            headers.insert(header::ETAG, value);
        }
        if let Some(location) = self.location
            && let Ok(value) = HeaderValue::from_str(&location)
        {
            headers.insert(header::LOCATION, value);
        }
        response
    }
}

/// A key with the request that it came with.
pub(super) struct Key {
    principal: PrincipalId,
    key: String,
    digest: String,
}

impl Key {
    pub(super) fn of(
        parts: &Parts,
        principal: PrincipalId,
        document: &Value,
    ) -> Result<Option<Self>, Problem> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Ok(None);
        };
        let key = value
            .to_str()
            .ok()
            .filter(|key| (1..=LONGEST).contains(&key.len()))
            .ok_or_else(|| {
                Problem::bad_request(format!(
                    "Idempotency-Key: should be 1 to {LONGEST} printable ASCII characters"
                ))
            })?;
        let asked = format!(
            "{} {} {:?} {document}",
            parts.method,
            parts.uri,
            parts.headers.get(header::IF_MATCH)
        );
        Ok(Some(Self {
            principal,
            key: key.to_owned(),
            digest: format!("{:x}", Sha256::digest(asked)),
        }))
    }

    /// The answer of the first time, if there was one.
    pub(super) async fn begin(
        &self,
        store: &Store,
        keep: Duration,
    ) -> Result<Option<Response>, Problem> {
        let known = store
            .begin_idempotent(self.principal, &self.key, &self.digest, keep)
            .await?;
        match known {
            Idempotency::New => Ok(None),
            Idempotency::InProgress => Err(Problem::conflict(
                "in_progress",
                "the first request with this Idempotency-Key is still under way; try again",
            )),
            Idempotency::OtherRequest => Err(Problem::field(
                "Idempotency-Key",
                "came with another request before; choose a new one",
            )),
            Idempotency::Answered { response, .. } => {
                let kept: Kept = serde_json::from_str(&response).map_err(|_| {
                    Problem::conflict("in_progress", "the first answer can no longer be read")
                })?;
                Ok(Some(kept.into_response()))
            }
        }
    }

    /// Keeps a success. A refusal changed nothing, so that the key is free for another try.
    pub(super) async fn finish(
        &self,
        store: &Store,
        answered: Result<(Response, Kept), Problem>,
    ) -> Result<Response, Problem> {
        match answered {
            Ok((response, kept)) => {
                let text = serde_json::to_string(&kept).unwrap_or_default();
                store
                    .finish_idempotent(self.principal, &self.key, i64::from(kept.status), &text)
                    .await?;
                Ok(response)
            }
            Err(problem) => {
                store.abandon_idempotent(self.principal, &self.key).await?;
                Err(problem)
            }
        }
    }
}
