//! Pieces of an answer that are already there travel together.
//!
//! The HTTP client hands over one piece at a time, by a hop between two tasks, and
//! each piece alone would cost a write to the client's socket. So after a piece
//! this body gives the scheduler one turn: what has arrived by then is joined.
//! Nothing waits for a piece that is not there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

use super::body::ForwardBody;
use crate::BoxError;

/// Joined bytes at most.
const MOST: usize = 16 * 1024;

type Next = Option<Result<Frame<Bytes>, BoxError>>;

/// See the module's text.
pub(super) struct Gather {
    inner: ForwardBody,
    held: BytesMut,
    /// The scheduler has had its turn since the last piece.
    yielded: bool,
    /// Comes after what is held.
    next: Option<Next>,
}

impl Gather {
    pub(super) fn new(inner: ForwardBody) -> Self {
        Self {
            inner,
            held: BytesMut::new(),
            yielded: false,
            next: None,
        }
    }

    fn emit(&mut self) -> Poll<Next> {
        self.yielded = false;
        Poll::Ready(Some(Ok(Frame::data(self.held.split().freeze()))))
    }

    /// Takes a piece; gives it, or all that is held, back when it must not wait.
    fn take(&mut self, piece: Bytes) -> Option<Bytes> {
        let last = self.inner.is_end_stream() || !self.inner.is_passing();
        if last && self.held.is_empty() {
            return Some(piece);
        }
        self.held.extend_from_slice(&piece);
        (last || self.held.len() >= MOST).then(|| self.held.split().freeze())
    }
}

impl Body for Gather {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(next);
        }
        loop {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        this.yielded = false;
                        if let Some(bytes) = this.take(piece) {
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                    }
                    Err(trailers) => return this.after_held(Some(Ok(trailers))),
                },
                Poll::Ready(end) => return this.after_held(end),
                Poll::Pending if this.held.is_empty() => return Poll::Pending,
                Poll::Pending if this.yielded => return this.emit(),
                Poll::Pending => {
                    this.yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.next.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_empty() && self.next.is_none() {
            self.inner.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

impl Gather {
    fn after_held(&mut self, next: Next) -> Poll<Next> {
        if self.held.is_empty() {
            return Poll::Ready(next);
        }
        self.next = Some(next);
        self.emit()
    }
}
