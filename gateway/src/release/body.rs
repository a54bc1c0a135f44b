//! Answers under release on their way out, kept as far as somebody wants to read them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use crate::{Body, BoxError, Outcome};

/// The beginning of an answer, or all of it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    /// They are an event stream.
    pub(crate) events: bool,
    /// Nothing is missing.
    pub(crate) whole: bool,
    /// The request asked for JSON.
    pub(crate) structured: bool,
}

impl Kept {
    /// Takes what still fits within `limit` bytes.
    pub(crate) fn take(&mut self, piece: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        self.whole &= piece.len() <= room;
        self.bytes
            .extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

/// Whether an answer is an event stream.
pub(crate) fn is_events(response: &Response<Body>) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Keeps up to `limit` bytes of an answer, for when it is over.
pub(crate) fn keep(
    response: Response<Body>,
    outcome: &Arc<Outcome>,
    structured: bool,
    limit: usize,
) -> Response<Body> {
    let kept = Kept {
        events: is_events(&response),
        whole: true,
        structured,
        ..Kept::default()
    };
    response.map(|body| {
        Keeping {
            body,
            kept,
            limit,
            outcome: Arc::clone(outcome),
        }
        .boxed_unsync()
    })
}

/// A body that leaves a copy behind when it is dropped.
struct Keeping {
    body: Body,
    kept: Kept,
    limit: usize,
    outcome: Arc<Outcome>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(placement) = self.outcome.placement() {
            placement.keep_answer(std::mem::take(&mut self.kept));
        }
    }
}

impl hyper::body::Body for Keeping {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(piece) = frame.data_ref()
        {
            this.kept.take(piece, this.limit);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
