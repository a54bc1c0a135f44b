//! What is measured, and under which names.
//!
//! Series are registered through the `metrics` facade, once a deployment and revision; a
//! request only touches the handles, which are atomics. Behind the facade stands a recorder
//! of our own, local to a gateway: `metrics-exporter-prometheus` queues every sample of a
//! histogram until it is swept and cannot forget the series of one revision. The names
//! follow vLLM's where vLLM has one, so that its dashboards and autoscalers work unchanged;
//! ours begin with `sluice_`.

mod control;
mod engine;
mod exposition;
mod histogram;
pub(crate) mod log_file;
mod native;
pub mod observer;
mod process;
mod processes;
mod protobuf;
pub(crate) mod reader;
mod ready;
mod recorder;
mod release;
mod replicas;
pub mod series;
mod stats;
#[cfg(test)]
mod tests;
mod text;
mod triton;
pub mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use metrics::Counter;
use parking_lot::Mutex;

use crate::absent::Absentees;
use crate::config::MetricsConfig;
use crate::control_health::ControlHealth;
use crate::release::ReleaseSink;
use crate::replicas::Devices;
use crate::router::RouteTable;
use exposition::Exposition;
pub use exposition::Format;
use histogram::Buckets;
use processes::Processes;
pub use processes::{ProcessEnd, RunningProcess};
pub use reader::Reader;
use recorder::Bounds;
pub use release::{Objective, TakenBack, VERDICTS};
use series::Scope;
pub use series::{Completed, Series};

/// Why a request was turned away before any work was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The key's requests a minute are used up.
    Requests,
    /// The key's tokens a minute are used up.
    Tokens,
    /// Too many requests in flight.
    Concurrency,
    /// The model's queue is full.
    Queue,
    /// The deadline could not have been met.
    Deadline,
}

impl Shed {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Requests, "requests"),
        (Self::Tokens, "tokens"),
        (Self::Concurrency, "concurrency"),
        (Self::Queue, "queue"),
        (Self::Deadline, "deadline"),
    ];
}

/// What became of the copy of a request for a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shadowing {
    /// Both answers are there.
    Compared,
    /// Dropped: too many copies wait.
    Full,
    /// Dropped: live requests need the room.
    Busy,
    /// Dropped: the request is too large.
    Large,
    /// Dropped: the candidate is on trial no more.
    Ended,
}

impl Shadowing {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Compared, "compared"),
        (Self::Full, "full"),
        (Self::Busy, "busy"),
        (Self::Large, "large"),
        (Self::Ended, "ended"),
    ];
}

/// Deployment and revision.
type Pair = (Arc<str>, Arc<str>);

/// All series of one gateway. Local to it, so that tests run side by side.
pub struct Metrics {
    recorder: Arc<recorder::Series>,
    started: Instant,
    /// By deployment and revision. Locked on publishing only.
    series: Mutex<BTreeMap<Pair, Arc<Series>>>,
    /// Requests that never reached a deployment (bad key, unknown model, health).
    unrouted: Arc<Series>,
    shed: [Counter; Shed::ALL.len()],
    shadows: [Counter; Shadowing::ALL.len()],
    taken_back: [Counter; TakenBack::ALL.len()],
    processes: Processes,
    /// Who knows how releases stand.
    releases: OnceLock<Arc<dyn ReleaseSink>>,
    /// Whose memory is shown.
    devices: OnceLock<Arc<Devices>>,
    /// What is meant to be served and is not.
    absent: OnceLock<Arc<Absentees>>,
    /// What the control plane says of itself.
    control: Arc<ControlHealth>,
    /// When the process started, in seconds since 1970.
    process_started: OnceLock<Option<f64>>,
    /// Held by the scrape that is being answered.
    pub(crate) scraping: Arc<tokio::sync::Mutex<()>>,
    /// Access log lines dropped because the writer could not follow.
    pub(crate) dropped_records: Counter,
    /// Requests under release of which no analysis has heard, for the same reason.
    pub(crate) dropped_outcomes: Counter,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new(config: &MetricsConfig) -> Self {
        let schema = config.native_schema;
        let recorder = Arc::new(recorder::Series::new(Bounds {
            seconds: Buckets::seconds(&config.buckets, schema),
            tokens: Buckets::counts(&config.token_buckets, schema),
        }));
        let ours = Scope::new(&*recorder, Vec::new());
        let shed = Shed::ALL.map(|(_, reason)| {
            ours.counter_of(
                "sluice_shed_total",
                "Requests turned away before any work, by reason.",
                ("reason", reason),
            )
        });
        let shadows = Shadowing::ALL.map(|(_, result)| {
            ours.counter_of(
                "sluice_shadow_requests_total",
                "Copies of requests for a candidate, by what became of them.",
                ("result", result),
            )
        });
        let taken_back = TakenBack::ALL.map(|(_, cause)| {
            ours.counter_of(
                "sluice_rollbacks_total",
                "Revisions that were taken out of the traffic, by cause.",
                ("cause", cause),
            )
        });
        Self {
            processes: Processes::new(&ours),
            taken_back,
            releases: OnceLock::new(),
            devices: OnceLock::new(),
            absent: OnceLock::new(),
            control: Arc::default(),
            process_started: OnceLock::new(),
            started: Instant::now(),
            series: Mutex::default(),
            unrouted: Arc::new(Series::unrouted(recorder.clone())),
            shed,
            shadows,
            scraping: Arc::default(),
            dropped_records: ours.counter(
                "sluice_log_dropped_total",
                "Requests that could not be logged.",
            ),
            dropped_outcomes: ours.counter(
                "sluice_release_outcomes_dropped_total",
                "Requests under release that the analysis has not heard of.",
            ),
            recorder,
        }
    }

