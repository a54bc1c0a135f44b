//! What all requests share.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::absent::Absentees;
use crate::auth::{KeyEntry, Keys, KeysError, keys};
use crate::config::{AuthConfig, Config, LimitsConfig, LogFormat, RevisionHeader};
use crate::context::{Principal, RequestContext};
use crate::control_health::ControlHealth;
use crate::limits::admission::Admission;
use crate::limits::share::Shares;
use crate::limits::{RateLimiter, RateLimits};
use crate::metrics::Metrics;
use crate::metrics::log_file::LogFile;
use crate::metrics::observer::{Observer, Sink, Style};
use crate::release::{Placement, Watch};
use crate::replicas::{Devices, Driver};
use crate::router::split::{Side, Subject};
use crate::router::{Deployment, Entry, Parts, RouteError, RouteTable, Served, Source};
use crate::stack::ControlService;

/// Shared state of the data plane. Always behind an [`Arc`].
#[derive(Debug)]
pub struct Gateway {
    routes: ArcSwap<RouteTable>,
    config: Config,
    metrics: Arc<Metrics>,
    observer: Observer,
    releases: Arc<Watch>,
    devices: Arc<Devices>,
    keys: Keys,
    /// What routes and keys are put together from.
    parts: Mutex<Published>,
    /// Limits of requests without a key (authentication off).
    anonymous: RateLimiter,
    admission: Admission,
    /// Places of requests to the control plane.
    control_admission: Admission,
    shares: Arc<Shares>,
    ready: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) absent: Arc<Absentees>,
    control: OnceLock<ControlService>,
}

/// The last word of each source.
#[derive(Debug, Default)]
struct Published {
    routes: Parts,
    file_keys: Vec<KeyEntry>,
    control_keys: Vec<KeyEntry>,
}

/// A gateway could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Authentication is on and nobody could get in.
    #[error(
        "auth.required is on, but there is no key: name a file in auth.keys_file, \
         or set SLUICE_API_KEYS=\"name:key\""
    )]
    NoKeys,
    /// The access log or its thread cannot be opened.
    #[error("access log: {0}")]
    Log(#[source] std::io::Error),
}

impl Gateway {
    /// A gateway without routes yet, not ready. Keys come from `auth.keys_file`
    /// only, and the access log is off: what tests and embedders start from.
    ///
    /// # Errors
    /// The keys are unusable, or the system has no thread left.
    pub fn new(config: Config) -> Result<Arc<Self>, StartError> {
        let entries = key_entries(&config.auth, None)?;
        Self::with(config, entries, None)
    }

