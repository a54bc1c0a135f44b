//! Accepts connections, and stops without losing a request.
//!
//! One task accepts; each connection is a task of its own that lives until the
//! client leaves, a limit of [`watch`] passes, or the drain ends it.

mod connection;
mod linger;
mod peers;
mod stop;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch as state};
use tokio_rustls::TlsAcceptor;

use crate::Gateway;
use crate::stack::{self, Inner};
use connection::Connections;
pub use stop::{Stop, StopHandle, Stopping};
pub(crate) use tls::{certificates, problems as tls_problems};
pub(crate) use watch::{InFlight, Unread};

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anyone on the network could use the models.
    #[error(
        "refusing to listen on {0}, which others can reach, without authentication: set \
         auth.required = true and give keys (auth.keys_file or SLUICE_API_KEYS), or listen \
         on 127.0.0.1"
    )]
    Exposed(SocketAddr),
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; --listen, SLUICE_LISTEN or `listen` name another address"
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

/// A bound server that does not accept yet.
pub struct Server {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut off.
    pub cut_off: usize,
}

/// What connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Go on.
    Serving,
    /// Answer with `connection: close`.
    Leaving,
    /// Finish what is in flight and close.
    Draining,
    /// Close now.
    Closing,
}

/// Pause after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Server {
    /// Binds the configured address.
    ///
    /// # Errors
    /// [`ServeError`]; above all, an address beyond loopback needs authentication.
    pub async fn bind(gateway: Arc<Gateway>) -> Result<Self, ServeError> {
        let config = gateway.config();
        let address = config.listen;
        if !is_loopback(address) && !config.auth.required {
            return Err(ServeError::Exposed(address));
        }
        let tls = tls::acceptor(&config.server).map_err(|(_, why)| ServeError::Tls(why))?;
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound
            .await
            .map_err(|source| ServeError::Bind { address, source })?;
        Ok(Self {
            gateway,
            listener,
            address,
            tls,
        })
    }

    /// The address really bound, where the configuration said port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until `stop` says so, then drains: not ready at once, accepting
    /// through the grace period, then finishing what is in flight.
    pub async fn run(self, stop: Stop) -> Drained {
        let endpoints = stack::endpoints(&self.gateway);
        self.run_with(endpoints, stop).await
    }

    /// The same with other endpoints behind the stack.
    pub async fn run_with<S: Inner>(self, endpoints: S, mut stop: Stop) -> Drained {
        let server = self.gateway.config().server.clone();
        let (phase, phases) = state::channel(Phase::Serving);
        let places = Arc::new(Semaphore::new(server.max_connections));
        let acceptor = Acceptor {
            connections: Connections::new(
                &self.gateway,
                stack::build(&self.gateway, endpoints),
                self.tls.clone(),
                phases,
                Arc::clone(&places),
            ),
            places,
        };
        tokio::select! {
            () = acceptor.accept_all(&self.listener) => {}
            () = stop.requested(Stopping::Drain) => {}
        }
        self.gateway.drain();
        _ = phase.send(Phase::Leaving);
        tokio::select! {
            () = acceptor.accept_all(&self.listener) => {}
            () = tokio::time::sleep(server.drain_grace) => {}
            () = stop.requested(Stopping::Now) => {}
        }
        acceptor.accept_backlog(&self.listener);
        drop(self.listener);
        _ = phase.send(Phase::Draining);
        let everyone = u32::try_from(server.max_connections).unwrap_or(u32::MAX);
        let gone = acceptor.places.acquire_many(everyone);
        let finished = tokio::select! {
            _ = gone => true,
            () = tokio::time::sleep(server.drain_timeout) => false,
            () = stop.requested(Stopping::Now) => false,
        };
        let cut_off = if finished {
            0
        } else {
            server.max_connections - acceptor.places.available_permits()
        };
        _ = phase.send(Phase::Closing);
        Drained { cut_off }
    }
}

struct Acceptor<S> {
    /// One for each connection that may be open.
    places: Arc<Semaphore>,
    connections: Connections<S>,
}

impl<S: Inner> Acceptor<S> {
    /// Never ends by itself.
    async fn accept_all(&self, listener: &TcpListener) {
        loop {
            // Without a place, clients wait in the system's backlog.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((socket, peer)) => self.connections.spawn(socket, peer, place),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes the connections that the system has already established for us;
    /// closing the listener would reset them.
    fn accept_backlog(&self, listener: &TcpListener) {
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            match listener.accept().now_or_never() {
                Some(Ok((socket, peer))) => self.connections.spawn(socket, peer, place),
                Some(Err(_)) | None => return,
            }
        }
    }
}

pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Options of a fresh connection.
fn prepare(socket: &TcpStream) {
    // Without it the pieces of a stream wait for the client's acknowledgements.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}
