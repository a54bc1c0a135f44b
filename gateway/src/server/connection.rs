//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as state};
use tokio_rustls::TlsAcceptor;

use super::Phase;
use super::peers::Peers;
use super::watch::{Marked, Marks, Overdue, Patience, Unread};
use crate::config::ServerConfig;
use crate::request_body::Pace;
use crate::stack::Inner;
use crate::{Body, Gateway, RequestBody};

/// What all connections share.
pub(super) struct Connections<S> {
    shared: Arc<Shared<S>>,
    phase: state::Receiver<Phase>,
}

struct Shared<S> {
    stack: S,
    protocol: auto::Builder<TokioExecutor>,
    patience: Patience,
    pace: Pace,
    tls: Option<TlsAcceptor>,
    peers: Arc<Peers>,
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    /// With fewer left, connections that ask for nothing make way.
    scarce: usize,
}

impl<S> Shared<S> {
    fn patience(&self) -> Patience {
        match self.places.available_permits() < self.scarce {
            true => self.patience.in_a_hurry(),
            false => self.patience,
        }
    }
}

impl<S: Inner> Connections<S> {
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        stack: S,
        tls: Option<TlsAcceptor>,
        phase: state::Receiver<Phase>,
        places: Arc<Semaphore>,
    ) -> Self {
        let server = &gateway.config().server;
        Self {
            shared: Arc::new(Shared {
                stack,
                protocol: protocol(server),
                patience: Patience::of(server),
                pace: Pace {
                    least: server.min_body_rate as u64,
                    // Connections have their hiccups.
                    grace: server.head_timeout,
                    linger: server.linger_timeout,
                },
                tls,
                peers: Peers::new(server.max_connections_per_peer),
                places,
                scarce: server.max_connections.div_ceil(SCARCE),
            }),
            phase,
        }
    }

    /// Serves a socket in its own task; `place` is given back when it ends.
    pub(super) fn spawn(&self, socket: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let Some(known) = self.shared.peers.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of one address");
            return;
        };
        super::prepare(&socket);
        let (shared, phase) = (Arc::clone(&self.shared), self.phase.clone());
        tokio::spawn(async move {
            let marks = Marks::new(Instant::now());
            let socket = Marked::new(socket, Arc::clone(&marks), place);
            match &shared.tls {
                None => serve(&shared, socket, marks, phase, peer).await,
                Some(tls) => {
                    let handshake = tokio::time::timeout(shared.patience.head, tls.accept(socket));
                    match handshake.await {
                        Ok(Ok(stream)) => serve(&shared, stream, marks, phase, peer).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                }
            }
            drop(known);
        });
    }
}

/// Bytes of a body that an HTTP/2 client may send ahead.
const STREAM_WINDOW: u32 = 128 << 10;

/// Connections are scarce when fewer than one in so many is left.
const SCARCE: usize = 8;

fn protocol(server: &ServerConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `watch` does it, without a timer for each request.
        .header_read_timeout(None)
        // Without hyper's `pipeline_flush`: it holds an answer back while there are unread bytes, and so
        // would the one to a broken head.
        .max_buf_size(server.max_head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(server.max_streams)
        // What a client may send before anybody has asked for it.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_header_list_size(u32::try_from(server.max_head).unwrap_or(u32::MAX))
        // A client that opens and resets streams in a loop (CVE-2023-44487) is cut off.
        .max_pending_accept_reset_streams(64)
        .keep_alive_interval(server.idle_timeout / 2)
        .keep_alive_timeout(server.head_timeout);
    builder
}

async fn serve<S, T>(
    shared: &Shared<S>,
    io: T,
    marks: Arc<Marks>,
    mut phase: state::Receiver<Phase>,
    peer: SocketAddr,
) where
    S: Inner,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Requests {
        stack: shared.stack.clone(),
        marks: Arc::clone(&marks),
        phase: phase.clone(),
        pace: shared.pace,
    };
    let mut connection = pin!(shared.protocol.serve_connection(TokioIo::new(io), requests));
    let rhythm = shared.patience.rhythm();
    let mut look = pin!(tokio::time::sleep(rhythm));
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // Most of all a head that was too large or wrong, and was answered so.
                    marks.note_unread();
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            changed = phase.wait_for(|phase| match phase {
                Phase::Serving | Phase::Leaving => false,
                Phase::Draining => !draining,
                Phase::Closing => true,
            }) => match changed.as_deref() {
                Ok(Phase::Draining) => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(tokio::time::Instant::now() + rhythm);
                }
                _ => return,
            },
            () = look.as_mut() => {
                // HTTP/2 waits for the client's word before it closes; one that is gone
                // must not hold up the drain.
                if draining && marks.is_idle() {
                    return;
                }
                match marks.overdue(shared.patience()) {
                    None => {}
                    // Closes cleanly: nothing is in flight.
                    Some(Overdue::Idle) => connection.as_mut().graceful_shutdown(),
                    Some(overdue @ (Overdue::Head | Overdue::Write | Overdue::Discard)) => {
                        tracing::debug!(%peer, ?overdue, "connection took too long");
                        return;
                    }
                }
                look.as_mut().reset(tokio::time::Instant::now() + rhythm);
            }
        }
    }
}

/// The stack as one connection's service.
struct Requests<S> {
    stack: S,
    marks: Arc<Marks>,
    phase: state::Receiver<Phase>,
    pace: Pace,
}

impl<S: Inner> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        // HTTP/2 resets a stream whose body nobody wants, and the connection goes on.
        let unread = match http2 {
            true => Unread::default(),
            false => self.marks.body(),
        };
        let (mut request, expectation) = RequestBody::of(request, self.pace, unread);
        request.extensions_mut().insert(self.marks.request(http2));
        // Always ready: the stack answers 503 instead of making clients wait.
        let answer = self.stack.clone().run(request);
        let phase = self.phase.clone();
        Box::pin(async move {
            let mut response = answer.await;
            let leaving = *phase.borrow() != Phase::Serving;
            if !http2 && (leaving || expectation.is_unmet()) {
                // A body that was not asked for may come all the same.
                // The client opens its next connection, and elsewhere if this server leaves.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        })
    }
}
