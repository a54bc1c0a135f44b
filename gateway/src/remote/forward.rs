//! One request on its way through a pool: attempts, and what is taken for an answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use super::bill::Bill;
use super::body::{Flaw, ForwardBody};
use super::direct::Answer;
use super::envelope::Envelope;
use super::outlier::Event;
use super::pool::RemotePool;
use super::replica::Ticket;
use super::{ForwardError, headers, now, refusal};
use crate::endpoint::Protocol;
use crate::validate::events::Edits;
use crate::validate::{self, Form, Head};
use crate::{Body, RequestContext};

/// How one attempt failed, before there was an answer.
enum Failure {
    /// Nothing was started, or nobody knows: another replica may be tried.
    Lost(String),
    /// The first-byte timeout: the work may be under way, so nobody else is asked.
    Slow,
    /// Our own account there is refused.
    Denied,
    /// What came was no answer, and none of it has been seen.
    NoAnswer(Flaw),
}

impl From<Failure> for ForwardError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(reason) => Self::Unreachable(reason),
            Failure::Denied => Self::Denied,
            Failure::Slow | Failure::NoAnswer(Flaw::Idle) => Self::Timeout,
            Failure::NoAnswer(Flaw::Deadline) => Self::Deadline,
            Failure::NoAnswer(Flaw::Lost) => Self::Unreachable(Flaw::Lost.message().to_owned()),
            Failure::NoAnswer(Flaw::Defect(defect)) => Self::Broken(defect),
        }
    }
}

impl Failure {
    /// Whether another replica may be tried.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Lost(_) | Self::NoAnswer(Flaw::Lost | Flaw::Defect(_)) => true,
            Self::Slow | Self::Denied | Self::NoAnswer(Flaw::Idle | Flaw::Deadline) => false,
        }
    }
}

/// What an upstream has answered.
enum Received {
    /// What the client gets.
    Response(Response<Body>),
    /// It does not know how a stream is asked for its usage, which the client has not done.
    UsageUnknown,
}

/// A request as it is put to upstreams.
struct Outgoing<'a> {
    context: &'a RequestContext,
    parts: &'a Parts,
    headers: HeaderMap,
    envelope: &'a Envelope,
    protocol: Protocol,
    /// As the client sent it, but for the model's name.
    plain: Bytes,
    /// The same with its stream asked for usage; `None` where that is not to be asked for.
    asking: Option<Bytes>,
    /// The name that was asked for, where answers are to carry it.
    model: Option<Bytes>,
}

impl Outgoing<'_> {
    fn body(&self, asks_usage: bool) -> &Bytes {
        match &self.asking {
            Some(asking) if asks_usage => asking,
            _ => &self.plain,
        }
    }

    fn bill(&self) -> Bill {
        let prompt = match self.protocol.is_of_texts() {
            true => 0,
            false => self.envelope.prompt_tokens(),
        };
        Bill::new(&self.context.outcome, prompt)
    }
}

impl RemotePool {
    /// Sends a request to one of the upstreams and streams its answer through once it has
    /// begun. An upstream's refusal (4xx) or failure (5xx) goes to the client with its status, in
    /// OpenAI's form and without what is of the inside. What is no answer by `protocol` is a
    /// failure of the upstream.
    ///
    /// `parts` are the client's method, URI (its path after `/v1` is appended to
    /// the upstream's base) and headers; `body` is the whole request body, in
    /// which the model's name is replaced by the upstream's without parsing again.
    /// Records target time, tokens and TTFT in `context.outcome` as they pass.
    ///
    /// # Errors
    /// No upstream could be reached, or none answered in time, or with an answer.
    pub async fn forward(
        &self,
        context: &RequestContext,
        parts: &Parts,
        body: Bytes,
        envelope: &Envelope,
        protocol: Protocol,
    ) -> Result<Response<Body>, ForwardError> {
        let asks = self.shared.asks_usage && envelope.form(protocol) == Form::Events;
        let model = self.model.as_deref();
        let outgoing = Outgoing {
            context,
            parts,
            headers: headers::request(&parts.headers, context, self.authorization.as_ref()),
            asking: asks
                .then(|| envelope.asking_for_usage(&body, model))
                .flatten(),
            plain: envelope.for_upstream(&body, model),
            // A copy: a slice would hold the whole body as long as the answer takes.
            model: match self.keeps_model {
                true => None,
                false => envelope.model_json(&body).map(Bytes::copy_from_slice),
            },
            envelope,
            protocol,
        };
        drop(body);
        self.shared.budget.deposit();
        self.attempts(&outgoing).await
    }

