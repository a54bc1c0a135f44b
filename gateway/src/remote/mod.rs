//! Targets elsewhere: any OpenAI-compatible server, another sluice included.
//!
//! [`pool`] chooses a replica, `forward` asks it and retries, `body` passes the answer through;
//! [`balance`], [`outlier`], [`reach`], `bill`, `budget`, `headers`, [`envelope`], `idle` and
//! `refusal` are the pure parts, [`replica`] and `connect` and `direct` the shell.

pub mod balance;
mod bill;
mod body;
mod budget;
mod connect;
mod direct;
pub mod envelope;
mod forward;
mod headers;
mod idle;
pub mod outlier;
pub mod pool;
pub mod reach;
mod refusal;
pub mod replica;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Instant;

pub use connect::client_tls;
pub use envelope::Envelope;
pub use pool::RemotePool;

/// A pool cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not an upstream's base URL.
    #[error("upstream `{url}`: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// None, or more than fit.
    #[error("a deployment has 1 to {max} upstreams, not {0}", max = pool::MAX_UPSTREAMS)]
    Count(usize),
    /// The key cannot be sent in a header. It is not repeated.
    #[error("the upstreams' API key holds characters that no header may carry")]
    Key,
    /// The authorities cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Nothing came back from any upstream. `ApiError` has a `From` for it.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// All upstreams are ejected or none is configured (503).
    #[error("no upstream is available")]
    NoUpstream,
    /// Connecting or sending failed on every upstream tried (502). Why is said to the log only:
    /// it may name places of the inside.
    #[error("the upstream could not be reached")]
    Unreachable(String),
    /// It refuses our own account (401, 402, 403, 407): nothing that the client could mend (502).
    #[error("the upstream did not accept this server's own account")]
    Denied,
    /// Connected, but no answer within the first-byte timeout or the deadline (504).
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The request's deadline passed before the answer had begun (504).
    #[error("the upstream did not answer before the request's deadline")]
    Deadline,
    /// What came is no answer (502).
    #[error("{}", .0.message())]
    Broken(crate::validate::Defect),
    /// The request cannot be sent on as it is (400).
    #[error("{0}")]
    Invalid(String),
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
