//! Choosing a replica, and trying another when it fails before it answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use super::body::{Flaw, ForwardBody};
use super::budget::Budget;
use super::direct::Answer;
use super::envelope::Envelope;
use super::outlier::{Admission, Event, Policy};
use super::reach::Reach;
use super::replica::{Replica, Ticket, authorization};
use super::{ForwardError, PoolError, balance, headers, now};
use crate::config::UpstreamConfig;
use crate::endpoint::Protocol;
use crate::limits::forecast::Forecast;
use crate::validate::{self, Head};
use crate::{Body, RequestContext};

/// Upstreams of one deployment at most: they are chosen from a 64-bit mask.
pub const MAX_UPSTREAMS: usize = 64;

/// The upstreams of one deployment and how to choose among them. Clones share what is known of them.
#[derive(Debug, Clone)]
pub struct RemotePool {
    shared: Arc<Shared>,
    /// The upstreams' name of the model, as a JSON string.
    model: Option<String>,
    authorization: Option<HeaderValue>,
}

/// What outlives a request's answer: tickets hold it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) replicas: Vec<Replica>,
    pub(super) policy: Policy,
    pub(super) ejected: AtomicUsize,
    pub(super) idle_timeout: Duration,
    max_ejected: f64,
    first_byte_timeout: Duration,
    max_held: usize,
    attempts: u32,
    budget: Budget,
    forecast: Arc<Forecast>,
    retries: AtomicU64,
}

impl Shared {
    fn new(replicas: Vec<Replica>, config: &UpstreamConfig) -> Self {
        Self {
            replicas,
            policy: Policy {
                after: config.eject_after,
                base: config.eject_for,
                max: config.eject_for_max.max(config.eject_for),
            },
            ejected: AtomicUsize::new(0),
            idle_timeout: config.idle_timeout,
            max_ejected: config.max_ejected,
            first_byte_timeout: config.first_byte_timeout,
            max_held: config.max_held,
            attempts: config.retries.saturating_add(1),
            budget: Budget::new(config.retry_budget),
            forecast: Arc::default(),
            retries: AtomicU64::new(0),
        }
    }

    /// Whether one more replica may be ejected.
    pub(super) fn may_eject(&self) -> bool {
        let after = self.ejected.load(Relaxed) + 1;
        after as f64 <= self.max_ejected * self.replicas.len() as f64
    }
}

/// How one attempt failed, before there was an answer.
enum Failure {
    /// Nothing was started, or nobody knows: another replica may be tried.
    Lost(String),
    /// The first-byte timeout: the work may be under way, so nobody else is asked.
    Slow,
    /// What came was no answer, and none of it has been seen.
    NoAnswer(Flaw),
}

impl From<Failure> for ForwardError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(reason) => Self::Unreachable(reason),
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
            Self::Slow | Self::NoAnswer(Flaw::Idle | Flaw::Deadline) => false,
        }
    }
}

impl RemotePool {
    /// A pool over base URLs such as `http://host:port/v1`. `model` is the
    /// upstreams' name of the model, `key` their API key.
    ///
    /// # Errors
    /// A URL, the key or the authorities' file is unusable. An upstream that does
    /// not answer is no error: it may come up later.
    pub async fn new(
        urls: &[String],
        model: Option<&str>,
        key: Option<&str>,
        config: &UpstreamConfig,
    ) -> Result<Self, PoolError> {
        Self::within(urls, model, key, config, None).await
    }

