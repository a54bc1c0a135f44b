//! `Idempotency-Key`: a write that is repeated with the same key is answered as the first time, and done once.

use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use crate::id::PrincipalId;
use crate::store::{Claim, Idempotency, IdempotencyTimes, Store};

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

impl Kept {
    /// The answer to who has this version already.
    pub(super) const fn not_modified(version: i64) -> Self {
        Self {
            status: 304,
            version: Some(version),
            location: None,
            body: Value::Null,
        }
    }
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        let without_body = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        let empty = without_body.iter().any(|it| it.as_u16() == self.status);
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

    /// Claims the key; or the answer of the first time, if there was one. Where the first request is still under way, waits
    /// until it is answered, or its claim has run out.
    async fn begin(&self, store: &Store, times: IdempotencyTimes) -> Result<Begun, Problem> {
        let patience = Instant::now() + times.lease + LOOK_LAST;
        let mut pause = LOOK_FIRST;
        loop {
            let known = store
                .begin_idempotent(self.principal, &self.key, &self.digest, times)
                .await?;
            match known {
                Idempotency::New(claim) => return Ok(Begun::New(claim)),
                Idempotency::InProgress if Instant::now() < patience => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_LAST);
                }
                Idempotency::InProgress => {
                    return Err(Problem::in_progress(
                        "the first request with this Idempotency-Key is still under way; try again",
                    ));
                }
                Idempotency::OtherRequest => {
                    return Err(Problem::field(
                        "Idempotency-Key",
                        "came with another request before; choose a new one",
                    ));
                }
                Idempotency::Answered { response, .. } => {
                    let kept: Kept = serde_json::from_str(&response).map_err(|_| {
                        Problem::conflict("in_progress", "the first answer can no longer be read")
                    })?;
                    return Ok(Begun::Answered(kept.into_response()));
                }
            }
        }
    }

    /// Does the work once: under a claim that is renewed while it goes on, and committed together with its answer. A
    /// refusal changed nothing, so that the key is free for another try.
    pub(super) async fn once<F>(
        self,
        store: &Store,
        times: IdempotencyTimes,
        work: impl FnOnce(Store) -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<(Response, Kept), Problem>>,
    {
        let claim = match self.begin(store, times).await? {
            Begun::Answered(response) => return Ok(response),
            Begun::New(claim) => claim,
        };
        let answered = tokio::select! {
            answered = work(store.holding(claim.clone())) => answered,
            () = keep(store, &claim, times.lease) => Err(taken_over()),
        };
        let finished = match answered {
            Ok((response, kept)) => {
                let text = serde_json::to_string(&kept).unwrap_or_default();
                let status = i64::from(kept.status);
                match store.finish_idempotent(&claim, status, &text).await {
                    Ok(true) => return Ok(response),
                    Ok(false) => Err(taken_over()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(problem) => Err(problem),
        };
        // Where that fails, too, the claim runs out.
        if let Err(error) = store.abandon_idempotent(&claim).await {
            tracing::warn!(%error, "a key is free again when its claim has run out");
        }
        finished
    }
}

/// What asking for a key came to.
enum Begun {
    New(Claim),
    Answered(Response),
}

/// Between two looks at a request that is under way.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LAST: Duration = Duration::from_millis(500);

/// Renews a claim for as long as it is polled; over when somebody took it over.
async fn keep(store: &Store, claim: &Claim, lease: Duration) {
    loop {
        tokio::time::sleep(lease / 4).await;
        match store.renew_idempotent(claim, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "the claim of a key could not be renewed"),
        }
    }
}

fn taken_over() -> Problem {
    Problem::in_progress(
        "another request with this Idempotency-Key has taken over, since this one stood still; nothing was written; \
         try again",
    )
}
