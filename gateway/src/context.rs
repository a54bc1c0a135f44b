//! What the layers and handlers know about one request.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluice_engine::request::{FinishReason, Priority, Timings, Usage};

use crate::access::{Audience, Rights};
use crate::auth::Account;
use crate::endpoint::{Endpoint, Resolved};
use crate::limits::RateLimiter;
use crate::limits::admission::Admission;
use crate::limits::quota::Purse;
use crate::limits::share::Shares;
use crate::release::{Class, Placement};
use crate::router::Deployment;
use crate::validate::Defect;

/// Who asks: the holder of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable id of the key (the first 12 hex digits of its SHA-256), safe to log.
    pub key_id: Arc<str>,
    /// Name given in the key file.
    pub name: Arc<str>,
    /// Class in the waiting queues, unless the request asks for a lower one.
    pub priority: Priority,
    /// Models that the key may use; `None` is all.
    pub models: Option<Arc<[Box<str>]>>,
    /// What it may do in the control plane, in that one's words.
    pub role: Option<Arc<str>>,
    /// Whose it is in a control plane's records; `None` for a key of the file.
    pub owner: Option<Arc<Owner>>,
    /// Which deployments it reaches.
    pub rights: Rights,
}

/// Whose a key is, by the ids of a control plane's records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// The key's own id.
    pub key: Box<str>,
    /// The person's, or the program's.
    pub principal: Box<str>,
    /// The department's.
    pub department: Box<str>,
    /// May ask revisions that are loaded for trial.
    pub operator: bool,
}

impl Principal {
    /// Whether the key may ask a revision that is loaded for trial.
    #[must_use]
    pub fn may_try(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.operator)
    }

    /// Whether the key may use a model with this audience. A few comparisons; nothing is allocated.
    #[must_use]
    pub fn may_use(&self, model: &str, audience: &Audience) -> bool {
        !self.rights.looks_only && self.lists(model) && audience.admits(&self.rights)
    }

    /// Whether the key may see that a model is there, and its numbers.
    #[must_use]
    pub fn may_see(&self, model: &str, audience: &Audience) -> bool {
        self.rights.metrics || self.lists(model) && audience.shows(Some(&self.rights))
    }

    /// Whether the key's own list of models, if it has one, holds this one.
    fn lists(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| **allowed == *model))
    }
}

/// Travels in the request's extensions. The stack makes it, handlers read it
/// and fill in its [`Outcome`].
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The `x-request-id` of the response: the client's own, or a new one.
    pub id: Arc<str>,
    /// What its path means.
    pub path: Resolved,
    /// `None` when authentication is off.
    pub principal: Option<Arc<Principal>>,
    /// Past this instant the answer is worthless (`x-request-timeout-ms`).
    pub deadline: Option<Instant>,
    /// Class in the waiting queues.
    pub priority: Priority,
    /// When the request's head had been read.
    pub received: Instant,
    /// Filled in on the way; logged when the response has left.
    pub outcome: Arc<Outcome>,
    /// Whom the request is for, whatever the route table says by now: see
    /// [`InHouse`](crate::in_house::InHouse).
    pub pinned: Option<Arc<Deployment>>,
    /// The trace that the client's request belongs to (W3C Trace Context).
    pub trace: Option<Arc<str>>,
    /// What keys share; without, nothing is limited by key (requests of the house).
    pub(crate) shares: Option<Arc<Shares>>,
}

impl RequestContext {
    /// A context that begins now, without principal or deadline, of a request for `path`.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, path: &str) -> Self {
        let received = Instant::now();
        Self {
            id: id.into(),
            path: Resolved::of(path),
            principal: None,
            deadline: None,
            priority: Priority::Normal,
            received,
            outcome: Arc::new(Outcome::new(received)),
            pinned: None,
            trace: None,
            shares: None,
        }
    }

    /// Which endpoint is asked.
    #[must_use]
    pub fn endpoint(&self) -> &'static Endpoint {
        self.path.endpoint
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_past_deadline(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Whose fault a failed request is. Told apart because an alert must fire for
/// the server's only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A 4xx: the request could not have succeeded.
    Client,
    /// The client hung up before the end.
    Cancelled,
    /// Everything else that was not answered as asked.
    Server,
}

impl Fault {
    /// Its name in logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Cancelled => "cancelled",
            Self::Server => "server",
        }
    }
}

