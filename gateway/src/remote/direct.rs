//! Plain HTTP/1.1 to one upstream, without a task for each connection.
//!
//! A connection is driven by whoever waits for its answer, within the same poll.
//! Driven by a task of its own, as hyper's pooling client does, it hands over one
//! piece of an answer at a time: each costs two task switches and a write to the
//! client, though the upstream's write brought many.

#[cfg(test)]
mod tests;

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tower::Service as _;

use super::connect::{Lost, Resolved, TOO_LONG};
use super::idle::{Learned, announced};
use super::wire::{Seen, Watched};
use super::{PoolError, now};
use crate::BoxError;
use crate::config::UpstreamConfig;

/// Unused connections kept open to one upstream.
pub(super) const MAX_IDLE: usize = 1024;

/// Bytes in one piece at which no more are joined to it: each piece costs an
/// encoding and a look at the clock, but copying large ones costs more.
const JOINED: usize = 16 << 10;

/// How often unused connections are looked at: how exactly it is known when one was closed.
const SOONEST_SWEEP: Duration = Duration::from_millis(100);
const LATEST_SWEEP: Duration = Duration::from_secs(1);

type Sent = Request<Full<Bytes>>;

/// Client of one upstream, with its own pool of connections.
#[derive(Debug)]
pub(super) struct Direct {
    connector: HttpConnector<Resolved>,
    upstream: Uri,
    host: HeaderValue,
    connect_timeout: Duration,
    idle: Arc<Idle>,
}

impl Direct {
    /// A client that connects to `upstream`'s host and port.
    pub(super) fn new(
        upstream: &Uri,
        connector: HttpConnector<Resolved>,
        config: &UpstreamConfig,
    ) -> Result<Self, PoolError> {
        let name = upstream.host().unwrap_or_default();
        let host = match upstream.port_u16() {
            None | Some(80) => name.to_owned(),
            Some(port) => format!("{name}:{port}"),
        };
        let host = HeaderValue::try_from(host).map_err(|error| PoolError::Url {
            url: name.to_owned(),
            reason: error.to_string(),
        })?;
        let idle = Arc::new(Idle {
            connections: Mutex::default(),
            keep_alive: config.keep_alive,
            sweep: (config.keep_alive / 4).clamp(SOONEST_SWEEP, LATEST_SWEEP),
            learned: Mutex::default(),
        });
        tokio::spawn(sweep(Arc::downgrade(&idle), idle.sweep));
        Ok(Self {
            connector,
            upstream: upstream.clone(),
            host,
            connect_timeout: config.connect_timeout,
            idle,
        })
    }

    /// Sends `request`, whose URI is absolute, up to the head of its answer, on a new connection
    /// if `fresh`. Dropping the future or the answer's body closes the connection.
    pub(super) async fn request(
        &self,
        mut request: Sent,
        fresh: bool,
    ) -> Result<Response<Answer>, Lost> {
        request
            .headers_mut()
            .insert(header::HOST, self.host.clone());
        if let Some(path) = request.uri().path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        loop {
            let kept = if fresh { None } else { self.idle.take() };
            let (mut connection, unused) = match kept {
                Some(connection) => {
                    let unused = now() - connection.since;
                    (connection, Some(unused))
                }
                None => (self.connect().await?, None),
            };
            let mut error = match connection.ask(request).await {
                Ok(answer) => {
                    connection.announced = announced(answer.headers()).or(connection.announced);
                    let home = Arc::clone(&self.idle);
                    return Ok(answer.map(|body| Answer::new(body, Some((connection, home)))));
                }
                Err(error) => error,
            };
            let is_stale = unused.is_some() && connection.seen.is_unanswered_reuse();
            match (error.take_message(), unused) {
                // Closed by the upstream while it lay unused: nothing was sent.
                (Some(unsent), Some(unused)) => {
                    self.idle.found_closed(unused);
                    request = unsent;
                }
                (_, unused) => {
                    if let Some(unused) = unused.filter(|_| is_stale) {
                        self.idle.found_closed(unused);
                    }
                    return Err(Lost {
                        error: error.into_error().into(),
                        is_stale,
                    });
                }
            }
        }
    }

    async fn connect(&self) -> Result<Connection, BoxError> {
        let connecting = self.connector.clone().call(self.upstream.clone());
        let connected = tokio::time::timeout(self.connect_timeout, connecting).await;
        let stream = connected.map_err(|_| TOO_LONG)??;
        let stream = Watched::new(stream.into_inner());
        let seen = stream.seen();
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection {
            sender,
            driver: Some(driver),
            since: now(),
            seen,
            announced: None,
        })
    }
}

/// One connection, with what makes it move.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None`: closed.
    driver: Option<http1::Connection<TokioIo<Watched<TcpStream>>, Full<Bytes>>>,
    /// Unused since.
    since: Instant,
    seen: Seen,
    /// How long the upstream has said that it keeps it.
    announced: Option<Duration>,
}

