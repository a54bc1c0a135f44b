//! The HTTP face of Sluice: it accepts requests, decides who may run what and
//! when, picks a target and streams the answer back. It knows no SQL.
//!
//! Reading order follows a request: [`server`] (accept, TLS, drain), [`stack`]
//! (the one list of layers), [`router`] (model name → deployment → target), and
//! for a target elsewhere [`remote`]. What the layers share about one request is
//! [`context`]; what all requests share is [`gateway`]. What a path
//! means stands in one table, [`endpoint`].

pub mod absent;
pub mod access;
pub mod api;
pub mod auth;
pub mod config;
pub mod context;
pub mod control_health;
pub mod endpoint;
pub mod error;
pub mod gateway;
pub mod host;
pub mod in_house;
pub mod limits;
pub mod metrics;
pub mod preflight;
pub mod release;
pub mod remote;
pub mod replicas;
mod request_body;
pub mod router;
pub mod server;
pub mod stack;
pub mod validate;

pub use context::{Outcome, Principal, RequestContext};
pub use error::ApiError;
pub use gateway::Gateway;
pub use request_body::{BodyError, RequestBody};

/// The error of a body: whatever the target or the network reported.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Every response's body. Not `Sync`: only the connection's task polls it.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

/// A body that is known whole.
#[must_use]
pub fn full(bytes: impl Into<bytes::Bytes>) -> Body {
    use http_body_util::BodyExt as _;
    Body::new(http_body_util::Full::new(bytes.into()).map_err(|never| match never {}))
}