    async fn attempts(&self, outgoing: &Outgoing<'_>) -> Result<Response<Body>, ForwardError> {
        let context = outgoing.context;
        let mut tried = 0_u64;
        let mut attempts = 0;
        // Who has refused to be asked for usage.
        let mut unknown_to = None;
        loop {
            attempts += 1;
            let Some(mut ticket) = self.pick(tried) else {
                return Err(ForwardError::NoUpstream);
            };
            let index = ticket.index();
            tried |= 1 << index;
            let asks_usage = unknown_to.is_none() && ticket.replica().gives_usage();
            let sent = now();
            let mut bill = outgoing.bill();
            let result = self.attempt(&ticket, outgoing, asks_usage).await;
            context.outcome.add_target_time(now() - sent);
            let last = attempts >= self.shared.attempts;
            let result = match result {
                Ok(answer) if is_retryable(answer.status()) && !last && self.may_retry(tried) => {
                    ticket.settle(Event::Failure);
                    bill.waive();
                    continue;
                }
                Ok(answer) => {
                    let injected = asks_usage && outgoing.asking.is_some();
                    self.receive(answer, ticket, outgoing, bill, (now() - sent, injected))
                        .await
                }
                Err(Sending::Invalid) => {
                    bill.waive();
                    let message = "The path of this request cannot be sent on.";
                    return Err(ForwardError::Invalid(message.to_owned()));
                }
                Err(Sending::Failed(failure)) => {
                    ticket.settle(Event::Failure);
                    bill.waive();
                    Err(failure)
                }
            };
            match result {
                Err(failure) if failure.is_retryable() && !last && self.may_retry(tried) => {}
                Err(failure) => {
                    if let Failure::NoAnswer(Flaw::Defect(defect)) = failure {
                        context.outcome.set_defect(defect);
                    }
                    return Err(failure.into());
                }
                // Asked as the client has asked it: that is no attempt more.
                Ok(Received::UsageUnknown) => {
                    unknown_to = Some(index);
                    tried &= !(1 << index);
                    attempts -= 1;
                }
                Ok(Received::Response(response)) => {
                    if let Some(index) = unknown_to
                        && response.status().is_success()
                    {
                        self.shared.replicas[index].gives_no_usage();
                    }
                    return Ok(response);
                }
            }
        }
    }

    /// Takes an answer in, as far as it must be known before it may go out.
    async fn receive(
        &self,
        answer: Response<Answer>,
        mut ticket: Ticket,
        outgoing: &Outgoing<'_>,
        mut bill: Bill,
        (latency, asked_usage): (Duration, bool),
    ) -> Result<Received, Failure> {
        let Outgoing {
            context,
            envelope,
            protocol,
            ..
        } = *outgoing;
        let (mut head, answer) = answer.into_parts();
        let form = envelope.form(protocol);
        let mut body = match validate::head(head.status, &head.headers, form) {
            Head::Whole => {
                let whole = (protocol, envelope.vectors(protocol), outgoing.model.clone());
                ForwardBody::whole(answer, ticket, context, bill, whole)
            }
            Head::Events => {
                let edits = Edits {
                    model: outgoing.model.clone(),
                    strips_usage: !envelope.asks_for_usage(),
                    scrub: self.scrub.clone(),
                };
                ForwardBody::events(answer, ticket, context, bill, (protocol, edits))
            }
            Head::Opaque => ForwardBody::unread(answer, ticket, context, bill),
            refused @ (Head::Refusal(_) | Head::Failure) => {
                bill.waive();
                let event = match refused {
                    Head::Failure => Event::Failure,
                    _ => Event::Success,
                };
                ticket.answered(latency, event);
                if refusal::is_of_our_account(head.status) && self.scrub.is_some() {
                    return Err(Failure::Denied);
                }
                let refusal = ForwardBody::refusal(answer, ticket, context);
                return Ok(self.refused(head, refusal, outgoing, asked_usage).await);
            }
            Head::Broken(defect) => {
                bill.waive();
                ticket.settle(Event::Failure);
                return Err(Failure::NoAnswer(Flaw::Defect(defect)));
            }
        };
        // Its end may be mended, and the model's name be another.
        if !matches!(form, Form::Opaque) {
            head.headers.remove(http::header::CONTENT_LENGTH);
        }
        match body.begin(self.shared.max_held).await {
            Ok(()) => {
                body.begun(latency);
                Ok(Received::Response(self.respond(head, body)))
            }
            Err(flaw) => {
                body.lost(flaw);
                Err(Failure::NoAnswer(flaw))
            }
        }
    }

