//! Targets elsewhere: any OpenAI-compatible server.

pub mod envelope;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use crate::Body;
use crate::context::RequestContext;
pub use envelope::Envelope;

/// The upstreams of one deployment and how to choose among them.
#[derive(Debug)]
pub struct RemotePool {}

impl RemotePool {
    /// Sends a request to one of the upstreams and streams its answer through,
    /// error answers included (an upstream's 4xx goes to the client as it is).
    ///
    /// `parts` are the client's method, URI (its path after `/v1` is appended to
    /// the upstream's base) and headers; `body` is the whole request body, in
    /// which the model's name is replaced by the upstream's without parsing again.
    /// Records target time, tokens and TTFT in `context.outcome` as they pass.
    ///
    /// # Errors
    /// No upstream could be reached, or none answered in time.
    pub async fn forward(
        &self,
        context: &RequestContext,
        parts: &Parts,
        body: Bytes,
        envelope: &Envelope,
    ) -> Result<Response<Body>, ForwardError> {
        _ = (context, parts, body, envelope);
        Err(ForwardError::NoUpstream)
    }
}

/// Nothing came back from any upstream. `ApiError` has a `From` for it.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// All upstreams are ejected or none is configured (503).
    #[error("no upstream is available")]
    NoUpstream,
    /// Connecting or sending failed on every upstream tried (502).
    #[error("the upstream could not be reached: {0}")]
    Unreachable(String),
    /// Connected, but no answer within the first-byte timeout or the deadline (504).
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The request cannot be sent on as it is (400).
    #[error("{0}")]
    Invalid(String),
}
