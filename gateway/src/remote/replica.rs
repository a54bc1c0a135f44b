//! One upstream: its address, its load, its standing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderValue, Uri};
use parking_lot::Mutex;

use super::PoolError;
use super::balance::{Load, fade, smooth};
use super::connect::{self, Upstream};
use super::outlier::{Admission, Event, Outlier};
use super::pool::Shared;
use super::reach::Reach;
use crate::config::UpstreamConfig;

/// How long an upstream is not asked for usage again that did not know how.
const WITHOUT_USAGE: Duration = Duration::from_secs(3600);

/// What a failure counts for in the choice between upstreams, at least.
const FAILURE: Duration = Duration::from_millis(50);

/// One upstream of a pool.
#[derive(Debug)]
pub struct Replica {
    label: String,
    base: Uri,
    /// Path of the base URL without its last slash, usually `/v1`.
    prefix: String,
    pub(super) client: Upstream,
    in_flight: AtomicU32,
    latency_ns: AtomicU64,
    /// When the latency was last sampled, milliseconds after `born`.
    sampled_ms: AtomicU64,
    born: Instant,
    /// When it was found not to know how a stream is asked for its usage, milliseconds after
    /// `born` plus one; 0 is never.
    no_usage_ms: AtomicU64,
    failures: AtomicU64,
    /// False as long as the outlier detector has nothing to remember, so that
    /// healthy requests never take its lock.
    suspect: AtomicBool,
    outlier: Mutex<Outlier>,
}

impl Replica {
    pub(super) async fn new(
        url: &str,
        config: &UpstreamConfig,
        reach: Option<&Reach>,
    ) -> Result<Self, PoolError> {
        let invalid = |reason: String| PoolError::Url {
            url: url.to_owned(),
            reason,
        };
        let base: Uri = url.parse().map_err(|error| invalid(format!("{error}")))?;
        if base.scheme().is_none() || base.host().is_none() {
            return Err(invalid("it must look like http://host:port/v1".to_owned()));
        }
        let client = connect::client(&base, config, reach).await?;
        Ok(Self::with(url, base, client))
    }

    /// The process behind a Unix socket.
    pub(super) fn local(socket: &Path, config: &UpstreamConfig) -> Self {
        let base = Uri::from_static("http://model-host/v1");
        Self::with("model-host", base, connect::local(socket, config))
    }

    fn with(url: &str, base: Uri, client: Upstream) -> Self {
        Self {
            // Credentials in a URL would end up in metrics.
            label: match base.authority() {
                Some(authority) => {
                    let host = authority.as_str();
                    host.rsplit_once('@')
                        .map_or(host, |(_, host)| host)
                        .to_owned()
                }
                None => url.to_owned(),
            },
            prefix: base.path().trim_end_matches('/').to_owned(),
            client,
            base,
            in_flight: AtomicU32::new(0),
            latency_ns: AtomicU64::new(0),
            sampled_ms: AtomicU64::new(0),
            born: super::now(),
            no_usage_ms: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            outlier: Mutex::new(Outlier::default()),
        }
    }