    /// A refusal or a failure, in the words in which the client may hear it.
    async fn refused(
        &self,
        head: http::response::Parts,
        body: ForwardBody,
        outgoing: &Outgoing<'_>,
        asked_usage: bool,
    ) -> Received {
        let status = head.status;
        let text = body.collect().await;
        let about_usage = asked_usage
            && text
                .as_deref()
                .is_some_and(|text| refusal::is_about_usage(status, text));
        if about_usage {
            return Received::UsageUnknown;
        }
        let asked = outgoing.envelope.model.as_deref();
        let asked = asked.filter(|_| !self.keeps_model);
        let scrub = self.scrub.as_deref();
        let passing = &self.shared.passing;
        Received::Response(refusal::respond(head, text, scrub, asked, passing))
    }

    /// One attempt, to the head of the answer. A kept connection that turns out to be dead
    /// before a byte of an answer costs none: the request goes out again on a new one.
    async fn attempt(
        &self,
        ticket: &Ticket,
        outgoing: &Outgoing<'_>,
        asks_usage: bool,
    ) -> Result<Response<Answer>, Sending> {
        let uri = ticket.replica().uri(&outgoing.parts.uri);
        let uri = uri.ok_or(Sending::Invalid)?;
        let request = || {
            let mut request = Request::new(Full::new(outgoing.body(asks_usage).clone()));
            *request.method_mut() = outgoing.parts.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = outgoing.headers.clone();
            request
        };
        let client = &ticket.replica().client;
        let answer = async {
            match client.request(request(), false).await {
                Err(lost) if lost.is_stale => client.request(request(), true).await,
                result => result,
            }
        };
        let limit = self.shared.first_byte_timeout;
        // Below the deadline, which the stack watches anyway, a timer is wasted.
        let deadline = outgoing.context.deadline;
        let sooner = deadline
            .is_none_or(|deadline| deadline.saturating_duration_since(Instant::now()) > limit);
        let answer = if sooner {
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(Sending::Failed(Failure::Slow)),
            }
        } else {
            answer.await
        };
        answer.map_err(|lost| {
            let reason = reason(&*lost.error);
            tracing::debug!(
                upstream = ticket.replica().label(),
                reason,
                "an upstream could not be reached"
            );
            Sending::Failed(Failure::Lost(reason))
        })
    }

    /// An upstream's answer as ours.
    fn respond(&self, mut head: http::response::Parts, body: ForwardBody) -> Response<Body> {
        self.shared.passing.clean(&mut head.headers);
        // The client's connection has its own version; hyper writes it.
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        Response::from_parts(head, body.boxed_unsync())
    }
}

/// Why there is no head of an answer.
enum Sending {
    /// The request cannot be sent on.
    Invalid,
    Failed(Failure),
}

/// The innermost cause, which says more than "client error (Connect)".
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Answers of a replica that cannot serve now, where another may.
fn is_retryable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