/// What became of one request. Written by whoever knows, in any
/// order; read once, when the response's body has ended or was dropped.
#[derive(Debug)]
pub struct Outcome {
    received: Instant,
    deployment: OnceLock<Arc<Deployment>>,
    /// Where a release put it; then the deployment follows from that.
    placement: OnceLock<Placement>,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    queue_ns: AtomicU64,
    prefill_ns: AtomicU64,
    decode_ns: AtomicU64,
    /// Time spent waiting for the target, nanoseconds.
    target_ns: AtomicU64,
    /// Nanoseconds after `received`; 0 is none yet.
    first_token_ns: AtomicU64,
    last_token_ns: AtomicU64,
    finish: AtomicU8,
    fault: AtomicU8,
    /// How the attempt ended, and what was wrong with its answer, where that is known.
    ended: Mutex<Ended>,
    /// The client's own deadline, nanoseconds after `received`; 0 is none.
    own_deadline_ns: AtomicU64,
    /// Whose limits apply; none when authentication is off.
    account: OnceLock<Arc<Account>>,
    /// Tokens reserved at the door plus one; 0 is no reservation.
    reserved: AtomicU64,
    /// A place of the global admission is held.
    admitted: AtomicBool,
}

/// What whoever asked a model knows of the end.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    class: Option<Class>,
    defect: Option<Defect>,
}

impl Outcome {
    /// An empty record of a request received at `received`.
    #[must_use]
    pub fn new(received: Instant) -> Self {
        Self {
            received,
            deployment: OnceLock::new(),
            placement: OnceLock::new(),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            queue_ns: AtomicU64::new(0),
            prefill_ns: AtomicU64::new(0),
            decode_ns: AtomicU64::new(0),
            target_ns: AtomicU64::new(0),
            first_token_ns: AtomicU64::new(0),
            last_token_ns: AtomicU64::new(0),
            finish: AtomicU8::new(0),
            fault: AtomicU8::new(0),
            ended: Mutex::default(),
            own_deadline_ns: AtomicU64::new(0),
            account: OnceLock::new(),
            reserved: AtomicU64::new(0),
            admitted: AtomicBool::new(false),
        }
    }

    /// Notes whose limits apply.
    pub(crate) fn set_account(&self, account: Arc<Account>) {
        _ = self.account.set(account);
    }