    /// `host:port`, for labels and messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Requests in flight, streams included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Failures so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Whether it is left alone at the moment.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.suspect.load(Relaxed) && self.outlier.lock().is_ejected()
    }

    /// Whether a stream may be asked for its usage.
    pub(super) fn gives_usage(&self) -> bool {
        match self.no_usage_ms.load(Relaxed) {
            0 => true,
            found => {
                let since = self.age_ms().saturating_sub(found - 1);
                Duration::from_millis(since) >= WITHOUT_USAGE
            }
        }
    }

    /// It refuses what it does not know.
    pub(super) fn gives_no_usage(&self) {
        tracing::info!(
            upstream = self.label(),
            "the upstream does not know stream_options: streams are counted here"
        );
        self.no_usage_ms.store(self.age_ms() + 1, Relaxed);
    }

    pub(super) fn load(&self) -> Load {
        let latency = Duration::from_nanos(self.latency_ns.load(Relaxed));
        let age = self.age_ms().saturating_sub(self.sampled_ms.load(Relaxed));
        Load {
            in_flight: self.in_flight(),
            latency: fade(latency, Duration::from_millis(age)),
        }
    }

    fn age_ms(&self) -> u64 {
        let age = super::now().saturating_duration_since(self.born);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes how long an answer took to begin. A failure is no fast answer: it
    /// counts as a slow one, or an upstream that refuses at once would draw all
    /// the traffic.
    fn sample(&self, latency: Duration, event: Event) {
        let old = Duration::from_nanos(self.latency_ns.load(Relaxed));
        let new = match event {
            Event::Success => smooth(old, latency),
            Event::Failure => old.max(latency).max(FAILURE),
            _ => return,
        };
        let nanos = u64::try_from(new.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.store(nanos, Relaxed);
        self.sampled_ms.store(self.age_ms(), Relaxed);
    }

    pub(super) fn admission(&self, now: Instant) -> Admission {
        if self.suspect.load(Relaxed) {
            self.outlier.lock().admission(now)
        } else {
            Admission::Open
        }
    }

    /// Where a request's path lies here: `/v1/x` under the base URL, other paths
    /// (`/tokenize`) beside its `/v1`.
    pub(super) fn uri(&self, client: &Uri) -> Option<Uri> {
        // A slash at the end means nothing here, but may there.
        let asked = client.path().strip_suffix('/').unwrap_or(client.path());
        let (before, rest) = match asked.strip_prefix("/v1/") {
            Some(rest) => (&*self.prefix, format!("/{rest}")),
            None => (
                self.prefix.strip_suffix("/v1").unwrap_or(&self.prefix),
                asked.to_owned(),
            ),
        };
        let path = match client.query() {
            Some(query) => format!("{before}{rest}?{query}"),
            None => format!("{before}{rest}"),
        };
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// A request on its way to a replica: counts as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pool: Arc<Shared>,
    index: usize,
    probe: bool,
    settled: bool,
}

impl Ticket {
    /// `None` when the replica is a probe's and another request was first.
    pub(super) fn take(pool: &Arc<Shared>, index: usize, now: Instant) -> Option<Self> {
        let replica = &pool.replicas[index];
        let probe = match replica.admission(now) {
            Admission::Open => false,
            Admission::Probe if replica.outlier.lock().begin_probe(now) => true,
            Admission::Probe | Admission::Closed => return None,
        };
        replica.in_flight.fetch_add(1, Relaxed);
        Some(Self {
            pool: Arc::clone(pool),
            index,
            probe,
            settled: false,
        })
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.pool.replicas[self.index]
    }

    /// Longest silence in the middle of an answer.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.pool.idle_timeout
    }

    /// The head of an answer came after `latency`.
    pub(super) fn answered(&mut self, latency: Duration, event: Event) {
        if event == Event::Success {
            self.replica().sample(latency, event);
        }
        self.settle(event);
    }

    /// Notes what became of the request. A stream may fail after it has begun,
    /// so more than one call counts.
    pub(super) fn settle(&mut self, event: Event) {
        self.settled = true;
        let replica = self.replica();
        if event == Event::Failure {
            replica.failures.fetch_add(1, Relaxed);
            replica.sample(Duration::ZERO, event);
        }
        let nothing_to_note = event != Event::Failure && !replica.suspect.load(Relaxed);
        if nothing_to_note {
            return;
        }
        let mut outlier = replica.outlier.lock();
        let before = outlier.is_ejected();
        let may_eject = self.pool.may_eject();
        outlier.on(
            event,
            super::now(),
            self.probe,
            may_eject,
            &self.pool.policy,
        );
        replica.suspect.store(!outlier.is_clean(), Relaxed);
        match (before, outlier.is_ejected()) {
            (false, true) => {
                self.pool.ejected.fetch_add(1, Relaxed);
                tracing::warn!(upstream = replica.label(), "upstream ejected");
            }
            (true, false) => {
                self.pool.ejected.fetch_sub(1, Relaxed);
                tracing::info!(upstream = replica.label(), "upstream readmitted");
            }
            _ => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(Event::Unknown);
        }
        self.replica().in_flight.fetch_sub(1, Relaxed);
    }
}

/// `Bearer …` for an upstream, marked so that it is never printed.
pub(super) fn authorization(key: &str) -> Result<HeaderValue, PoolError> {
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| PoolError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}
