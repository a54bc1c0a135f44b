//! What sending and fetching have in common: asking again, a few at once, and a bar for all of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use http::StatusCode;

use crate::cli::client::Refused;
use crate::cli::output::{self, bar};

/// Tries of one request, with pauses that double from half a second on.
const TRIES: u32 = 6;
/// The longest that a server's `Retry-After` is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer: a lost connection, a server that has too much to do or a rate limit pass, any other
/// refusal does not.
pub(super) async fn again<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let mut pause = Duration::from_millis(500);
    for _ in 1..TRIES {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let wait = match error.downcast_ref::<Refused>() {
            Some(refused) if passes(refused.status) => refused.retry_after.unwrap_or(pause),
            Some(_) => return Err(error),
            // One of this machine's files: it will not come back by itself.
            None if error.chain().any(|cause| cause.is::<std::io::Error>()) => return Err(error),
            None => pause,
        };
        tokio::time::sleep(wait.min(PATIENCE)).await;
        pause *= 2;
    }
    ask().await
}

fn passes(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY
    )
}

/// How far a transfer is, over all its files.
#[derive(Debug)]
pub(super) struct Meter {
    verb: &'static str,
    all: u64,
    done: AtomicU64,
}

impl Meter {
    pub(super) const fn new(verb: &'static str, all: u64) -> Self {
        Self {
            verb,
            all,
            done: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, bytes: u64, what: &str) {
        let done = self.done.fetch_add(bytes, Relaxed) + bytes;
        let fraction = if self.all == 0 {
            1.0
        } else {
            done as f64 / self.all as f64
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        output::progress(&format!(
            "{} {} {:.1} of {:.1} MiB  {what}",
            self.verb,
            bar(fraction),
            mib(done),
            mib(self.all)
        ));
    }

    pub(super) fn end(&self) {
        output::progress("");
    }
}