    /// Who asks, once the key was found. The layers outside authentication have a
    /// context without it.
    #[must_use]
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.account.get().map(|account| &account.principal)
    }

    /// The limits that apply; `anonymous` where there is no key.
    pub(crate) fn purse<'a>(&'a self, anonymous: &'a RateLimiter) -> Purse<'a> {
        match self.account.get() {
            Some(account) => Purse {
                key: &account.limiter,
                quotas: &account.quotas,
            },
            None => Purse {
                key: anonymous,
                quotas: &[],
            },
        }
    }

    /// Notes tokens that were taken by estimate.
    pub(crate) fn reserve(&self, tokens: u64) {
        self.reserved.store(tokens.saturating_add(1), Relaxed);
    }

    /// Replaces the estimate by what was used. Once; later calls do nothing.
    pub(crate) fn settle(&self, anonymous: &RateLimiter, now: Instant) {
        let reserved = self.reserved.swap(0, Relaxed);
        if reserved > 0 {
            let usage = self.usage();
            let used = (usage.prompt + usage.completion) as u64;
            self.purse(anonymous).settle(now, reserved - 1, used);
        }
    }

    /// Takes a place, if there is one, until [`Outcome::release`].
    pub(crate) fn admit(&self, admission: &Admission) -> bool {
        let admitted = admission.enter();
        self.admitted.store(admitted, Relaxed);
        admitted
    }

    /// Gives the place back. Once; later calls do nothing.
    pub(crate) fn release(&self, admission: &Admission) {
        if self.admitted.swap(false, Relaxed) {
            admission.leave();
        }
    }

    /// The deployment that answers. The first call wins.
    pub fn set_deployment(&self, deployment: &Arc<Deployment>) {
        self.deployment.get_or_init(|| Arc::clone(deployment));
    }

    /// The deployment that answers, once routed.
    #[must_use]
    pub fn deployment(&self) -> Option<&Arc<Deployment>> {
        match self.placement.get() {
            Some(placement) => Some(placement.deployment()),
            None => self.deployment.get(),
        }
    }

    /// Notes where a release put the request. The first call wins.
    pub(crate) fn place(&self, placement: Placement) -> &Placement {
        self.placement.get_or_init(|| placement)
    }

    /// Where a release put the request; `None` when its deployment is not under release.
    #[must_use]
    pub fn placement(&self) -> Option<&Placement> {
        self.placement.get()
    }

    /// Forgets what a first attempt has noted of its answer, of which the client has seen
    /// nothing.
    pub(crate) fn begin_again(&self) {
        for number in [
            &self.prompt_tokens,
            &self.cached_tokens,
            &self.completion_tokens,
            &self.queue_ns,
            &self.prefill_ns,
            &self.decode_ns,
            &self.first_token_ns,
            &self.last_token_ns,
        ] {
            number.store(0, Relaxed);
        }
        self.finish.store(0, Relaxed);
        self.fault.store(0, Relaxed);
        *self.ended.lock() = Ended::default();
    }

    /// Notes how the request ended for the revision that was asked. The last call counts.
    pub(crate) fn set_class(&self, class: Class) {
        self.ended.lock().class = Some(class);
    }

    /// How the request ended, where status and fault do not tell.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        self.ended.lock().class
    }

    /// Notes what was wrong with an upstream's answer.
    pub(crate) fn set_defect(&self, defect: Defect) {
        self.ended.lock().defect = Some(defect);
    }

    /// What was wrong with an upstream's answer.
    #[must_use]
    pub fn defect(&self) -> Option<Defect> {
        self.ended.lock().defect
    }

    /// Notes how long the client itself said that it would wait.
    pub(crate) fn set_own_deadline(&self, after: Duration) {
        self.own_deadline_ns.store(nanos(after).max(1), Relaxed);
    }

    /// Whether the client itself said how long it would wait.
    #[must_use]
    pub fn has_own_deadline(&self) -> bool {
        self.own_deadline_ns.load(Relaxed) > 0
    }

    /// Whether the client's own deadline lies within `total` of its request.
    #[must_use]
    pub fn is_past_own_deadline(&self, total: Duration) -> bool {
        match self.own_deadline_ns.load(Relaxed) {
            0 => false,
            limit => nanos(total) >= limit,
        }
    }

    /// Adds tokens; `n > 1` or several prompts add up.
    pub fn add_usage(&self, usage: Usage) {
        self.prompt_tokens.fetch_add(usage.prompt as u64, Relaxed);
        self.cached_tokens.fetch_add(usage.cached as u64, Relaxed);
        self.completion_tokens
            .fetch_add(usage.completion as u64, Relaxed);
    }

    /// Tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let read =
            |counter: &AtomicU64| usize::try_from(counter.load(Relaxed)).unwrap_or(usize::MAX);
        Usage {
            prompt: read(&self.prompt_tokens),
            cached: read(&self.cached_tokens),
            completion: read(&self.completion_tokens),
        }
    }

    /// The engine's timings. Of several sequences the longest of each counts.
    pub fn add_timings(&self, timings: Timings) {
        self.queue_ns.fetch_max(nanos(timings.queue), Relaxed);
        self.prefill_ns.fetch_max(nanos(timings.prefill), Relaxed);
        self.decode_ns.fetch_max(nanos(timings.decode), Relaxed);
    }

    /// The engine's timings so far.
    #[must_use]
    pub fn timings(&self) -> Timings {
        Timings {
            queue: Duration::from_nanos(self.queue_ns.load(Relaxed)),
            prefill: Duration::from_nanos(self.prefill_ns.load(Relaxed)),
            decode: Duration::from_nanos(self.decode_ns.load(Relaxed)),
        }
    }

    /// Time spent waiting for the target (engine or upstream); what remains of
    /// the total is the gateway's own overhead.
    pub fn add_target_time(&self, waited: Duration) {
        self.target_ns.fetch_add(nanos(waited), Relaxed);
    }

    /// Time spent waiting for the target so far.
    #[must_use]
    pub fn target_time(&self) -> Duration {
        Duration::from_nanos(self.target_ns.load(Relaxed))
    }

    /// One or more output tokens have just arrived: the first call sets the time
    /// to first token, each later one is an inter-token latency. Call it for
    /// generations only (not for embeddings).
    pub fn token(&self) {
        let now = nanos(self.received.elapsed()).max(1);
        let last = self.last_token_ns.swap(now, Relaxed);
        if last == 0 {
            self.first_token_ns.store(now, Relaxed);
        } else if let Some(deployment) = self.deployment() {
            deployment
                .series
                .inter_token(Duration::from_nanos(now.saturating_sub(last)));
        }
    }

    /// From `received` to the first output token.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        match self.first_token_ns.load(Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Why the (last) sequence ended.
    pub fn set_finish(&self, reason: FinishReason) {
        let code = match reason {
            FinishReason::Stop => 1,
            FinishReason::Length => 2,
            FinishReason::Cancelled => 3,
            FinishReason::Deadline => 4,
        };
        self.finish.store(code, Relaxed);
    }

    /// Why the (last) sequence ended; `None` when nothing was generated.
    #[must_use]
    pub fn finish(&self) -> Option<FinishReason> {
        match self.finish.load(Relaxed) {
            1 => Some(FinishReason::Stop),
            2 => Some(FinishReason::Length),
            3 => Some(FinishReason::Cancelled),
            4 => Some(FinishReason::Deadline),
            _ => None,
        }
    }

    /// Whose fault it is, where the status does not tell (a stream that broke
    /// after its 200). The first call wins.
    pub fn set_fault(&self, fault: Fault) {
        let code = match fault {
            Fault::Client => 1,
            Fault::Cancelled => 2,
            Fault::Server => 3,
        };
        _ = self.fault.compare_exchange(0, code, Relaxed, Relaxed);
    }

    /// The fault, if one was set.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self.fault.load(Relaxed) {
            1 => Some(Fault::Client),
            2 => Some(Fault::Cancelled),
            3 => Some(Fault::Server),
            _ => None,
        }
    }
}

/// Whole nanoseconds; 584 years is enough.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
