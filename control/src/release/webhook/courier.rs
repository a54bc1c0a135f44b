//! Posts what is due, each hook for itself: one that does not answer holds up no other.
//!
//! For each hook, one process of those on the database does it, by lease. Events go in the order of the decisions; what
//! fails is tried again before anything newer. A row says that an event was taken, written after the answer: killed
//! between the two, the next process sends it again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use uuid::Uuid;

use super::event::{Names, ReleaseEvent, kind_of};
use super::{Event, Webhook, sign};
use crate::artifacts::base_client;
use crate::deploy::replicas::label;
use crate::domain::record::ReleaseDecision;
use crate::id::ReleaseDecisionId;
use crate::release::planner::{Action, Release};
use crate::store::{Hook, Lease, LiveRevision, Store, StoreError, Stored, Tx};
use crate::tasks::Backoff;
use crate::time::Timestamp;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Decisions that are looked at together.
const BATCH: u32 = 50;
/// Between looks at a hook that waits for its next attempt.
const REST: Duration = Duration::from_secs(60);
/// Between clearings of what was sent long ago.
const CLEAR_EVERY: Duration = Duration::from_secs(3600);

/// How events are delivered. The defaults are what `docs/webhooks.md` says.
#[derive(Debug, Clone)]
pub struct CourierSettings {
    /// How often the database is asked when nobody wakes the courier.
    pub poll: Duration,
    /// How long a receiver may take.
    pub timeout: Duration,
    /// How long a hook stays with a process that is not heard of; longer than `timeout`.
    pub lease: Duration,
    /// Between attempts.
    pub backoff: Backoff,
    /// An event that was not taken for so long is given up.
    pub give_up: Duration,
    /// How long is remembered what was sent; longer than `give_up`.
    pub keep: Duration,
}

impl Default for CourierSettings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            poll: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            lease: Duration::from_secs(30),
            backoff: Backoff {
                base: Duration::from_secs(1),
                max: Duration::from_secs(600),
            },
            give_up: day,
            keep: 7 * day,
        }
    }
}

/// Delivers to the webhooks of one process.
#[derive(Debug)]
pub struct Courier {
    store: Store,
    hooks: Vec<Webhook>,
    client: reqwest::Client,
    settings: CourierSettings,
    /// Unlike any other process, this one after a restart included.
    holder: String,
}

/// What a receiver made of a post.
enum Answer {
    Taken,
    Gone,
    /// In words for the log, without the URL.
    Failed(String),
}

/// Whether a hook goes on with the next event.
enum Next {
    GoOn,
    Later,
}