    /// The gateway of a process: keys from the file and from `SLUICE_API_KEYS`,
    /// access log as configured.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn from_environment(config: Config) -> Result<Arc<Self>, StartError> {
        let variable = std::env::var("SLUICE_API_KEYS").ok();
        let entries = key_entries(&config.auth, variable.as_deref())?;
        let log = open_log(&config).map_err(StartError::Log)?;
        Self::with(config, entries, log)
    }

    /// A gateway with these keys and this access log.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn with(
        config: Config,
        entries: Vec<KeyEntry>,
        log: Option<(Style, Sink)>,
    ) -> Result<Arc<Self>, StartError> {
        let limits = rate_limits(&config.limits);
        let keys = Keys::new(entries.clone(), limits)?;
        if config.auth.required && keys.is_empty() {
            return Err(StartError::NoKeys);
        }
        let devices = Devices::new(Box::new(Driver), config.devices.clone());
        let metrics = Arc::new(Metrics::new(&config.metrics));
        metrics.show(Arc::clone(&devices));
        let absent = Arc::<Absentees>::default();
        metrics.miss(Arc::clone(&absent));
        let observer = Observer::start(Arc::clone(&metrics), config.log.buffer, log)
            .map_err(StartError::Log)?;
        let releases = Arc::new(Watch::new(config.release.clone(), Arc::clone(&metrics)));
        observer.follow(Arc::clone(&releases));
        Ok(Arc::new(Self {
            routes: ArcSwap::from_pointee(RouteTable::default()),
            metrics,
            observer,
            releases,
            devices,
            keys,
            parts: Mutex::new(Published {
                file_keys: entries,
                ..Published::default()
            }),
            anonymous: RateLimiter::new(limits, Instant::now()),
            admission: Admission::new(config.limits.max_in_flight),
            control_admission: Admission::new(config.limits.max_control_in_flight),
            shares: Arc::new(Shares::new(&config, cpus())),
            config,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            absent,
            control: OnceLock::new(),
        }))
    }

    /// Reads the keys again (SIGHUP), from the file that `auth` names now. On an
    /// error the old ones stay.
    ///
    /// # Errors
    /// The keys are unusable, or there is none left where one is required.
    pub fn reload_keys(&self, auth: &AuthConfig) -> Result<usize, StartError> {
        let variable = std::env::var("SLUICE_API_KEYS").ok();
        let entries = key_entries(auth, variable.as_deref())?;
        self.replace_file_keys(entries)
    }

    /// Replaces the keys of the configuration; those of a control plane stay.
    ///
    /// # Errors
    /// As [`Gateway::reload_keys`].
    pub fn replace_file_keys(&self, entries: Vec<KeyEntry>) -> Result<usize, StartError> {
        let mut parts = self.parts.lock();
        if self.config.auth.required && entries.is_empty() && parts.control_keys.is_empty() {
            return Err(StartError::NoKeys);
        }
        let count = entries.len();
        self.replace_keys([&entries, &parts.control_keys])?;
        parts.file_keys = entries;
        Ok(count)
    }

    /// Replaces the keys that a control plane knows; those of the file stay.
    ///
    /// # Errors
    /// One of them is a key of the file, too; the old ones stay.
    pub fn publish_keys(&self, entries: Vec<KeyEntry>) -> Result<(), KeysError> {
        let mut parts = self.parts.lock();
        self.replace_keys([&parts.file_keys, &entries])?;
        parts.control_keys = entries;
        Ok(())
    }

    /// The key of the configuration with this id (the first 12 digits of its digest), as it stands there now.
    #[must_use]
    pub fn file_key(&self, id: &str) -> Option<KeyEntry> {
        let parts = self.parts.lock();
        let is_it = |entry: &&KeyEntry| *keys::key_id(&entry.digest) == *id;
        parts.file_keys.iter().find(is_it).cloned()
    }

    /// Whether the configuration serves this name.
    #[must_use]
    pub fn is_configured(&self, model: &str) -> bool {
        let parts = self.parts.lock();
        parts.routes.names(Source::File).any(|it| **it == *model)
    }

    fn replace_keys(&self, parts: [&Vec<KeyEntry>; 2]) -> Result<(), KeysError> {
        let all = parts.into_iter().flatten().cloned().collect();
        self.keys.replace(all, rate_limits(&self.config.limits))
    }

    /// The current routes. Hold the guard for one request, not longer.
    #[must_use]
    pub fn routes(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.routes.load()
    }

    /// Replaces the routes of the configuration file; requests in flight keep the
    /// target they have.
    pub fn publish(&self, routes: RouteTable) {
        let entries = routes.into_entries();
        // A table has no name twice, and the other sources' parts were checked before.
        if let Err(error) = self.publish_from(Source::File, entries) {
            tracing::error!(%error, "the routes stay as they are");
        }
    }

    /// Replaces the routes of one source, at once: a request finds all of the old
    /// ones or all of the new ones, and keeps what it found.
    ///
    /// # Errors
    /// Two deployments have the same name; the old ones stay.
    pub fn publish_from<E: Into<Served>>(
        &self,
        source: Source,
        entries: Vec<E>,
    ) -> Result<(), RouteError> {
        let entries: Vec<Served> = entries.into_iter().map(Into::into).collect();
        // Checked by itself first: a source must not spoil the others' parts.
        RouteTable::new(entries.clone())?;
        let mut parts = self.parts.lock();
        parts.routes.replace(source, entries);
        let routes = parts.routes.table()?;
        self.metrics.retire(&routes);
        self.routes.store(Arc::new(routes));
        Ok(())
    }

    /// What a name leads to, for those who may go there.
    fn allowed<'a>(
        &self,
        routes: &'a RouteTable,
        context: &RequestContext,
        model: &str,
    ) -> Result<&'a Entry, RouteError> {
        let who = context.principal.as_deref();
        allowed(routes, context, model).map_err(|error| match (error, self.absence(model, who)) {
            (RouteError::NotFound, Some(why)) => RouteError::Absent(why),
            (error, _) => error,
        })
    }

    /// Finds where a request goes, checks that its key may go there and notes it in the
    /// request's outcome; under release also the side. Every request for an answer starts
    /// here.
    ///
    /// # Errors
    /// The model does not exist, or the key may not use it.
    pub fn route(
        &self,
        context: &RequestContext,
        model: &str,
        subject: &Subject<'_>,
    ) -> Result<Arc<Deployment>, RouteError> {
        if let Some(pinned) = pinned(context) {
            return Ok(pinned);
        }
        let routes = self.routes.load();
        match self.allowed(&routes, context, model)? {
            Entry::Settled(deployment) => {
                context.outcome.set_deployment(deployment);
                Ok(Arc::clone(deployment))
            }
            Entry::Released(release) => {
                let pick = release.split().pick(subject);
                let placement = Placement::new(Arc::clone(release), pick);
                Ok(Arc::clone(context.outcome.place(placement).deployment()))
            }
        }
    }

    /// The same for a request that names the revision, too; `None` when the model has no
    /// such revision.
    ///
    /// # Errors
    /// As [`Gateway::route`].
    pub fn route_to(
        &self,
        context: &RequestContext,
        model: &str,
        revision: &str,
        subject: &Subject<'_>,
    ) -> Result<Option<Arc<Deployment>>, RouteError> {
        if let Some(pinned) = pinned(context) {
            return Ok(Some(pinned));
        }
        let routes = self.routes.load();
        let entry = self.allowed(&routes, context, model)?;
        let Some(deployment) = entry.revisions().find(|it| *it.revision == *revision) else {
            return Ok(None);
        };
        match entry {
            Entry::Settled(deployment) => context.outcome.set_deployment(deployment),
            Entry::Released(release) => {
                let side = match Arc::ptr_eq(deployment, release.stable()) {
                    true => Side::Stable,
                    false => Side::Candidate,
                };
                let pick = release.split().named(subject, side);
                context
                    .outcome
                    .place(Placement::new(Arc::clone(release), pick));
            }
        }
        Ok(Some(Arc::clone(deployment)))
    }

    /// The deployment of a name, for questions about it: the revision that is named, or
    /// the stable one. `None` when the model has no such revision. No release counts it.
    ///
    /// # Errors
    /// As [`Gateway::route`].
    pub fn deployment(
        &self,
        context: &RequestContext,
        model: &str,
        revision: Option<&str>,
    ) -> Result<Option<Arc<Deployment>>, RouteError> {
        if let Some(pinned) = pinned(context) {
            return Ok(Some(pinned));
        }
        let routes = self.routes.load();
        let entry = self.allowed(&routes, context, model)?;
        let found = match revision {
            None => Some(entry.stable()),
            Some(revision) => entry.revisions().find(|it| *it.revision == *revision),
        };
        if let Some(deployment) = found {
            context.outcome.set_deployment(deployment);
        }
        Ok(found.cloned())
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters, histograms and gauges.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Windows and access log.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Who hears what became of requests under release.
    #[must_use]
    pub fn releases(&self) -> &Arc<Watch> {
        &self.releases
    }

    /// The GPUs, and what models hold of them.
    #[must_use]
    pub fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// Who may ask.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether whoever asks is told which revision has answered.
    #[must_use]
    pub fn shows_revision(&self, principal: Option<&Principal>) -> bool {
        match self.config.server.revision_header {
            RevisionHeader::All => true,
            RevisionHeader::Operators => principal.is_some_and(Principal::may_try),
            RevisionHeader::None => false,
        }
    }

    /// Requests in flight and their ceiling.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Requests to the control plane in flight and their ceiling.
    pub(crate) fn control_admission(&self) -> &Admission {
        &self.control_admission
    }

    /// What one key may have of what all share.
    pub(crate) fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// Hands paths under `/api` to the control plane. Only the first call counts.
    pub fn set_control(&self, control: ControlService) {
        _ = self.control.set(control);
    }

    /// What the control plane says of itself; whoever runs one keeps it up to date.
    #[must_use]
    pub fn control_health(&self) -> &Arc<ControlHealth> {
        self.metrics.control()
    }

    pub(crate) fn control(&self) -> Option<&ControlService> {
        self.control.get()
    }

    pub(crate) fn anonymous(&self) -> &RateLimiter {
        &self.anonymous
    }

    /// What `/health/ready` answers: models are loaded and no drain has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// Set true once models are loaded, false when draining begins.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }
}

