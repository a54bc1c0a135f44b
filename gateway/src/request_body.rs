//! A request's body: read at a bearable rate, and dealt with also where nobody wants it.
//!
//! While a body that has begun does not come, it holds memory and a place among the requests in
//! flight. So it must come at a least rate, counted while the server waits for it, and one key has
//! only so many bodies under way at once ([`Shares`]). A body that is there when it is looked for
//! costs neither a timer nor a place.
//!
//! HTTP/1 knows where the next request begins only once this one's body has been read. A server
//! that answers early (404, 401, 429, a bad header) and drops the body has to close the connection;
//! the answer has left by then without saying so, a client that sends another request on it finds
//! it dead, and one that is still sending may lose the answer to a reset. So what is left of a body
//! is read and thrown away behind the answer, for a short time; after that the connection is closed
//! as [`server`](crate::server) does it, and what still comes is thrown away there.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::context::Principal;
use crate::limits::share::{Reading, Shares};
use crate::server::Unread;

/// Whose a body is: the shares of all, and the key.
pub(crate) type Whose = (Option<Arc<Shares>>, Option<Arc<Principal>>);

/// What handlers get as the body of a request.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` once it has ended.
    incoming: Option<Incoming>,
    pace: Pace,
    received: u64,
    /// Time spent in waiting for the client.
    waited: Duration,
    /// The client is being waited for, since then, and until when at most.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Among whose bodies it counts.
    whose: Whose,
    reading: Option<Reading>,
    /// The client waits to be told to send it (`Expect: 100-continue`): whether it was.
    wanted: Option<Arc<AtomicBool>>,
    /// Tells the connection that bytes may come that nobody has read.
    unread: Unread,
}

/// How fast a body must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Bytes a second on average; 0 is any.
    pub(crate) least: u64,
    /// Time of waiting that is not counted.
    pub(crate) grace: Duration,
    /// How long a body that nobody wants is read behind the answer.
    pub(crate) linger: Duration,
}

impl Pace {
    /// How much longer may be waited after so many bytes and so much waiting; `None` is for ever.
    fn left(self, received: u64, waited: Duration) -> Option<Duration> {
        if self.least == 0 {
            return None;
        }
        let earned = Duration::from_secs_f64(received as f64 / self.least as f64);
        Some((self.grace + earned).saturating_sub(waited))
    }
}

/// A body that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection or its framing broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It comes at less than the least rate.
    #[error("the body comes too slowly: at least {0} bytes a second are expected")]
    TooSlow(u64),
    /// The key has too many bodies under way.
    #[error("{0} requests of this key are still sending their bodies; no more are read at once")]
    TooMany(usize),
}

/// Whether a client still waits for `100 Continue`.
#[derive(Debug, Default)]
pub(crate) struct Expectation(Option<Arc<AtomicBool>>);

impl Expectation {
    /// The client was never told to go on. It may or may not send the body now that it has an
    /// answer, so nothing can follow on this connection (RFC 9110, section 10.1.1).
    pub(crate) fn is_unmet(&self) -> bool {
        self.0.as_ref().is_some_and(|wanted| !wanted.load(Relaxed))
    }
}

impl RequestBody {
    /// The body of a request that has just come.
    pub(crate) fn of(
        request: Request<Incoming>,
        pace: Pace,
        unread: Unread,
    ) -> (Request<Self>, Expectation) {
        let expects = request.headers().contains_key(header::EXPECT);
        let wanted = expects.then(Arc::default);
        let expectation = Expectation(wanted.clone());
        let request = request.map(|incoming| Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            pace,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            whose: (None, None),
            reading: None,
            wanted,
            unread,
        });
        (request, expectation)
    }

    /// From now on it counts among the bodies of a key, or of all requests without one.
    pub(crate) fn count_among(&mut self, whose: Whose) {
        self.whose = whose;
    }

    fn is_awaited(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.load(Relaxed))
    }

    /// Something came, or the end.
    fn note(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }

    /// Nothing is there: waits within the limits.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let (None, (Some(shares), principal)) = (&self.reading, &self.whose) {
            let tenant = principal
                .as_ref()
                .map_or_else(|| Arc::from("anonymous"), |it| Arc::clone(&it.key_id));
            match shares.of(&tenant).read_body() {
                Ok(reading) => self.reading = Some(reading),
                Err(most) => return Poll::Ready(BodyError::TooMany(most)),
            }
        }
        if self.waiting.is_none() {
            let Some(left) = self.pace.left(self.received, self.waited) else {
                return Poll::Pending;
            };
            self.waiting = Some((Instant::now(), Box::pin(tokio::time::sleep(left))));
        }
        match &mut self.waiting {
            Some((_, over)) => over
                .as_mut()
                .poll(cx)
                .map(|()| BodyError::TooSlow(self.pace.least)),
            None => Poll::Pending,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wanted) = &self.wanted {
            wanted.store(true, Relaxed);
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => self.wait(cx).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                self.note(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                self.note(0);
                self.incoming = None;
                self.reading = None;
                Poll::Ready(end.map(|broken| broken.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(
            || Empty::<Bytes>::new().size_hint(),
            |incoming| incoming.size_hint(),
        )
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let awaited = self.is_awaited();
        let Some(mut rest) = self.incoming.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let unread = std::mem::take(&mut self.unread);
        // A client that waits for its cue sends nothing, and reading would be the cue.
        if awaited {
            return unread.note();
        }
        let linger = self.pace.linger;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let _reading = self.reading.take();
            runtime.spawn(async move {
                unread.discarding();
                let read = async { while let Some(Ok(_)) = rest.frame().await {} };
                if tokio::time::timeout(linger, read).await.is_err() {
                    unread.note();
                }
                unread.discarded();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        least: 1000,
        grace: Duration::from_secs(5),
        linger: Duration::from_secs(5),
    };

    #[test]
    fn what_has_come_buys_time_and_waiting_spends_it() {
        let left = |received, waited| PACE.left(received, Duration::from_secs(waited));
        assert_eq!(left(0, 0), Some(Duration::from_secs(5)));
        assert_eq!(left(1, 5), Some(Duration::from_millis(1)));
        assert_eq!(left(10_000, 5), Some(Duration::from_secs(10)));
        assert_eq!(left(10_000, 20), Some(Duration::ZERO));
    }

    #[test]
    fn without_a_least_rate_there_is_no_end() {
        let pace = Pace { least: 0, ..PACE };
        assert_eq!(pace.left(0, Duration::from_secs(1_000_000)), None);
    }
}