impl Connection {
    /// Reads and writes what can be read and written now.
    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error has been handed to whoever waits for the answer.
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    async fn ask(&mut self, request: Sent) -> Result<Response<Incoming>, TrySendError<Sent>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can take another request. Wakes nobody later on.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Connections without a request, the longest unused first.
struct Idle {
    connections: Mutex<Vec<Connection>>,
    /// As configured; what an upstream says or does may make it less.
    keep_alive: Duration,
    /// Between two looks at them.
    sweep: Duration,
    learned: Mutex<Learned>,
}

impl Idle {
    /// The one used last.
    fn take(&self) -> Option<Connection> {
        let connection = self.connections.lock().pop()?;
        let now = now();
        self.keeps(&connection, self.keep_alive(now), now)
            .then_some(connection)
    }

    /// How long connections that say nothing of it are kept.
    fn keep_alive(&self, now: Instant) -> Duration {
        let learned = self.learned.lock().limit(now);
        learned.map_or(self.keep_alive, |it| it.min(self.keep_alive))
    }

    fn keeps(&self, connection: &Connection, limit: Duration, now: Instant) -> bool {
        let limit = match connection.announced {
            Some(announced) => announced.min(self.keep_alive),
            None => limit,
        };
        now.saturating_duration_since(connection.since) < limit
    }

    /// The upstream has closed a connection that had been unused so long.
    fn found_closed(&self, unused: Duration) {
        self.learned.lock().closed(unused, self.sweep, now());
    }

    fn put(&self, mut connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        connection.since = now();
        let mut connections = self.connections.lock();
        if connections.len() < MAX_IDLE {
            connections.push(connection);
        }
    }

    /// Closes those unused for too long and those that the upstream has closed.
    fn sweep(&self) {
        let now = now();
        let limit = self.keep_alive(now);
        let mut closed = None;
        self.connections.lock().retain_mut(|connection| {
            let kept = self.keeps(connection, limit, now);
            let usable = kept && connection.is_usable();
            if kept && !usable {
                // The one that was closed soonest.
                let unused = now.saturating_duration_since(connection.since);
                closed = Some(closed.map_or(unused, |it: Duration| it.min(unused)));
            }
            usable
        });
        if let Some(unused) = closed {
            self.found_closed(unused);
        }
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unused = self.connections.lock().len();
        out.debug_struct("Idle").field("unused", &unused).finish()
    }
}

/// Ends when the client is gone.
async fn sweep(idle: Weak<Idle>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(idle) = idle.upgrade() else {
            return;
        };
        idle.sweep();
    }
}

/// An answer's body, which drives the connection that it comes from.
pub(super) struct Answer {
    body: Incoming,
    /// And where it goes when the body has ended. `None`: back already, or driven
    /// by a task of its own.
    connection: Option<(Connection, Arc<Idle>)>,
    /// What came behind the last piece and could not be joined to it.
    next: Option<Result<Frame<Bytes>, hyper::Error>>,
    ended: bool,
}

impl Answer {
    /// A body from a connection that moves by itself.
    pub(super) fn driven(body: Incoming) -> Self {
        Self::new(body, None)
    }

    fn new(body: Incoming, connection: Option<(Connection, Arc<Idle>)>) -> Self {
        let mut answer = Self {
            body,
            connection,
            next: None,
            ended: false,
        };
        if answer.body.is_end_stream() {
            answer.give_back();
        }
        answer
    }

    fn give_back(&mut self) {
        if let Some((connection, home)) = self.connection.take() {
            home.put(connection);
        }
    }

    /// One piece as the upstream wrote it.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending()
            && let Some((connection, _)) = &mut self.connection
        {
            connection.drive(cx);
            polled = Pin::new(&mut self.body).poll_frame(cx);
        }
        self.ended = match &polled {
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if self.ended {
            self.give_back();
        }
        polled
    }

    /// `first` and what is there behind it, without waiting.
    fn join(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut joined = BytesMut::new();
        while !self.ended && first.len().max(joined.len()) < JOINED {
            let piece = match self.poll_piece(cx) {
                Poll::Ready(Some(Ok(frame))) => frame.into_data().map_err(Ok),
                Poll::Ready(Some(Err(error))) => Err(Err(error)),
                Poll::Ready(None) | Poll::Pending => break,
            };
            match piece {
                Ok(piece) => {
                    if joined.is_empty() {
                        joined.reserve(JOINED.min(4 * (first.len() + piece.len())));
                        joined.extend_from_slice(&first);
                    }
                    joined.extend_from_slice(&piece);
                }
                Err(other) => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        if joined.is_empty() {
            first
        } else {
            joined.freeze()
        }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(next));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(self.poll_piece(cx)?) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(first) => Frame::data(self.join(first, cx)),
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
