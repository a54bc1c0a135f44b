//! A request's body, which is read to its end even if nobody wants it.
//!
//! HTTP/1 knows where the next request begins only once this one's body has been read. A server
//! that answers early (404, 401, 429, a bad header) and drops the body has to close the connection;
//! the answer has left by then without saying so, a client that sends another request on it finds
//! it dead, and one that is still sending may lose the answer to a reset. So what is left of a body
//! is read and thrown away behind the answer, for as long as the client may take to send one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// What handlers get as the body of a request.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` once it has ended.
    incoming: Option<Incoming>,
    /// When the client must have sent it whole.
    deadline: Instant,
    /// The client waits to be told to send it (`Expect: 100-continue`): whether it was.
    wanted: Option<Arc<AtomicBool>>,
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
    /// The body of a request that has just come, to be sent within `patience`.
    pub(crate) fn of(
        request: Request<Incoming>,
        patience: Duration,
    ) -> (Request<Self>, Expectation) {
        let expects = request.headers().contains_key(header::EXPECT);
        let wanted = expects.then(Arc::default);
        let expectation = Expectation(wanted.clone());
        let request = request.map(|incoming| Self {
            incoming: (!incoming.is_end_stream()).then_some(incoming),
            deadline: Instant::now() + patience,
            wanted,
        });
        (request, expectation)
    }

    fn is_awaited(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.load(Relaxed))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(wanted) = &self.wanted {
            wanted.store(true, Relaxed);
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.incoming = None;
        }
        polled
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
        // A client that waits for its cue sends nothing, and reading would be the cue.
        if self.is_awaited() || Instant::now() >= self.deadline {
            return;
        }
        let unread = self.incoming.take().filter(|body| !body.is_end_stream());
        if let (Some(mut rest), Ok(runtime)) = (unread, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout_at(self.deadline, async move {
                while let Some(Ok(_)) = rest.frame().await {}
            }));
        }
    }
}
