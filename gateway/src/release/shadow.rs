//! Copies of requests for the candidate, whose answers nobody gets: they are compared
//! with the ones that went out.
//!
//! A copy starts when its request is over, so that it never competes with it, and gives
//! way to all others: it is of the lowest class, waits in a bounded queue, and is dropped
//! when the server is busy. It is in no series, no log and nobody's bill.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use sluice_engine::request::{FinishReason, Priority};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Said;
use super::body::{Kept, is_events};
use super::{Class, Placement, ReleaseSink, Watch};
use crate::access::Rights;
use crate::api::{Asked, ask};
use crate::context::{Fault, Principal};
use crate::endpoint::Kind;
use crate::metrics::Shadowing;
use crate::metrics::observer::Record;
use crate::router::split::Weight;
use crate::router::{Deployment, Entry, Release};
use crate::{Gateway, RequestContext};

/// Marks a copy for an upstream.
const SHADOW: http::HeaderName = http::HeaderName::from_static("x-sluice-shadow");

/// A request that has been answered, to be asked again.
#[derive(Debug)]
pub(crate) struct ShadowRequest {
    pub(crate) asked: Asked,
    /// Whose requests go first. Weak: a copy keeps no server alive.
    pub(crate) gateway: Weak<Gateway>,
    /// Where it runs; the observer's thread, which starts it, is none of a runtime's.
    pub(crate) runtime: Handle,
}

/// Both answers to one request.
#[derive(Debug, Clone)]
pub struct ShadowPair {
    /// [`Release::id`].
    pub release: Arc<str>,
    /// Name of the deployment.
    pub deployment: Arc<str>,
    /// The live request's id.
    pub request_id: Arc<str>,
    /// Hash of its unit.
    pub unit: u64,
    /// What was asked.
    pub kind: Kind,
    /// When the live request ended.
    pub ended: SystemTime,
    /// The request's body. It holds a prompt: not for logs.
    pub request: Bytes,
    /// It asked for temperature 0, so that equal models answer equally.
    pub greedy: bool,
    /// What the client got.
    pub live: ShadowAnswer,
    /// What the candidate answered.
    pub candidate: ShadowAnswer,
}

/// One of the two.
#[derive(Debug, Clone)]
pub struct ShadowAnswer {
    /// Who answered.
    pub revision: Arc<str>,
    /// Status; 504 when it took longer than `release.shadow_timeout`.
    pub status: u16,
    /// How it ended, as a live request is judged: a refusal of the candidate's, which the
    /// live revision has answered, is [`Class::Rejected`].
    pub class: Class,
    /// Text and calls of the first choice; of an answer without choices (embeddings,
    /// scores) its JSON.
    pub text: String,
    /// Nothing was cut off at `release.max_answer`.
    pub whole: bool,
    /// Generated tokens.
    pub output_tokens: usize,
    /// Why the generation ended.
    pub finish: Option<FinishReason>,
    /// From the request to the first token.
    pub ttft: Option<Duration>,
    /// From the request to the end.
    pub total: Duration,
}

/// The live side of a pair to come.
pub(super) struct Live {
    release: Arc<Release>,
    request_id: Arc<str>,
    unit: u64,
    kind: Kind,
    ended: SystemTime,
    answer: Answer,
}

/// An answer as it was collected; its text is not read yet.
struct Answer {
    revision: Arc<str>,
    status: StatusCode,
    class: Class,
    kept: Kept,
    total: Duration,
    context: RequestContext,
}

impl Live {
    pub(super) fn of(record: &Record, placement: &Placement, kept: Kept) -> Self {
        let completed = &record.completed;
        Self {
            release: Arc::clone(placement.release()),
            request_id: Arc::clone(&record.context.id),
            unit: placement.pick().unit,
            kind: completed.endpoint.kind,
            ended: record.ended,
            answer: Answer {
                revision: Arc::clone(&placement.deployment().revision),
                status: StatusCode::from_u16(completed.status).unwrap_or_default(),
                class: match completed.fault {
                    Some(Fault::Server) => Class::Failed,
                    Some(Fault::Client | Fault::Cancelled) | None => Class::Answered,
                },
                kept,
                total: completed.total,
                context: record.context.clone(),
            },
        }
    }
}

impl Watch {
    /// Asks the candidate in the background, if there is room.
    pub(super) fn begin_shadow(
        self: &Arc<Self>,
        copy: Box<ShadowRequest>,
        live: Live,
        sink: &Arc<dyn ReleaseSink>,
    ) {
        match Arc::clone(&self.places).try_acquire_owned() {
            Err(_) => self.metrics.shadow(Shadowing::Full),
            Ok(place) => {
                let (watch, sink) = (Arc::clone(self), Arc::clone(sink));
                let runtime = copy.runtime.clone();
                drop(runtime.spawn(watch.shadow(copy, live, place, sink)));
            }
        }
    }