impl Courier {
    /// # Errors
    /// The machine's root certificates cannot be read.
    pub fn new(
        store: Store,
        hooks: Vec<Webhook>,
        settings: CourierSettings,
    ) -> Result<Self, reqwest::Error> {
        // Who answers by a redirect has not taken the event; proxies are those of the environment.
        let client = base_client()
            .redirect(Policy::none())
            .timeout(settings.timeout)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            store,
            hooks,
            client,
            settings,
            holder: format!("courier {}", Uuid::now_v7().simple()),
        })
    }

    /// Delivers until `stop` is over; what is under way then is delivered again by the next process.
    pub async fn run(&self, wake: &Notify, stop: impl Future<Output = ()>) {
        let all = join_all(self.hooks.iter().map(|hook| self.follow(hook, wake)));
        tokio::select! {
            _ = all => {}
            () = stop => {}
        }
        // They run out by themselves where the database does not answer.
        if let Err(error) = self.store.give_leases_back(&self.holder).await {
            tracing::warn!(%error, "leases were not given back");
        }
    }

    async fn follow(&self, hook: &Webhook, wake: &Notify) {
        let mut is_known = false;
        let mut cleared: Option<Instant> = None;
        loop {
            let woken = wake.notified();
            tokio::pin!(woken);
            // Registered before looking: what changes from here on wakes us.
            woken.as_mut().enable();
            let round = async {
                if !is_known {
                    self.know(hook).await?;
                    is_known = true;
                }
                if cleared.is_none_or(|at| at.elapsed() > CLEAR_EVERY) {
                    self.clear().await?;
                    cleared = Some(Instant::now());
                }
                self.round(hook).await
            };
            let wait = round.await.unwrap_or_else(|error| {
                tracing::warn!(hook = %hook.target, %error, "a webhook waits for the database");
                self.settings.poll
            });
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn know(&self, hook: &Webhook) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        tx.know_webhook(&hook.id).await?;
        tx.commit().await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        // A delivery is later than its decision, but for clocks that differ: hence the time on top.
        let before = tx.now().before(self.settings.keep + self.settings.give_up);
        tx.forget_deliveries(before).await?;
        tx.commit().await
    }

    /// Sends what can be sent now; says when to look again.
    pub(super) async fn round(&self, hook: &Webhook) -> Result<Duration, StoreError> {
        let Some(state) = self.store.webhook(&hook.id).await? else {
            return Ok(self.settings.poll);
        };
        let rest = state.next_at.since(Timestamp::now());
        if state.disabled_at.is_some() || !rest.is_zero() {
            return Ok(if state.disabled_at.is_some() {
                REST
            } else {
                rest.min(REST)
            });
        }
        // First without the lease, which is written.
        if self.due(hook, &state, 1).await?.is_empty() {
            return Ok(self.settings.poll);
        }
        let name = format!("webhook:{}", hook.id);
        let Some(lease) = self
            .store
            .take_lease(&name, &self.holder, self.settings.lease)
            .await?
        else {
            return Ok(self.settings.poll);
        };
        let next = self.send_due(hook, &lease).await?;
        self.store.give_lease_back(&lease).await?;
        Ok(match next {
            Next::GoOn => Duration::ZERO,
            Next::Later => self.settings.poll.min(self.settings.backoff.base),
        })
    }

    async fn due(
        &self,
        hook: &Webhook,
        state: &Hook,
        limit: u32,
    ) -> Result<Vec<Stored<ReleaseDecision>>, StoreError> {
        let floor = state.since.max(Timestamp::now().before(self.settings.keep));
        self.store.decisions_to_send(&hook.id, floor, limit).await
    }

    async fn send_due(&self, hook: &Webhook, lease: &Lease) -> Result<Next, StoreError> {
        // Another process may have sent some until the lease was ours.
        let Some(state) = self.store.webhook(&hook.id).await? else {
            return Ok(Next::Later);
        };
        let due = self.due(hook, &state, BATCH).await?;
        let mut failures = state.failures;
        for decision in &due {
            if let Next::Later = self.send(hook, lease, decision, failures).await? {
                return Ok(Next::Later);
            }
            failures = 0;
        }
        Ok(if due.is_empty() {
            Next::Later
        } else {
            Next::GoOn
        })
    }

    async fn send(
        &self,
        hook: &Webhook,
        lease: &Lease,
        decision: &Stored<ReleaseDecision>,
        failures: u32,
    ) -> Result<Next, StoreError> {
        let (id, now) = (decision.id, Timestamp::now());
        let event = match self.event(hook, decision).await? {
            Some(event) if now.since(decision.created_at) < self.settings.give_up => event,
            Some(event) => {
                tracing::error!(
                    hook = %hook.target, event = %id, kind = %event.kind, release = %decision.work_order,
                    "a webhook has not taken an event for too long; it is given up"
                );
                return self.done(hook, lease, id).await;
            }
            None => return self.done(hook, lease, id).await,
        };
        let mut tx = self.store.begin().await?;
        if !tx.prolong(lease, self.settings.lease).await? {
            return Ok(Next::Later);
        }
        tx.commit().await?;
        match self.post(hook, id, &event).await {
            Answer::Taken => {
                tracing::debug!(hook = %hook.target, event = %id, kind = %event.kind, "a webhook has taken an event");
                self.done(hook, lease, id).await
            }
            Answer::Gone => {
                tracing::error!(
                    hook = %hook.target,
                    "a webhook is gone (410) and gets no more events until a process with it in its configuration starts"
                );
                self.write(lease, async |tx| tx.disable_webhook(&hook.id).await)
                    .await?;
                Ok(Next::Later)
            }
            Answer::Failed(problem) => {
                let failures = failures.saturating_add(1);
                let delay = self.settings.backoff.delay(failures, rand::random());
                tracing::warn!(
                    hook = %hook.target, event = %id, kind = %event.kind, attempt = failures, problem,
                    "a webhook has not taken an event; tried again in {} s", delay.as_secs_f64().round()
                );
                let next_at = Timestamp::now().after(delay);
                self.write(lease, async |tx| {
                    tx.set_webhook(&hook.id, failures, next_at).await
                })
                .await?;
                Ok(Next::Later)
            }
        }
    }

    async fn done(
        &self,
        hook: &Webhook,
        lease: &Lease,
        id: ReleaseDecisionId,
    ) -> Result<Next, StoreError> {
        self.write(lease, async |tx| tx.decision_sent(&hook.id, id).await)
            .await
    }

    /// Writes as the one that holds the lease, or not at all.
    async fn write(
        &self,
        lease: &Lease,
        change: impl AsyncFnOnce(&mut Tx) -> Result<(), StoreError>,
    ) -> Result<Next, StoreError> {
        let mut tx = self.store.begin().await?;
        if !tx.prolong(lease, self.settings.lease).await? {
            return Ok(Next::Later);
        }
        change(&mut tx).await?;
        tx.commit().await?;
        Ok(Next::GoOn)
    }

    /// `None` where there is nothing to tell this hook.
    async fn event(
        &self,
        hook: &Webhook,
        decision: &Stored<ReleaseDecision>,
    ) -> Result<Option<Event>, StoreError> {
        let Some(kind) = kind(decision) else {
            return Ok(None);
        };
        if !hook.wants(kind) {
            return Ok(None);
        }
        let revisions = match self.store.release_revisions(decision.work_order).await {
            Ok(revisions) => revisions,
            Err(StoreError::NotFound { kind, id }) => {
                tracing::warn!(hook = %hook.target, event = %decision.id, "not sent: the {kind} {id} was put away");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let names = Names {
            deployment: revisions.candidate.deployment,
            endpoint: revisions.endpoint,
            candidate: name(&revisions.candidate),
            stable: revisions.stable.as_ref().map(name),
        };
        Ok(ReleaseEvent::of(decision, names).and_then(|event| event.event()))
    }

    async fn post(&self, hook: &Webhook, id: ReleaseDecisionId, event: &Event) -> Answer {
        let body = match serde_json::to_vec(event) {
            Ok(body) => body,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        // The same at every attempt, so that receivers know what they have seen.
        let id = id.to_string();
        let timestamp = Timestamp::now().as_micros().div_euclid(1_000_000);
        let signature = sign(&hook.secrets, &id, timestamp, &body);
        let request = self
            .client
            .post(hook.target.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ID, id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signature)
            .body(body);
        match request.send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => Answer::Taken,
            Ok(StatusCode::GONE) => Answer::Gone,
            Ok(status) => Answer::Failed(format!("answered {status}")),
            Err(error) => Answer::Failed(in_full(error)),
        }
    }
}

fn kind(decision: &Stored<ReleaseDecision>) -> Option<super::EventKind> {
    let action = decision
        .action
        .as_ref()
        .map(|it| serde_json::from_value::<Action>(it.0.clone()));
    // Of a version whose words this one does not know there is nothing to tell.
    let action = action.transpose().ok()?;
    let state: Release = serde_json::from_value(decision.state.0.clone()).ok()?;
    kind_of(decision.kind, action.as_ref(), &state)
}

/// As `x-sluice-revision` has it.
fn name(revision: &LiveRevision) -> String {
    label(revision.number, &revision.origin().to_string())
}

fn in_full(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
