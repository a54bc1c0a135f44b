//! An upstream's answer passing through, judged on its way.
//!
//! Nothing goes out before it is an answer: of a stream the first event with output, of any
//! other all of it. Until then another upstream, or a stable revision, can take its place.
//! Behind its first output a stream passes event by event; what is no answer any more ends it
//! with an error event.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::direct::Answer;
use super::now;
use super::outlier::Event;
use super::replica::Ticket;
use super::sniff::Sniffer;
use crate::context::{Fault, Outcome};
use crate::endpoint::Protocol;
use crate::error::ApiError;
use crate::release::Class;
use crate::validate::events::{DONE, End, Events, Next};
use crate::validate::{Defect, whole};
use crate::{BoxError, RequestContext};

/// What comes next.
enum State {
    /// What the upstream sends.
    Passing,
    /// What has gone wrong, behind the events that were in order.
    Telling(Flaw),
    /// The error event has been handed over and must reach the socket before the
    /// connection breaks: one turn is left to the connection to flush it.
    Flushing(Flaw),
    /// The connection breaks.
    Breaking(Flaw),
    /// Nothing.
    Over,
}

/// How an answer is judged.
enum Judge {
    /// As it comes.
    Events(Box<Events>),
    /// When it is there.
    Whole(Protocol, Option<usize>),
    /// Not at all: a refusal, or bytes that the request asked for.
    Nothing,
}

/// Why an answer is none, or not all of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The connection was lost.
    Lost,
    /// Nothing came for too long.
    Idle,
    /// The request's deadline passed.
    Deadline,
    /// It is no answer.
    Defect(Defect),
}

impl Flaw {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Lost => "The upstream closed its connection in the middle of the answer.",
            Self::Idle => "The upstream stopped sending in the middle of the answer.",
            Self::Deadline => "The request's deadline passed in the middle of the answer.",
            Self::Defect(defect) => defect.message(),
        }
    }

    fn class(self) -> Class {
        match self {
            Self::Lost => Class::Failed,
            Self::Idle | Self::Deadline => Class::Timeout,
            Self::Defect(_) => Class::Broken,
        }
    }
}

/// One step of an answer.
enum Step {
    /// Bytes that may pass.
    Piece(Bytes),
    /// Its end.
    End,
    /// Its end, which came too early.
    Flaw(Flaw),
}

/// How long a stream that has said that it is done may leave its connection open: the client
/// waits for it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Dropping it (the client hung up) closes the exchange with the upstream.
pub(super) struct ForwardBody {
    upstream: Answer,
    ticket: Ticket,
    outcome: Arc<Outcome>,
    deadline: Option<Instant>,
    idle_timeout: Duration,
    judge: Judge,
    /// Of an answer only: a refusal holds no tokens.
    sniffer: Option<Sniffer>,
    /// What came before it could pass.
    held: VecDeque<Bytes>,
    /// The last byte that passed, beside blanks.
    last: u8,
    /// The stream has said that it is done: what is left is the end of the exchange, after
    /// which the connection serves another request.
    done: bool,
    waiting_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    state: State,
}

impl ForwardBody {
    /// A stream of `protocol`.
    pub(super) fn events(
        upstream: Answer,
        ticket: Ticket,
        context: &RequestContext,
        protocol: Protocol,
    ) -> Self {
        let judge = Judge::Events(Box::new(Events::new(protocol)));
        Self::new(upstream, ticket, context, judge)
    }

    /// An answer in one piece, with so many vectors if that is known.
    pub(super) fn whole(
        upstream: Answer,
        ticket: Ticket,
        context: &RequestContext,
        protocol: Protocol,
        vectors: Option<usize>,
    ) -> Self {
        let judge = Judge::Whole(protocol, vectors);
        Self::new(upstream, ticket, context, judge)
    }

    /// What passes as it is.
    pub(super) fn unread(upstream: Answer, ticket: Ticket, context: &RequestContext) -> Self {
        Self::new(upstream, ticket, context, Judge::Nothing)
    }

