//! Requests that the process makes of its own models: an evaluation's, and its judge's.
//!
//! They go the way of a client's from the parser on: same fields, same limits, same engine or upstream, same errors.
//! What they leave out is the door: no key, no rate, no place among the clients' requests, no line in the access log,
//! and nobody's use. They wait behind everybody else's (priority `low`) and are counted in series of their own, so
//! that what clients see of a deployment's numbers stays what clients did. Whoever asks bounds how many run at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use sluice_engine::request::{Priority, Usage};

use crate::access::Rights;
use crate::context::{Fault, Owner, Principal};
use crate::host::FIRST_TOKEN;
use crate::metrics::Completed;
use crate::router::Deployment;
use crate::{Gateway, RequestContext, api};

/// Asks one deployment, as it is at this moment: whatever is published later, the answers come from the same
/// revision, which stays in memory as long as this does.
#[derive(Debug, Clone)]
pub struct InHouse {
    gateway: Arc<Gateway>,
    principal: Arc<Principal>,
    /// With series of its own.
    twin: Arc<Deployment>,
    /// Held so that whoever counts the owners of a deployment knows that it is in use.
    _of: Arc<Deployment>,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// As a client would see it.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
    /// Seconds that the server asks to wait before the next try.
    pub retry_after: Option<Duration>,
    /// From asking to the last byte.
    pub total: Duration,
    /// From asking to the first output token, where tokens were generated.
    pub first_token: Option<Duration>,
    /// Tokens as the engine or the upstream counted them.
    pub usage: Usage,
}

impl InHouse {
    /// Asks `deployment` in the name of `who`, which shares the device with others as one tenant.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, deployment: Arc<Deployment>, who: &str) -> Self {
        let principal = Principal {
            key_id: who.into(),
            name: who.into(),
            priority: Priority::Low,
            models: None,
            role: None,
            owner: Some(Arc::new(Owner {
                operator: true,
                ..Owner::default()
            })),
            // Whoever asks for it was asked for his rights; the deployment is settled.
            rights: Rights::unlimited(),
        };
        let twin = if deployment.standing.hidden {
            // On trial: its series are of nobody else's requests.
            Arc::clone(&deployment)
        } else {
            Arc::new(twin(&gateway, &deployment))
        };
        Self {
            gateway,
            principal: Arc::new(principal),
            twin,
            _of: deployment,
        }
    }

    /// What requests give as their model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.twin.name
    }

    /// Which revision answers.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.twin.revision
    }

    /// Sends `body` to `path` (`/v1/chat/completions`) and reads the answer. Dropped, it cancels. Past `patience`, a
    /// 504, as for a client.
    pub async fn post(&self, path: &str, body: &Value, patience: Duration) -> Answered {
        let mut context = RequestContext::new(format!("req_{:032x}", rand::random::<u128>()), path);
        context.principal = Some(Arc::clone(&self.principal));
        context.priority = Priority::Low;
        context.deadline = Some(context.received + patience);
        context.pinned = Some(Arc::clone(&self.twin));
        let mut account = Account {
            series: &self.twin.series,
            context: context.clone(),
            status: None,
        };
        let asked = self.ask(path, body, context.clone());
        // What the handler held is dropped by the unwinding; nothing of it is used again.
        let asked = AssertUnwindSafe(asked).catch_unwind();
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panic)) => failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the server failed while answering",
            ),
            Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "no answer in time"),
        };
        account.status = Some(answer.status.as_u16());
        Answered {
            total: context.received.elapsed(),
            first_token: answer.first_token.or_else(|| context.outcome.ttft()),
            usage: context.outcome.usage(),
            ..answer
        }
    }

    async fn ask(&self, path: &str, body: &Value, context: RequestContext) -> Answered {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .extension(context)
            .body(Full::<Bytes>::from(body.to_string()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return failed(StatusCode::NOT_FOUND, &error.to_string()),
        };
        let response = api::route(Arc::clone(&self.gateway), request).await;
        let (head, body) = response.into_parts();
        // A model in a process of its own says when its first token came.
        let first_token = head
            .headers
            .get(FIRST_TOKEN)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_micros);
        let retry_after = head
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        match body.collect().await {
            Ok(body) => Answered {
                status: head.status,
                body: body.to_bytes(),
                retry_after,
                first_token,
                ..failed(head.status, "")
            },
            Err(error) => failed(StatusCode::BAD_GATEWAY, &error.to_string()),
        }
    }
}

/// The same model under series of its own.
fn twin(gateway: &Gateway, of: &Deployment) -> Deployment {
    let label = format!("{}{}", crate::metrics::reader::IN_HOUSE, of.name);
    Deployment {
        name: Arc::clone(&of.name),
        revision: Arc::clone(&of.revision),
        target: of.target.clone(),
        created: of.created,
        series: gateway.metrics().series(&label, &of.revision),
        standing: of.standing.clone(),
    }
}

fn failed(status: StatusCode, why: &str) -> Answered {
    Answered {
        status,
        body: Bytes::copy_from_slice(why.as_bytes()),
        retry_after: None,
        total: Duration::ZERO,
        first_token: None,
        usage: Usage::default(),
    }
}

/// Counts a request when it is over, however it ended.
struct Account<'a> {
    series: &'a crate::metrics::Series,
    context: RequestContext,
    /// `None` until there is an answer.
    status: Option<u16>,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let outcome = &self.context.outcome;
        let fault = match self.status {
            Some(500..) => Some(Fault::Server),
            Some(400..) => Some(Fault::Client),
            Some(_) => None,
            None => Some(Fault::Cancelled),
        };
        let completed = Completed {
            endpoint: self.context.endpoint(),
            status: self.status.unwrap_or(499),
            total: Instant::now().saturating_duration_since(self.context.received),
            fault: outcome.fault().or(fault),
        };
        self.series.record(&completed, outcome);
    }
}

#[cfg(test)]
mod tests;
