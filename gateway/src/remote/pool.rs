//! Choosing a replica, and trying another when it fails before it answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::budget::Budget;
use super::headers::Passing;
use super::outlier::{Admission, Policy};
use super::reach::Reach;
use super::replica::{Replica, Ticket, authorization};
use super::{PoolError, balance, now};
use crate::config::UpstreamConfig;
use crate::limits::forecast::Forecast;
use crate::validate::scrub::Scrub;

/// Upstreams of one deployment at most: they are chosen from a 64-bit mask.
pub const MAX_UPSTREAMS: usize = 64;

/// The upstreams of one deployment and how to choose among them. Clones share what is known of them.
#[derive(Debug, Clone)]
pub struct RemotePool {
    pub(super) shared: Arc<Shared>,
    /// The upstreams' name of the model, as a JSON string.
    pub(super) model: Option<String>,
    /// Answers carry the upstreams' name of the model, not the one that was asked for.
    pub(super) keeps_model: bool,
    pub(super) authorization: Option<HeaderValue>,
    /// What its errors must not tell; `None` where the upstream is a process of this server.
    pub(super) scrub: Option<Arc<Scrub>>,
}

/// What outlives a request's answer: tickets hold it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) replicas: Vec<Replica>,
    pub(super) policy: Policy,
    pub(super) ejected: AtomicUsize,
    pub(super) idle_timeout: Duration,
    /// Streams are asked for their usage, whether or not the client asks for it.
    pub(super) asks_usage: bool,
    pub(super) passing: Passing,
    max_ejected: f64,
    pub(super) first_byte_timeout: Duration,
    pub(super) max_held: usize,
    pub(super) attempts: u32,
    pub(super) budget: Budget,
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
            asks_usage: config.ask_usage,
            passing: Passing::new(&config.pass_headers),
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
        let scrub = Scrub::new(replicas.iter().map(Replica::label), key, model);
        Ok(Self {
            shared: Arc::new(Shared::new(replicas, config)),
            model: model.map(|name| serde_json::Value::from(name).to_string()),
            keeps_model: false,
            authorization: key.map(authorization).transpose()?,
            scrub: Some(Arc::new(scrub)),
        })
    }

    /// The same pool, whose answers carry the upstreams' name of the model if `keeps`, and else
    /// the one that was asked for.
    #[must_use]
    pub fn keeping_model_name(self, keeps: bool) -> Self {
        Self {
            keeps_model: keeps,
            ..self
        }
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
            keeps_model: true,
            authorization: None,
            scrub: None,
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
    pub(super) fn pick(&self, tried: u64) -> Option<Ticket> {
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
    pub(super) fn may_retry(&self, tried: u64) -> bool {
        let possible = self.open(now()) & !tried != 0 && self.shared.budget.withdraw();
        self.shared.retries.fetch_add(u64::from(possible), Relaxed);
        possible
    }
}