    /// The handles of one deployment and revision; the same pair gives the same handles.
    #[must_use]
    pub fn series(&self, deployment: &str, revision: &str) -> Arc<Series> {
        let pair = (Arc::from(deployment), Arc::from(revision));
        let mut all = self.series.lock();
        let series = all
            .entry(pair)
            .or_insert_with(|| Arc::new(Series::new(self.recorder.clone(), deployment, revision)));
        Arc::clone(series)
    }

    /// The handles for requests without a deployment.
    #[must_use]
    pub fn unrouted(&self) -> &Arc<Series> {
        &self.unrouted
    }

    /// Counts a request turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].increment(1);
    }

    /// Counts the copy of a request.
    pub(crate) fn shadow(&self, result: Shadowing) {
        self.shadows[result as usize].increment(1);
    }

    /// Counts a revision that was taken back.
    pub fn taken_back(&self, cause: TakenBack) {
        self.taken_back[cause as usize].increment(1);
    }

    /// Counts a child process that holds a model on trial, until what this returns is dropped.
    #[must_use]
    pub fn process(&self) -> RunningProcess {
        self.processes.began()
    }

    /// Counts how one ended.
    pub fn process_ended(&self, end: ProcessEnd) {
        self.processes.ended(end);
    }

    /// The memory of `devices` is shown from now on.
    pub(crate) fn show(&self, devices: Arc<Devices>) {
        _ = self.devices.set(devices);
    }

    /// What is absent is shown from now on.
    pub(crate) fn miss(&self, absent: Arc<Absentees>) {
        _ = self.absent.set(absent);
    }

    /// How releases stand is asked of `sink` from now on.
    pub(crate) fn ask(&self, sink: Arc<dyn ReleaseSink>) {
        _ = self.releases.set(sink);
    }

    /// Whether the control plane of this process, if there is one, can work.
    #[must_use]
    pub fn control(&self) -> &Arc<ControlHealth> {
        &self.control
    }

    /// Forgets series of revisions that no route and no request uses any more, so
    /// that a gateway that lives through many releases does not grow.
    pub fn retire(&self, current: &RouteTable) {
        let mut all = self.series.lock();
        let before = all.len();
        all.retain(|(deployment, revision), series| {
            let routed = current
                .entry(deployment)
                .is_some_and(|entry| entry.revisions().any(|it| it.revision == *revision));
            routed || Arc::strong_count(series) > 1
        });
        if all.len() < before {
            self.recorder.retain(|key| match series::pair_of(key) {
                Some((deployment, revision)) => {
                    all.contains_key(&(deployment.into(), revision.into()))
                }
                None => true,
            });
        }
    }

    /// The whole exposition. What engines and upstreams know is read from `routes` now.
    #[must_use]
    pub fn expose(&self, routes: &RouteTable, format: Format) -> Vec<u8> {
        self.expose_to(routes, format, Reader::All)
    }

    /// The same without the series of deployments that `reader` may not see.
    #[must_use]
    pub fn expose_to(&self, routes: &RouteTable, format: Format, reader: Reader<'_>) -> Vec<u8> {
        let mut exposition = self.collect(routes);
        exposition.retain(|labels| reader.sees_labels(routes, labels));
        match format {
            Format::Text => exposition.into_text().into_bytes(),
            Format::Protobuf => exposition.into_protobuf(),
        }
    }

    /// The exposition as text.
    #[must_use]
    pub fn render(&self, routes: &RouteTable) -> String {
        self.collect(routes).into_text()
    }

    fn collect(&self, routes: &RouteTable) -> Exposition {
        let mut exposition = Exposition::default();
        self.recorder.collect(&mut exposition);
        self.processes.collect(&mut exposition);
        engine::collect(&mut exposition, routes);
        replicas::collect(&mut exposition, routes, self.devices.get());
        ready::collect(&mut exposition, routes, self.absent.get());
        if let Some(sink) = self.releases.get() {
            release::collect(&mut exposition, &**sink);
        }
        control::collect(&mut exposition, &self.control);
        process::collect(&mut exposition, &self.process_started);
        exposition
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