    fn new(upstream: Answer, ticket: Ticket, context: &RequestContext, judge: Judge) -> Self {
        let reads = !matches!(judge, Judge::Nothing);
        Self {
            upstream,
            idle_timeout: ticket.idle_timeout(),
            ticket,
            outcome: Arc::clone(&context.outcome),
            deadline: context.deadline,
            judge,
            sniffer: reads.then(Sniffer::default),
            held: VecDeque::new(),
            last: 0,
            done: false,
            waiting_since: None,
            alarm: None,
            state: State::Passing,
        }
    }

    /// Notes that the answer has begun `latency` after it was asked for.
    pub(super) fn begun(&mut self, latency: Duration) {
        if self.outcome.fault() != Some(Fault::Server) {
            self.ticket.answered(latency, Event::Success);
        }
    }

    /// Notes that there is no answer, without a word to those who count: another may come.
    pub(super) fn lost(mut self, flaw: Flaw) {
        match flaw {
            Flaw::Deadline => {}
            Flaw::Lost | Flaw::Idle | Flaw::Defect(_) => self.ticket.settle(Event::Failure),
        }
    }

    /// Waits until the answer has begun: a stream with its first output, any other with its
    /// end. At most `limit` bytes are held for that; what goes on is taken to go well.
    ///
    /// # Errors
    /// It is none.
    pub(super) async fn begin(&mut self, limit: usize) -> Result<(), Flaw> {
        let streams = match self.judge {
            Judge::Nothing => return Ok(()),
            Judge::Events(_) => true,
            Judge::Whole(..) => false,
        };
        let mut size = 0;
        while size <= limit && !(streams && self.outcome.ttft().is_some()) {
            match poll_fn(|cx| self.poll_step(cx)).await {
                Step::Piece(piece) => {
                    size += piece.len();
                    self.held.push_back(piece);
                }
                Step::End => {
                    // What is no answer is nobody's use.
                    self.judge_whole()?;
                    self.finished();
                    return Ok(());
                }
                Step::Flaw(flaw) => return Err(flaw),
            }
            match self.state {
                // What comes behind the first output is told in its place.
                State::Telling(flaw) if self.outcome.ttft().is_none() => return Err(flaw),
                State::Telling(_) | State::Over => return Ok(()),
                State::Passing | State::Flushing(_) | State::Breaking(_) => {}
            }
        }
        match (&self.judge, size > limit) {
            (Judge::Whole(..), true) => {
                let held = self.joined();
                whole::judge_beginning(&held).map_err(Flaw::Defect)
            }
            _ => Ok(()),
        }
    }

    fn judge_whole(&mut self) -> Result<(), Flaw> {
        let Judge::Whole(protocol, vectors) = self.judge else {
            return Ok(());
        };
        let body = self.joined();
        whole::judge(protocol, vectors, &body).map_err(Flaw::Defect)
    }

    /// All that is held, as one piece.
    fn joined(&mut self) -> Bytes {
        if self.held.len() > 1 {
            let size = self.held.iter().map(Bytes::len).sum();
            let mut joined = BytesMut::with_capacity(size);
            for piece in self.held.drain(..) {
                joined.extend_from_slice(&piece);
            }
            self.held.push_back(joined.freeze());
        }
        self.held.front().cloned().unwrap_or_default()
    }

    /// The end came as it should, or there is no more to learn.
    fn finished(&mut self) {
        self.state = State::Over;
        let Some(sniffer) = self.sniffer.take() else {
            return;
        };
        let events = match &self.judge {
            Judge::Events(events) => events.count(),
            Judge::Whole(..) | Judge::Nothing => 0,
        };
        let sniffed = sniffer.finish(events);
        if let Some(usage) = sniffed.usage {
            self.outcome.add_usage(usage);
        }
        if let Some(reason) = sniffed.finish {
            self.outcome.set_finish(reason);
        }
    }

