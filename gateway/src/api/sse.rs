//! Server-sent events: a response whose body is written as the model writes.
//!
//! The body is *pulled*: hyper polls it when the connection can take more, so a
//! slow client slows only itself. What has become ready meanwhile goes out in one
//! frame ([`EventSource::fill`] coalesces), and nothing is buffered beyond the
//! engine's own bounded channel. Dropping the body drops the source, which
//! cancels the sequences.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::{Body, BoxError};

/// The last event of a stream.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";
/// A frame is sent once it holds this many bytes, even if more is ready.
pub(crate) const FRAME: usize = 16 << 10;

/// Writes events.
pub(crate) trait EventSource: Send + 'static {
    /// Appends at least one event, waiting for it if need be, and whatever else
    /// is ready (up to about [`FRAME`] bytes). Appends nothing at the end.
    fn fill(&mut self, out: &mut BytesMut) -> impl Future<Output = ()> + Send;
}

/// A streaming response that begins with `head`, the events that are ready.
pub(crate) fn response<S: EventSource>(head: BytesMut, source: S) -> Response<Body> {
    let frames = stream::unfold((head, source), |(mut buffer, mut source)| async move {
        if buffer.is_empty() {
            source.fill(&mut buffer).await;
        }
        if buffer.is_empty() {
            return None;
        }
        let frame = Frame::data(buffer.split().freeze());
        Some((Ok::<Frame<Bytes>, BoxError>(frame), (buffer, source)))
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies of the nginx kind hold a response back otherwise.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// Appends one event of JSON.
pub(crate) fn push(out: &mut BytesMut, json: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}