    /// The same for URLs that a record names: only addresses within `reach` are connected to,
    /// whatever a name leads to by then. `None` is everywhere.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn within(
        urls: &[String],
        model: Option<&str>,
        key: Option<&str>,
        config: &UpstreamConfig,
        reach: Option<&Reach>,
    ) -> Result<Self, PoolError> {
        if urls.is_empty() || urls.len() > MAX_UPSTREAMS {
            return Err(PoolError::Count(urls.len()));
        }
        let mut replicas = Vec::with_capacity(urls.len());
        for url in urls {
            replicas.push(Replica::new(url, config, reach).await?);
        }
        Ok(Self {
            shared: Arc::new(Shared::new(replicas, config)),
            model: model.map(|name| serde_json::Value::from(name).to_string()),
            authorization: key.map(authorization).transpose()?,
        })
    }

    /// The process of this machine that listens on `socket` and knows the model by the name
    /// that clients give. What it does not answer is answered by nobody.
    #[must_use]
    pub fn local(socket: &Path, config: &UpstreamConfig) -> Self {
        let config = UpstreamConfig {
            retries: 0,
            max_ejected: 0.0,
            ..config.clone()
        };
        let replicas = vec![Replica::local(socket, &config)];
        Self {
            shared: Arc::new(Shared::new(replicas, &config)),
            model: None,
            authorization: None,
        }
    }

    /// Sends a request to one of the upstreams and streams its answer through once it has
    /// begun, error answers included (an upstream's 4xx goes to the client as it is). What is
    /// no answer by `protocol` is a failure of the upstream.
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
        let body = match &self.model {
            Some(model) => envelope.with_model(&body, model),
            None => body,
        };
        let headers = headers::request(&parts.headers, context, self.authorization.as_ref());
        self.shared.budget.deposit();
        let mut tried = 0_u64;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Some(mut ticket) = self.pick(tried) else {
                return Err(ForwardError::NoUpstream);
            };
            tried |= 1 << ticket.index();
            let request = self.request(&ticket, parts, &headers, &body)?;
            let sent = now();
            let result = self.attempt(&ticket, request, context).await;
            context.outcome.add_target_time(now() - sent);
            let last = attempts >= self.shared.attempts;
            let result = match result {
                Ok(answer) if is_retryable(answer.status()) && !last && self.may_retry(tried) => {
                    ticket.settle(Event::Failure);
                    continue;
                }
                Ok(answer) => {
                    let latency = now() - sent;
                    self.receive(answer, ticket, context, (protocol, envelope), latency)
                        .await
                }
                Err(failure) => {
                    ticket.settle(Event::Failure);
                    Err(failure)
                }
            };
            match result {
                Err(failure) if failure.is_retryable() && !last && self.may_retry(tried) => {}
                result => {
                    return result.map_err(|failure| {
                        if let Failure::NoAnswer(Flaw::Defect(defect)) = failure {
                            context.outcome.set_defect(defect);
                        }
                        failure.into()
                    });
                }
            }
        }
    }

    /// Takes an answer in, as far as it must be known before it may go out.
    async fn receive(
        &self,
        answer: Response<Answer>,
        mut ticket: Ticket,
        context: &RequestContext,
        (protocol, envelope): (Protocol, &Envelope),
        latency: Duration,
    ) -> Result<Response<Body>, Failure> {
        let (mut head, answer) = answer.into_parts();
        let mut body = match validate::head(head.status, &head.headers, envelope.form(protocol)) {
            Head::Whole => {
                let vectors = envelope.vectors(protocol);
                ForwardBody::whole(answer, ticket, context, protocol, vectors)
            }
            Head::Events => {
                // Its end may be mended.
                head.headers.remove(http::header::CONTENT_LENGTH);
                ForwardBody::events(answer, ticket, context, protocol)
            }
            Head::Opaque | Head::Refusal(_) => ForwardBody::unread(answer, ticket, context),
            Head::Failure => {
                ticket.answered(latency, Event::Failure);
                let body = ForwardBody::unread(answer, ticket, context);
                return Ok(respond(head, body));
            }
            Head::Broken(defect) => {
                ticket.settle(Event::Failure);
                return Err(Failure::NoAnswer(Flaw::Defect(defect)));
            }
        };
        match body.begin(self.shared.max_held).await {
            Ok(()) => {
                body.begun(latency);
                Ok(respond(head, body))
            }
            Err(flaw) => {
                body.lost(flaw);
                Err(Failure::NoAnswer(flaw))
            }
        }
    }

    /// When the upstreams would answer.
    pub(crate) fn forecast(&self) -> &Arc<Forecast> {
        &self.shared.forecast
    }

    /// The upstreams, in the order of the configuration.
    #[must_use]
    pub fn upstreams(&self) -> &[Replica] {
        &self.shared.replicas
    }

    /// Requests in flight, over all upstreams.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.shared
            .replicas
            .iter()
            .map(|replica| u64::from(replica.in_flight()))
            .sum()
    }

    /// Attempts beyond a request's first, so far.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.shared.retries.load(Relaxed)
    }

    /// Power of two choices among the admitted replicas not tried yet.
    fn pick(&self, tried: u64) -> Option<Ticket> {
        let now = now();
        let mut open = self.open(now) & !tried;
        while open != 0 {
            let (a, b) = balance::draw(open, rand::random(), rand::random())?;
            let cost = |index: usize| self.shared.replicas[index].load().cost();
            let chosen = if cost(b) < cost(a) { b } else { a };
            // A probe's place may just have been taken: then another one.
            if let Some(ticket) = Ticket::take(&self.shared, chosen, now) {
                return Some(ticket);
            }
            open &= !(1 << chosen);
        }
        None
    }

    /// Mask of the replicas that a request may go to.
    fn open(&self, now: Instant) -> u64 {
        let replicas = self.shared.replicas.iter().enumerate();
        replicas.fold(0, |mask, (index, replica)| {
            let admitted = replica.admission(now) != Admission::Closed;
            mask | u64::from(admitted) << index
        })
    }

    /// Takes a retry from the budget if there is a replica to spend it on.
    fn may_retry(&self, tried: u64) -> bool {
        let possible = self.open(now()) & !tried != 0 && self.shared.budget.withdraw();
        self.shared.retries.fetch_add(u64::from(possible), Relaxed);
        possible
    }

    fn request(
        &self,
        ticket: &Ticket,
        parts: &Parts,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, ForwardError> {
        let uri = ticket.replica().uri(&parts.uri).ok_or_else(|| {
            ForwardError::Invalid("The path of this request cannot be sent on.".to_owned())
        })?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        Ok(request)
    }

    /// One attempt, to the head of the answer.
    async fn attempt(
        &self,
        ticket: &Ticket,
        request: Request<Full<Bytes>>,
        context: &RequestContext,
    ) -> Result<Response<Answer>, Failure> {
        let answer = ticket.replica().client.request(request);
        let limit = self.shared.first_byte_timeout;
        // Below the deadline, which the stack watches anyway, a timer is wasted.
        let sooner = context
            .deadline
            .is_none_or(|deadline| deadline.saturating_duration_since(Instant::now()) > limit);
        let answer = if sooner {
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(Failure::Slow),
            }
        } else {
            answer.await
        };
        answer.map_err(|error| Failure::Lost(reason(&*error)))
    }
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

/// An upstream's answer as ours.
fn respond(mut head: http::response::Parts, body: ForwardBody) -> Response<Body> {
    headers::clean_response(&mut head.headers);
    // The client's connection has its own version; hyper writes it.
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    Response::from_parts(head, body.boxed_unsync())
}
