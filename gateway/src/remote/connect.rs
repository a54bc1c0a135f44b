//! Connections to one upstream.
//!
//! Plain HTTP/1.1 goes by [`Direct`]; TLS, which may negotiate HTTP/2, and HTTP/2
//! with prior knowledge by hyper's pooling client.
//!
//! Names are resolved when the pool is made and again in the background, so that
//! no request ever waits for DNS: a new connection takes what is known.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::Scheme;
use http::{Extensions, Request, Response, Uri};
use http_body_util::Full;
use hyper::rt::{Read, Write};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::UnixStream;
use tower::Service;

use super::PoolError;
use super::direct::{Answer, Direct, MAX_IDLE};
use super::reach::Reach;
use super::wire::{Seen, Watched};
use crate::BoxError;
use crate::config::UpstreamConfig;
use crate::server::certificates;

/// Client of one upstream, with its own pool of connections.
#[derive(Debug)]
pub(super) enum Upstream {
    /// Plain HTTP/1.1.
    Direct(Direct),
    /// TLS or HTTP/2.
    Negotiated(Pooled<HttpsConnector<HttpConnector<Resolved>>>),
    /// A process of this machine, behind a Unix socket.
    Local(Pooled<Socket>),
}

/// hyper's pooling client, and one of the same connections that keeps none.
#[derive(Debug)]
pub(super) struct Pooled<C> {
    kept: Client<Timed<C>, Full<Bytes>>,
    fresh: Client<Timed<C>, Full<Bytes>>,
}

/// No head of an answer has come.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: BoxError,
    /// A kept connection was dead before a byte of the answer: the request may go out again.
    pub(super) is_stale: bool,
}

/// Before anything was sent.
impl<E: Into<BoxError>> From<E> for Lost {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            is_stale: false,
        }
    }
}

impl Upstream {
    /// Sends a request, whose URI is absolute, up to the head of its answer; on a new connection
    /// if `fresh`. Dropping the future or the answer's body ends the exchange.
    pub(super) async fn request(
        &self,
        request: Request<Full<Bytes>>,
        fresh: bool,
    ) -> Result<Response<Answer>, Lost> {
        match self {
            Self::Direct(client) => client.request(request, fresh).await,
            Self::Negotiated(client) => client.request(request, fresh).await,
            Self::Local(client) => client.request(request, fresh).await,
        }
    }
}

impl<C> Pooled<C>
where
    C: Service<Uri, Error = BoxError, Future: Send + Unpin + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Response: Read + Write + Connection + Unpin + Send + 'static,
{
    fn new(connector: C, config: &UpstreamConfig) -> Self {
        let connector = Timed {
            connector,
            limit: config.connect_timeout,
        };
        let client = |kept: usize| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(config.keep_alive)
                .pool_max_idle_per_host(kept)
                .http2_only(config.http2)
                .build(connector.clone())
        };
        Self {
            kept: client(MAX_IDLE),
            fresh: client(0),
        }
    }

    async fn request(
        &self,
        request: Request<Full<Bytes>>,
        fresh: bool,
    ) -> Result<Response<Answer>, Lost> {
        let client = if fresh { &self.fresh } else { &self.kept };
        match client.request(request).await {
            Ok(answer) => Ok(answer.map(Answer::driven)),
            Err(error) => Err(Lost {
                is_stale: !fresh && is_stale(&error),
                error: error.into(),
            }),
        }
    }
}

fn is_stale(error: &hyper_util::client::legacy::Error) -> bool {
    let Some(connection) = error.connect_info() else {
        return false;
    };
    let mut noted = Extensions::new();
    connection.get_extras(&mut noted);
    noted.get().is_some_and(Seen::is_unanswered_reuse)
}

/// What a client is told when the connect timeout has passed.
pub(super) const TOO_LONG: &str = "connecting took too long";
/// How soon a name that could not be resolved is tried again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// A client for `base`. Resolves its name once before it comes back; a name that
/// cannot be resolved is logged and tried again, not an error. Within `reach`, if it is given.
pub(super) async fn client(
    base: &Uri,
    config: &UpstreamConfig,
    reach: Option<&Reach>,
) -> Result<Upstream, PoolError> {
    let resolved = Resolved::of(base, config.resolve_every, reach).await;
    let mut tcp = HttpConnector::new_with_resolver(resolved);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    tcp.set_connect_timeout(Some(config.connect_timeout));
    if base.scheme() == Some(&Scheme::HTTP) && !config.http2 {
        return Direct::new(base, tcp, config).map(Upstream::Direct);
    }
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(client_tls(config.ca_file.as_deref())?)
        .https_or_http()
        .enable_http1();
    let connector = tls.enable_http2().wrap_connector(tcp);
    Ok(Upstream::Negotiated(Pooled::new(connector, config)))
}

