//! How a layer is written: one async function around the rest.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use crate::{Body, Gateway, RequestBody};

/// A service within the stack: always ready, never failing.
pub trait Inner:
    Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Runs the rest. There is no error to handle: failures are responses.
    fn run(mut self, request: Request<RequestBody>) -> impl Future<Output = Response<Body>> + Send {
        let answer = self.call(request);
        async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}

impl<S> Inner for S where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// One layer: answers itself, or runs the rest.
pub(super) trait Middleware: Copy + Send + Sync + 'static {
    fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        request: Request<RequestBody>,
        rest: S,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Makes a tower layer of a [`Middleware`].
#[derive(Clone)]
pub(super) struct Around<M> {
    gateway: Arc<Gateway>,
    middleware: M,
}

impl<M> Around<M> {
    pub(super) fn new(gateway: &Arc<Gateway>, middleware: M) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            middleware,
        }
    }
}

impl<S, M: Copy> Layer<S> for Around<M> {
    type Service = Wrapped<S, M>;

    fn layer(&self, inner: S) -> Wrapped<S, M> {
        Wrapped {
            gateway: Arc::clone(&self.gateway),
            _middleware: self.middleware,
            inner,
        }
    }
}

/// A [`Middleware`] around a service.
#[derive(Clone)]
pub(super) struct Wrapped<S, M> {
    gateway: Arc<Gateway>,
    _middleware: M,
    inner: S,
}

impl<S: Inner, M: Middleware> Service<Request<RequestBody>> for Wrapped<S, M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let answer = M::handle(Arc::clone(&self.gateway), request, self.inner.clone());
        Box::pin(async move { Ok(answer.await) })
    }
}
