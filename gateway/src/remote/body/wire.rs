//! The body as a connection sees it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::{ForwardBody, Judge, State, Step};
use crate::BoxError;

/// A client that leaves pays for what has come.
impl Drop for ForwardBody {
    fn drop(&mut self) {
        if self.bill.is_some() {
            self.scan();
            // Clients leave as soon as a stream has said that it is done.
            self.settle(self.done);
        }
    }
}

impl hyper::body::Body for ForwardBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(piece) = this.held.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match this.state {
            State::Passing => {}
            State::Telling(flaw) => return Poll::Ready(Some(this.broken(flaw))),
            State::Flushing(flaw) => {
                this.state = State::Breaking(flaw);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::Breaking(flaw) => {
                this.state = State::Over;
                return Poll::Ready(Some(Err(flaw.message().into())));
            }
            State::Over => return Poll::Ready(None),
        }
        Poll::Ready(match std::task::ready!(this.poll_step(cx)) {
            Step::Piece(piece) => {
                // A connection that knows the length does not ask for the end.
                if !matches!(this.judge, Judge::Events(_)) && this.upstream.is_end_stream() {
                    if let Step::Flaw(flaw) = this.end() {
                        return Poll::Ready(Some(this.broken(flaw)));
                    }
                    this.finished();
                }
                Some(Ok(Frame::data(piece)))
            }
            Step::End => {
                this.finished();
                None
            }
            Step::Flaw(flaw) => Some(this.broken(flaw)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Passing if matches!(self.judge, Judge::Events(_)) => false,
            State::Passing => self.held.is_empty() && self.upstream.is_end_stream(),
            State::Telling(_) | State::Flushing(_) | State::Breaking(_) => false,
            State::Over => self.held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let held: u64 = self.held.iter().map(|piece| piece.len() as u64).sum();
        match (&self.state, &self.judge) {
            (State::Over, _) => SizeHint::with_exact(held),
            // Another name may be longer.
            (State::Passing, Judge::Whole(whole)) if whole.scanner.renames() => SizeHint::default(),
            (State::Passing, Judge::Whole(_) | Judge::Nothing) => {
                let mut hint = self.upstream.size_hint();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + held);
                }
                hint.set_lower(hint.lower() + held);
                hint
            }
            _ => SizeHint::default(),
        }
    }
}