    async fn shadow(
        self: Arc<Self>,
        copy: Box<ShadowRequest>,
        live: Live,
        _place: OwnedSemaphorePermit,
        sink: Arc<dyn ReleaseSink>,
    ) {
        let Ok(_permit) = self.permits.acquire().await else {
            return;
        };
        if let Some(obstacle) = copy.obstacle(&live.release) {
            return self.metrics.shadow(obstacle);
        }
        let answer = copy.ask(&live, &self.config).await;
        let request = copy.asked.body.clone();
        // Reading is CPU work that no live stream should wait for.
        let pair = tokio::task::spawn_blocking(move || pair(request, live, answer)).await;
        let Ok(pair) = pair else { return };
        self.metrics.shadow(Shadowing::Compared);
        sink.pair(pair);
    }
}

impl ShadowRequest {
    /// Why it should not be asked now.
    fn obstacle(&self, release: &Release) -> Option<Shadowing> {
        let gateway = self.gateway.upgrade()?;
        let routes = gateway.routes();
        let goes_on = match routes.entry(&release.stable().name) {
            Some(Entry::Released(now)) => {
                Arc::ptr_eq(now.candidate(), release.candidate())
                    && now.split().shadow() > Weight::NONE
            }
            Some(Entry::Settled(_)) | None => false,
        };
        let waits = |deployment: &Deployment| deployment.target.is_queueing();
        let busy =
            gateway.admission().is_busy() || waits(release.stable()) || waits(release.candidate());
        match (goes_on, busy) {
            (false, _) => Some(Shadowing::Ended),
            (true, true) => Some(Shadowing::Busy),
            (true, false) => None,
        }
    }

    async fn ask(&self, live: &Live, config: &crate::config::ReleaseConfig) -> Answer {
        let candidate = live.release.candidate();
        let context = context(
            &live.request_id,
            self.asked.parts.uri.path(),
            config.shadow_timeout,
        );
        let mut answer = Answer {
            revision: Arc::clone(&candidate.revision),
            status: StatusCode::GATEWAY_TIMEOUT,
            class: Class::Timeout,
            kept: Kept::default(),
            total: Duration::ZERO,
            context,
        };
        let begun = Instant::now();
        let collected = answer.collect(&self.asked, candidate, config.max_answer);
        _ = tokio::time::timeout(config.shadow_timeout, collected).await;
        answer.total = begun.elapsed();
        answer
    }
}

impl Answer {
    async fn collect(&mut self, asked: &Asked, candidate: &Arc<Deployment>, limit: usize) {
        let response = match ask(asked, &self.context, candidate).await {
            Ok(response) => response,
            Err(unanswered) => {
                self.status = unanswered.status();
                self.class = match unanswered.class() {
                    // The deadline of a copy is this server's.
                    Class::OwnDeadline => Class::Failed,
                    class => class,
                };
                return;
            }
        };
        let status = response.status();
        self.kept.events = is_events(&response);
        self.kept.whole = true;
        let mut body = response.into_body();
        let mut broken = false;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let piece = frame.into_data().unwrap_or_default();
                    self.kept.take(&piece, limit);
                }
                Err(_) => broken = true,
            }
        }
        self.status = status;
        broken |= self.context.outcome.fault() == Some(Fault::Server);
        self.class = match broken {
            true => self.context.outcome.class().unwrap_or(Class::Failed),
            false => Class::Answered,
        };
    }

    fn read(self) -> ShadowAnswer {
        let outcome = &self.context.outcome;
        let said = Said::read(&self.kept);
        ShadowAnswer {
            revision: self.revision,
            status: self.status.as_u16(),
            class: self.class,
            text: match said.choice {
                true => said.into_text(),
                false => String::from_utf8_lossy(&self.kept.bytes).into_owned(),
            },
            whole: self.kept.whole,
            output_tokens: outcome.usage().completion,
            finish: outcome.finish(),
            ttft: outcome.ttft(),
            total: self.total,
        }
    }
}

/// All copies are of one tenant, of the lowest class, whatever their bodies ask for.
fn context(live: &str, path: &str, timeout: Duration) -> RequestContext {
    let mut context = RequestContext::new(format!("{live}-shadow"), path);
    context.deadline = Some(context.received + timeout);
    context.priority = Priority::Low;
    context.principal = Some(Arc::new(Principal {
        key_id: "shadow".into(),
        name: "shadow".into(),
        priority: Priority::Low,
        models: None,
        role: None,
        owner: None,
        // The live request was let in; its copy goes to the same name.
        rights: Rights::unlimited(),
    }));
    context
}

fn pair(request: Bytes, live: Live, candidate: Answer) -> ShadowPair {
    #[derive(Deserialize)]
    struct Sampling {
        temperature: Option<f64>,
    }
    let sampling = serde_json::from_slice::<Sampling>(&request);
    let greedy = sampling.is_ok_and(|sampling| sampling.temperature == Some(0.0));
    ShadowPair {
        release: Arc::clone(live.release.id()),
        deployment: Arc::clone(&live.release.stable().name),
        request_id: live.request_id,
        unit: live.unit,
        kind: live.kind,
        ended: live.ended,
        request,
        greedy,
        live: live.answer.read(),
        candidate: candidate.read(),
    }
}

/// Says to an upstream that nobody waits for the answer.
pub(crate) fn mark(headers: &mut http::HeaderMap) {
    headers.insert(SHADOW, http::HeaderValue::from_static("1"));
}
