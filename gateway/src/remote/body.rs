//! An upstream's answer passing through: not a byte is held back.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::direct::Answer;
use super::now;
use super::outlier::Event;
use super::replica::{Ticket, is_event_stream};
use super::sniff::Sniffer;
use crate::context::{Fault, Outcome};
use crate::error::ApiError;
use crate::{BoxError, RequestContext};

/// What comes next.
enum State {
    /// What the upstream sends.
    Passing,
    /// The error event has been handed over and must reach the socket before the
    /// connection breaks: one turn is left to the connection to flush it.
    Flushing(&'static str),
    /// The connection breaks.
    Breaking(&'static str),
    /// Nothing.
    Over,
}

/// Dropping it (the client hung up) closes the exchange with the upstream.
pub(super) struct ForwardBody {
    upstream: Answer,
    ticket: Ticket,
    outcome: Arc<Outcome>,
    deadline: Option<Instant>,
    idle_timeout: Duration,
    events: bool,
    /// Success only: an error answer holds no tokens.
    sniffer: Option<Sniffer>,
    waiting_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    state: State,
}

const LOST: &str = "The upstream closed its connection in the middle of the answer.";
const IDLE: &str = "The upstream stopped sending in the middle of the answer.";
const DEADLINE: &str = "The request's deadline passed in the middle of the answer.";

impl ForwardBody {
    pub(super) fn new(
        upstream: Answer,
        head: &Parts,
        ticket: Ticket,
        context: &RequestContext,
    ) -> Self {
        Self {
            upstream,
            idle_timeout: ticket.idle_timeout(),
            ticket,
            outcome: Arc::clone(&context.outcome),
            deadline: context.deadline,
            events: is_event_stream(&head.headers),
            sniffer: head.status.is_success().then(Sniffer::default),
            waiting_since: None,
            alarm: None,
            state: State::Passing,
        }
    }

    fn passed(&mut self, piece: &Bytes) {
        if let Some(sniffer) = &mut self.sniffer
            && sniffer.observe(piece, self.events)
        {
            self.outcome.token();
        }
    }

    /// The end came as it should.
    fn finished(&mut self) {
        self.state = State::Over;
        if let Some(sniffer) = self.sniffer.take() {
            let sniffed = sniffer.finish();
            if let Some(usage) = sniffed.usage {
                self.outcome.add_usage(usage);
            }
            if let Some(reason) = sniffed.finish {
                self.outcome.set_finish(reason);
            }
        }
    }

    /// The end came too early. Clients of an event stream are told by an event;
    /// for all others the connection breaks, so that nobody takes a part for the whole.
    fn broken(
        &mut self,
        reason: &'static str,
        fault: Fault,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.finished();
        self.outcome.set_fault(fault);
        if !self.events {
            return Some(Err(reason.into()));
        }
        self.state = State::Flushing(reason);
        let error = ApiError::bad_gateway(reason).to_json();
        Some(Ok(Frame::data(format!("data: {error}\n\n").into())))
    }

    /// While the upstream is silent: whether it has been so for too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        let since = *self.waiting_since.get_or_insert_with(now);
        loop {
            let current = now();
            if self.deadline.is_some_and(|deadline| current >= deadline) {
                return Poll::Ready(DEADLINE);
            }
            let idle = since + self.idle_timeout;
            if current >= idle {
                return Poll::Ready(IDLE);
            }
            // The alarm set during an earlier silence is moved only when it goes
            // off, so that a piece costs no timer.
            let due = self.deadline.map_or(idle, |deadline| deadline.min(idle));
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            std::task::ready!(alarm.as_mut().poll(cx));
            alarm.as_mut().reset(due.into());
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
        match this.state {
            State::Passing => {}
            State::Flushing(reason) => {
                this.state = State::Breaking(reason);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::Breaking(reason) => {
                this.state = State::Over;
                return Poll::Ready(Some(Err(reason.into())));
            }
            State::Over => return Poll::Ready(None),
        }
        let polled = Pin::new(&mut this.upstream).poll_frame(cx);
        if polled.is_ready()
            && let Some(since) = this.waiting_since.take()
        {
            this.outcome.add_target_time(now() - since);
        }
        let frame = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    this.passed(piece);
                }
                // A connection that knows the length does not ask for the end.
                if this.upstream.is_end_stream() {
                    this.finished();
                }
                Some(Ok(frame))
            }
            Poll::Ready(None) => {
                this.finished();
                None
            }
            Poll::Ready(Some(Err(_))) => {
                this.ticket.settle(Event::Failure);
                this.broken(LOST, Fault::Server)
            }
            Poll::Pending => {
                let reason = std::task::ready!(this.poll_alarm(cx));
                if reason == IDLE {
                    this.ticket.settle(Event::Failure);
                }
                this.broken(reason, Fault::Server)
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Passing => self.upstream.is_end_stream(),
            State::Flushing(_) | State::Breaking(_) => false,
            State::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Passing => self.upstream.size_hint(),
            State::Flushing(_) | State::Breaking(_) | State::Over => SizeHint::default(),
        }
    }
}