    /// The end came too early. Clients of an event stream are told by an event;
    /// for all others the connection breaks, so that nobody takes a part for the whole.
    fn broken(&mut self, flaw: Flaw) -> Result<Frame<Bytes>, BoxError> {
        self.failed(flaw);
        if !matches!(self.judge, Judge::Events(_)) {
            return Err(flaw.message().into());
        }
        self.state = State::Flushing(flaw);
        let error = ApiError::bad_gateway(flaw.message()).to_json();
        Ok(Frame::data(format!("data: {error}\n\n").into()))
    }

    /// Tells all who count what became of the answer.
    fn failed(&mut self, flaw: Flaw) {
        self.finished();
        if flaw != Flaw::Deadline {
            self.ticket.settle(Event::Failure);
        }
        if let Flaw::Defect(defect) = flaw {
            self.outcome.set_defect(defect);
        }
        self.outcome.set_class(flaw.class());
        self.outcome.set_fault(Fault::Server);
    }

    /// What the upstream sends next, as far as it may pass.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let polled = Pin::new(&mut self.upstream).poll_frame(cx);
            if polled.is_ready()
                && let Some(since) = self.waiting_since.take()
            {
                self.outcome.add_target_time(now() - since);
            }
            let frame = match polled {
                Poll::Ready(Some(Ok(_))) if self.done => continue,
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None | Some(Err(_))) if self.done => return Poll::Ready(Step::End),
                Poll::Ready(None) => return Poll::Ready(self.end()),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Step::Flaw(Flaw::Lost)),
                Poll::Pending => {
                    let flaw = std::task::ready!(self.poll_alarm(cx));
                    return Poll::Ready(match self.done {
                        true => Step::End,
                        false => Step::Flaw(flaw),
                    });
                }
            };
            // Trailers are the upstream's own.
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if let Some(sniffer) = &mut self.sniffer {
                sniffer.observe(&piece);
            }
            let Judge::Events(events) = &mut self.judge else {
                if let Some(last) = piece.trim_ascii_end().last() {
                    self.last = *last;
                }
                return Poll::Ready(Step::Piece(piece));
            };
            let passed = events.take(piece);
            if passed.output {
                self.outcome.token();
            }
            match passed.next {
                Next::More if passed.events.is_empty() => continue,
                Next::More => {}
                Next::Nothing => {
                    self.done = true;
                    self.alarm = None;
                }
                Next::Told => {
                    self.failed(Flaw::Defect(Defect::Error));
                    let told = [&*passed.events, DONE].concat();
                    return Poll::Ready(Step::Piece(told.into()));
                }
                Next::Broken(defect) if passed.events.is_empty() => {
                    return Poll::Ready(Step::Flaw(Flaw::Defect(defect)));
                }
                Next::Broken(defect) => self.state = State::Telling(Flaw::Defect(defect)),
            }
            return Poll::Ready(Step::Piece(passed.events));
        }
    }

    /// The upstream's body ended as it should.
    fn end(&mut self) -> Step {
        match &mut self.judge {
            Judge::Nothing => Step::End,
            // An answer that was too large to be held ends as JSON does.
            Judge::Whole(..) if self.held.is_empty() && !matches!(self.last, 0 | b'}' | b']') => {
                Step::Flaw(Flaw::Defect(Defect::Json))
            }
            Judge::Whole(..) => Step::End,
            Judge::Events(events) => match events.end() {
                Ok(End::Whole) => Step::End,
                Ok(End::Missing(missing)) => {
                    self.finished();
                    Step::Piece(missing)
                }
                Err(defect) => Step::Flaw(Flaw::Defect(defect)),
            },
        }
    }

    /// While the upstream is silent: whether it has been so for too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Flaw> {
        let since = *self.waiting_since.get_or_insert_with(now);
        loop {
            let current = now();
            if self.deadline.is_some_and(|deadline| current >= deadline) {
                return Poll::Ready(Flaw::Deadline);
            }
            let patience = match self.done {
                true => self.idle_timeout.min(LAST_WORDS),
                false => self.idle_timeout,
            };
            let idle = since + patience;
            if current >= idle {
                return Poll::Ready(Flaw::Idle);
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
            (State::Passing, Judge::Whole(..) | Judge::Nothing) => {
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