/// Where a request of the house goes, whatever its model says: noted, and not divided.
fn pinned(context: &RequestContext) -> Option<Arc<Deployment>> {
    let pinned = context.pinned.as_ref()?;
    context.outcome.set_deployment(pinned);
    Some(Arc::clone(pinned))
}

/// What the table has for a name, for those who may go there.
fn allowed<'a>(
    routes: &'a RouteTable,
    context: &RequestContext,
    model: &str,
) -> Result<&'a Entry, RouteError> {
    let served = routes.served(model).ok_or(RouteError::NotFound)?;
    if let Some(principal) = &context.principal {
        let hidden = served.stable().standing.hidden;
        if !principal.may_use(model, &served.audience) || hidden && !principal.may_try() {
            return Err(RouteError::Forbidden);
        }
    }
    Ok(&served.entry)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn rate_limits(limits: &LimitsConfig) -> RateLimits {
    RateLimits {
        requests: Some(limits.requests_per_minute),
        tokens: Some(limits.tokens_per_minute),
        control: Some(limits.control_requests_per_minute),
    }
}

pub(crate) fn key_entries(
    auth: &AuthConfig,
    variable: Option<&str>,
) -> Result<Vec<KeyEntry>, KeysError> {
    let file = auth.keys_file.as_deref().map(keys::read_file);
    let mut entries = file.transpose()?.unwrap_or_default();
    if let Some(value) = variable {
        entries.extend(keys::from_environment(value)?);
    }
    Ok(entries)
}

fn open_log(config: &Config) -> std::io::Result<Option<(Style, Sink)>> {
    use std::io::IsTerminal as _;
    let terminal = config.log.file.is_none() && std::io::stdout().is_terminal();
    let style = match config.log.format {
        LogFormat::Off => return Ok(None),
        LogFormat::Json => Style::Json,
        LogFormat::Pretty => Style::Pretty,
        LogFormat::Auto if terminal => Style::Pretty,
        LogFormat::Auto => Style::Json,
    };
    let sink: Sink = match &config.log.file {
        Some(path) => Box::new(LogFile::open(path)?),
        None => Box::new(std::io::stdout()),
    };
    Ok(Some((style, sink)))
}
