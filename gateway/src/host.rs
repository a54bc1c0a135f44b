//! A model in a process of its own: the side that holds it.
//!
//! The serving process asks it as it asks any upstream, over a Unix socket that only that process can reach. So
//! there is no key, no rate and no log here; the whole way of a request from the parser on is in this process,
//! with templates, tokenizers and grammars, and ends with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixListener;

use crate::error::ApiError;
use crate::stack::REQUEST_ID;
use crate::{Body, BoxError, Gateway, RequestContext, api};

/// Microseconds from a request to its first output token, which a whole answer does not tell.
pub const FIRST_TOKEN: &str = "model-host-first-token-us";

/// Pause after a failed accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The requests that are being answered, for whoever watches that none takes too long. Read by a thread of its own:
/// the runtime's may all be busy with them.
#[derive(Debug, Default)]
pub struct InHand {
    began: Mutex<HashMap<u64, Instant>>,
    next: AtomicU64,
}

impl InHand {
    /// When the oldest of them began.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.began.lock().values().min().copied()
    }

    fn begin(self: &Arc<Self>) -> Held {
        let number = self.next.fetch_add(1, Relaxed);
        self.began.lock().insert(number, Instant::now());
        Held {
            in_hand: Arc::clone(self),
            number,
        }
    }
}

/// One request in hand, until its answer's last byte.
struct Held {
    in_hand: Arc<InHand>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_hand.began.lock().remove(&self.number);
    }
}

/// Answers requests for models over the socket, for as long as the process lives.
pub async fn serve(gateway: Arc<Gateway>, listener: UnixListener, in_hand: Arc<InHand>) {
    let answering = move |request| answer(Arc::clone(&gateway), request);
    accept(listener, in_hand, answering).await;
}

/// The same with other answers.
pub async fn accept<F, A, B>(listener: UnixListener, in_hand: Arc<InHand>, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let (answer, in_hand) = (answer.clone(), Arc::clone(&in_hand));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let held = in_hand.begin();
                        let answering = answer(request);
                        async move { Ok::<_, Infallible>(holding(answering.await, held)) }
                    });
                    let io = TokioIo::new(socket);
                    let served = http1::Builder::new().serve_connection(io, service);
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// In hand until the answer's last byte.
fn holding<B>(
    response: Response<B>,
    held: Held,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = B::Error> + use<B>>
where
    B: hyper::body::Body<Data = Bytes>,
{
    response.map(|body| {
        body.map_frame(move |frame| {
            let _until_the_last_byte = &held;
            frame
        })
    })
}

async fn answer(gateway: Arc<Gateway>, mut request: Request<Incoming>) -> Response<Body> {
    let id = request.headers().get(REQUEST_ID);
    let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    let context = RequestContext::new(id, request.uri().path());
    request.extensions_mut().insert(context.clone());
    let answered = AssertUnwindSafe(api::route(gateway, request)).catch_unwind();
    let mut response = answered.await.unwrap_or_else(|_panic| {
        ApiError::internal("the model's process failed while answering").into_response()
    });
    if let Some(first) = context.outcome.ttft()
        && let Ok(value) = HeaderValue::from_str(&first.as_micros().to_string())
    {
        response.headers_mut().insert(FIRST_TOKEN, value);
    }
    response
}
