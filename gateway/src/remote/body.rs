//! An upstream's answer passing through, judged on its way.
//!
//! Nothing goes out before it is an answer: of a stream the first event with output, of any
//! other all of it. Until then another upstream, or a stable revision, can take its place.
//! Behind its first output a stream passes event by event; what is no answer any more ends it
//! with an error event.

mod flaw;
mod wire;

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame};
use tokio::time::Sleep;

use super::bill::Bill;
use super::direct::Answer;
use super::now;
use super::outlier::Event;
use super::refusal::MAX_REFUSAL;
use super::replica::Ticket;
use crate::context::{Fault, Outcome};
use crate::endpoint::Protocol;
use crate::error::ApiError;
use crate::validate::events::{DONE, Edits, End, Events, Next};
use crate::validate::scan::Scanner;
use crate::validate::tally::Tally;
use crate::validate::{Defect, whole};
use crate::{BoxError, RequestContext};
pub(super) use flaw::Flaw;

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
    Whole(Box<Whole>),
    /// Not at all: a refusal, or bytes that the request asked for.
    Nothing,
}

/// An answer in one piece.
struct Whole {
    protocol: Protocol,
    /// How many it has to bring, where that is known.
    vectors: Option<usize>,
    scanner: Scanner,
    /// What comes is scanned as it comes: it was too large to be held.
    passing: bool,
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

/// How long the body of a refusal may take.
const EXPLANATION: Duration = Duration::from_secs(2);

/// Dropping it (the client hung up) closes the exchange with the upstream.
pub(super) struct ForwardBody {
    upstream: Answer,
    ticket: Ticket,
    outcome: Arc<Outcome>,
    deadline: Option<Instant>,
    idle_timeout: Duration,
    judge: Judge,
    /// Of an answer only: a refusal costs nothing.
    bill: Option<Bill>,
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
        bill: Bill,
        (protocol, edits): (Protocol, Edits),
    ) -> Self {
        let judge = Judge::Events(Box::new(Events::new(protocol, edits)));
        Self::new(upstream, ticket, context, judge, Some(bill))
    }

    /// An answer in one piece, with so many vectors if that is known, and `model` as its name.
    pub(super) fn whole(
        upstream: Answer,
        ticket: Ticket,
        context: &RequestContext,
        bill: Bill,
        (protocol, vectors, model): (Protocol, Option<usize>, Option<Bytes>),
    ) -> Self {
        let judge = Judge::Whole(Box::new(Whole {
            protocol,
            vectors,
            scanner: Scanner::new(model),
            passing: false,
        }));
        Self::new(upstream, ticket, context, judge, Some(bill))
    }

    /// What passes as it is: bytes that the request asked for.
    pub(super) fn unread(
        upstream: Answer,
        ticket: Ticket,
        context: &RequestContext,
        bill: Bill,
    ) -> Self {
        Self::new(upstream, ticket, context, Judge::Nothing, Some(bill))
    }

    /// A refusal, which is to be [`collect`](Self::collect)ed.
    pub(super) fn refusal(upstream: Answer, ticket: Ticket, context: &RequestContext) -> Self {
        Self::new(upstream, ticket, context, Judge::Nothing, None)
    }

    fn new(
        upstream: Answer,
        ticket: Ticket,
        context: &RequestContext,
        judge: Judge,
        bill: Option<Bill>,
    ) -> Self {
        Self {
            upstream,
            idle_timeout: ticket.idle_timeout(),
            ticket,
            outcome: Arc::clone(&context.outcome),
            deadline: context.deadline,
            judge,
            bill,
            held: VecDeque::new(),
            last: 0,
            done: false,
            waiting_since: None,
            alarm: None,
            state: State::Passing,
        }
    }

    /// All of a refusal; `None` where it is too long, breaks off, or takes its time: nobody waits
    /// long for an explanation.
    pub(super) async fn collect(mut self) -> Option<Bytes> {
        let all = async {
            let mut size = 0;
            loop {
                match poll_fn(|cx| self.poll_step(cx)).await {
                    Step::Piece(piece) => {
                        size += piece.len();
                        self.held.push_back(piece);
                    }
                    Step::End => return Some(self.joined()),
                    Step::Flaw(_) => return None,
                }
                if size > MAX_REFUSAL {
                    return None;
                }
            }
        };
        tokio::time::timeout(EXPLANATION, all).await.ok().flatten()
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
            // The client did not wait for what is under way.
            Flaw::Deadline => {}
            Flaw::Lost | Flaw::Idle | Flaw::Defect(_) => {
                self.ticket.settle(Event::Failure);
                if let Some(bill) = &mut self.bill {
                    bill.waive();
                }
            }
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
            Judge::Whole(_) => false,
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
        if size <= limit || !matches!(self.judge, Judge::Whole(_)) {
            return Ok(());
        }
        let held = self.joined();
        whole::judge_beginning(&held).map_err(Flaw::Defect)?;
        self.scan();
        Ok(())
    }

    fn judge_whole(&mut self) -> Result<(), Flaw> {
        let body = self.joined();
        let Judge::Whole(whole) = &self.judge else {
            return Ok(());
        };
        whole::judge(whole.protocol, whole.vectors, &body).map_err(Flaw::Defect)?;
        self.scan();
        Ok(())
    }

    /// Reads what is held of an answer in one piece, which passes from now on.
    fn scan(&mut self) {
        let Judge::Whole(whole) = &mut self.judge else {
            return;
        };
        if !std::mem::replace(&mut whole.passing, true) {
            for piece in &mut self.held {
                *piece = whole.scanner.take(piece);
            }
        }
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
        self.settle(true);
    }

    /// Enters what the answer has cost. Once; later calls do nothing.
    fn settle(&mut self, complete: bool) {
        let Some(mut bill) = self.bill.take() else {
            return;
        };
        match &self.judge {
            Judge::Events(events) => bill.settle(events.tally(), complete),
            // It is counted before its first byte is sent.
            Judge::Whole(whole) => bill.settle(whole.scanner.tally(), true),
            Judge::Nothing => bill.settle(&Tally::default(), complete),
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
        self.state = State::Over;
        self.settle(false);
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
            let events = match &mut self.judge {
                Judge::Events(events) => events,
                Judge::Nothing => return Poll::Ready(Step::Piece(piece)),
                Judge::Whole(whole) => {
                    if let Some(last) = piece.trim_ascii_end().last() {
                        self.last = *last;
                    }
                    return Poll::Ready(Step::Piece(match whole.passing {
                        true => whole.scanner.take(&piece),
                        false => piece,
                    }));
                }
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
            Judge::Whole(_) if self.held.is_empty() && !matches!(self.last, 0 | b'}' | b']') => {
                Step::Flaw(Flaw::Defect(Defect::Json))
            }
            Judge::Whole(_) => Step::End,
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