/// A client of the process that listens on `socket`.
pub(super) fn local(socket: &Path, config: &UpstreamConfig) -> Upstream {
    let config = UpstreamConfig {
        http2: false,
        ..config.clone()
    };
    Upstream::Local(Pooled::new(Socket(socket.into()), &config))
}

/// Connects to a Unix socket, whatever the URL says.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<Path>);

impl Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = Arc::clone(&self.0);
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(&*path).await?)) })
    }
}

/// TLS towards servers: trusts the authorities in `ca_file`, or else the built-in ones.
///
/// # Errors
/// [`PoolError::Tls`]: the file holds no certificates.
pub fn client_tls(ca_file: Option<&Path>) -> Result<ClientConfig, PoolError> {
    // Named explicitly: a process-wide default would panic if two crates set it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PoolError::Tls(error.to_string()))?;
    let Some(path) = ca_file else {
        return Ok(builder.with_webpki_roots().with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).map_err(PoolError::Tls)? {
        roots
            .add(certificate)
            .map_err(|error| PoolError::Tls(format!("{}: {error}", path.display())))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A connection whose bytes are noted.
type Noted<T> = TokioIo<Watched<TokioIo<T>>>;

/// A connector with a limit on everything it does, TLS included.
#[derive(Debug, Clone)]
pub(super) struct Timed<C> {
    connector: C,
    limit: Duration,
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Error = BoxError, Future: Send + 'static>,
    C::Response: Send,
{
    type Response = Noted<C::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.limit, self.connector.call(uri));
        Box::pin(async move {
            match connected.await {
                // Noted within TLS: a handshake is no answer.
                Ok(result) => result.map(|it| TokioIo::new(Watched::new(TokioIo::new(it)))),
                Err(_) => Err(TOO_LONG.into()),
            }
        })
    }
}

/// A resolver that only looks up what is known.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    addresses: Arc<ArcSwap<Vec<SocketAddr>>>,
}

impl Resolved {
    async fn of(base: &Uri, every: Duration, reach: Option<&Reach>) -> Self {
        let addresses = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let host = base
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        // The connector reads addresses out of URLs by itself.
        if host.parse::<std::net::IpAddr>().is_err() {
            let name = Named {
                host,
                base: base.clone(),
                reach: reach.cloned(),
            };
            name.resolve(&addresses).await;
            tokio::spawn(refresh(name, Arc::downgrade(&addresses), every));
        }
        Self { addresses }
    }
}

/// A name to be resolved, and where it may lead.
#[derive(Debug)]
struct Named {
    host: String,
    base: Uri,
    /// `None` is everywhere.
    reach: Option<Reach>,
}

impl Named {
    async fn resolve(&self, addresses: &ArcSwap<Vec<SocketAddr>>) {
        let host = &self.host;
        match tokio::net::lookup_host((&**host, 0)).await {
            Ok(found) => {
                let mut found: Vec<_> = found.collect();
                if let Some(reach) = &self.reach {
                    found.retain(|it| reach.admits(&self.base, it.ip()));
                    if found.is_empty() {
                        tracing::warn!(
                            host,
                            "an upstream's name leads out of control.allow.upstreams"
                        );
                    }
                }
                if !found.is_empty() {
                    addresses.store(Arc::new(found));
                }
            }
            // What was known before stays: DNS that is down must not stop traffic.
            Err(error) => tracing::warn!(host, %error, "cannot resolve an upstream's name"),
        }
    }
}

/// Ends when the pool is gone.
async fn refresh(name: Named, known: Weak<ArcSwap<Vec<SocketAddr>>>, every: Duration) {
    loop {
        let empty = known.upgrade().is_none_or(|known| known.load().is_empty());
        tokio::time::sleep(if empty {
            RESOLVE_AGAIN.min(every)
        } else {
            every
        })
        .await;
        let Some(addresses) = known.upgrade() else {
            return;
        };
        name.resolve(&addresses).await;
    }
}

impl Service<Name> for Resolved {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = Vec::clone(&self.addresses.load());
        std::future::ready(if addresses.is_empty() {
            Err(io::Error::other(format!("{name} cannot be resolved")))
        } else {
            Ok(addresses.into_iter())
        })
    }
}
