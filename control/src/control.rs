//! The control plane of one process: what it works with once the database can be reached, and who must hear of
//! changes.
//!
//! The data plane never waits for it: it is made without a database, and [`Control::connect`] goes on
//! trying in the background while the API answers 503.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sluice_gateway::Gateway;
use sluice_gateway::auth::KeyEntry;
use sluice_gateway::config::AllowConfig;
use sluice_gateway::control_health::{ControlFault, ControlHealth};
use tokio::sync::{Notify, Semaphore, watch};

use crate::artifacts::Artifacts;
use crate::release::controller::Releases;
use crate::store::{DatabaseUrl, IdempotencyTimes, Store, StoreError, StoreSettings, Trouble};
use crate::tasks::{Queue, QueueSettings};

/// What the API needs to know beside the store.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// Everyone is the local administrator: for loopback only.
    pub open: bool,
    /// Largest JSON body.
    pub max_body: usize,
    /// How long the answer to a write with an `Idempotency-Key` is kept, and a claim holds that is not renewed.
    pub idempotency: IdempotencyTimes,
    /// Time to send a JSON body.
    pub body_timeout: Duration,
    /// Where conversion pipelines lie, for telling callers of them before a worker runs one.
    pub pipelines: Option<PathBuf>,
    /// What records may name of this machine and its network.
    pub allow: AllowConfig,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            open: false,
            max_body: 1 << 20,
            idempotency: IdempotencyTimes {
                lease: Duration::from_secs(5),
                keep: Duration::from_secs(24 * 3600),
            },
            body_timeout: Duration::from_secs(60),
            pipelines: None,
            allow: AllowConfig::default(),
        }
    }
}

/// Cheap to clone; all clones are the same control plane.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: OnceLock<Open>,
    releases: OnceLock<Releases>,
    gateway: OnceLock<Arc<Gateway>>,
    settings: ControlSettings,
    changes: watch::Sender<u64>,
    wake: Arc<Notify>,
    stopping: AtomicBool,
    /// A place for each write that its client may leave behind.
    writes: Arc<Semaphore>,
    /// Why there is no database yet.
    opening: watch::Sender<Trouble>,
}

/// What there is once the database is.
#[derive(Debug, Clone)]
pub struct Open {
    pub store: Store,
    pub artifacts: Artifacts,
    /// All parts of a process share it, so that whoever adds a task wakes the worker.
    pub queue: Queue,
}

impl Open {
    pub fn new(store: Store, artifacts: Artifacts) -> Self {
        let queue = Queue::new(store.clone(), QueueSettings::default());
        Self {
            store,
            artifacts,
            queue,
        }
    }
}

/// Writes with an `Idempotency-Key` at once; others wait.
const WRITES: u32 = 256;
/// How long those under way may take when the process stops.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// Between two tries to open the database.
const RETRY: Duration = Duration::from_secs(2);

impl Control {
    /// Without a database yet.
    pub fn new(settings: ControlSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                open: OnceLock::new(),
                releases: OnceLock::new(),
                gateway: OnceLock::new(),
                settings,
                changes: watch::Sender::new(0),
                wake: Arc::default(),
                stopping: AtomicBool::new(false),
                writes: Arc::new(Semaphore::new(WRITES as usize)),
                opening: watch::Sender::new(Trouble {
                    code: "starting",
                    reason: "the control plane is opening its database".to_owned(),
                }),
            }),
        }
    }

    /// On a database that is open.
    pub fn opened(open: Open, settings: ControlSettings) -> Self {
        let control = Self::new(settings);
        // The lock is new: nobody else can have set it.
        let _ = control.shared.open.set(open);
        control
    }

    /// Opens the database, trying again until it can be reached or the process stops. `artifacts` opens the content
    /// store on it, which asks nobody: what it refuses is a setting.
    pub async fn connect<E: std::fmt::Display>(
        &self,
        url: &DatabaseUrl,
        settings: &StoreSettings,
        artifacts: impl Fn(Store) -> Result<Artifacts, E>,
    ) -> Option<&Open> {
        let mut said = String::new();
        while !self.is_stopping() {
            if let DatabaseUrl::Sqlite(path) = url
                && let Some(folder) = path.parent()
            {
                // Where that fails, opening says why.
                let _ = std::fs::create_dir_all(folder);
            }
            let opened = match Store::open(url, settings).await {
                Ok(store) => artifacts(store.clone())
                    .map(|artifacts| Open::new(store, artifacts))
                    .map_err(|error| format!("artifacts: {error}")),
                Err(error) => {
                    if let Some(trouble) = Trouble::of(&error) {
                        self.shared.opening.send_replace(trouble);
                    }
                    Err(in_full(&error))
                }
            };
            match opened {
                Ok(open) => {
                    tracing::info!(database = %url, "the control plane is ready");
                    let _ = self.shared.open.set(open);
                    self.changed();
                    return self.open();
                }
                // Once for each reason, not every two seconds.
                Err(reason) if reason != said => {
                    tracing::error!(
                        database = %url,
                        error = reason,
                        "the control plane has no database yet; models are served without it, and it tries again every {} s",
                        RETRY.as_secs()
                    );
                    said = reason;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
        None
    }

    /// `None` until the database was opened once.
    pub fn open(&self) -> Option<&Open> {
        self.shared.open.get()
    }

    /// This process serves models, and so has their releases in hand.
    pub fn set_releases(&self, releases: Releases) {
        // The first is kept: a process serves once.
        _ = self.shared.releases.set(releases);
    }

    /// Whose configuration says which keys there are beside those in the records, and which names it serves itself.
    pub fn set_gateway(&self, gateway: Arc<Gateway>) {
        // The first is kept: a process has one.
        _ = self.shared.gateway.set(gateway);
    }

    /// The key of the keys file with an id, as it stands there now.
    pub fn file_key(&self, id: &str) -> Option<KeyEntry> {
        self.shared.gateway.get()?.file_key(id)
    }

    /// Whether the configuration serves this name itself.
    pub fn is_configured(&self, endpoint: &str) -> bool {
        let gateway = self.shared.gateway.get();
        gateway.is_some_and(|gateway| gateway.is_configured(endpoint))
    }

    /// `None` in a process that serves no models.
    pub fn releases(&self) -> Option<&Releases> {
        self.shared.releases.get()
    }

    /// Waits for the database to be opened; `None` if the process stops before.
    pub async fn when_open(&self) -> Option<&Open> {
        let mut changes = self.changes();
        while self.open().is_none() && !self.is_stopping() {
            // An error is the end of all clones, and `self` is one.
            changes.changed().await.ok()?;
        }
        self.open()
    }

    /// Keeps the gateway's word on the control plane up to date, and looks after the database, until `stop` is over.
    pub async fn look_after(&self, health: &ControlHealth, stop: impl Future<Output = ()>) {
        let watching = async {
            let mut opening = self.shared.opening.subscribe();
            let mut changes = self.changes();
            let store = loop {
                if let Some(store) = self.store() {
                    break store;
                }
                health.set(vec![fault(opening.borrow_and_update().clone())]);
                // An error is the end of all clones, and `self` is one.
                tokio::select! {
                    _ = opening.changed() => {}
                    _ = changes.changed() => {}
                }
            };
            let mut troubles = store.troubles();
            let saying = async {
                loop {
                    let trouble = troubles.borrow_and_update().clone();
                    health.set(trouble.into_iter().map(fault).collect());
                    if troubles.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(saying, store.watch_over(std::future::pending()));
        };
        tokio::select! {
            () = watching => {}
            () = stop => {}
        }
    }

    /// As [`Control::open`].
    pub fn store(&self) -> Option<&Store> {
        self.open().map(|open| &open.store)
    }

    /// Notified after each commit of this process: for the publisher and the driver of work orders.
    pub fn wake(&self) -> &Arc<Notify> {
        &self.shared.wake
    }

    pub fn settings(&self) -> &ControlSettings {
        &self.shared.settings
    }

    /// Wakes those who follow the records, such as the publisher.
    pub fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
        self.shared.wake.notify_waiters();
    }

    /// The same for all who follow, also those who wait for tasks: for a write that is committed later than it was said.
    pub fn announce(&self) {
        self.changed();
        if let Some(open) = self.open() {
            open.queue.look_again();
        }
    }

    /// Does `work` to its end on a task of its own, whether or not its caller goes on waiting.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        // The semaphore is never closed.
        let place = Arc::clone(&self.shared.writes).acquire_owned().await;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down, and so is this.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Counts changes made in this process. Those of other processes are seen by polling.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Ends watches, so that they do not hold up a drain.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Relaxed);
        self.changed();
    }

    /// Closes the database, once nothing uses it any more.
    pub async fn close(&self) {
        let writes = self.shared.writes.acquire_many(WRITES);
        if tokio::time::timeout(LAST_WRITES, writes).await.is_err() {
            tracing::warn!("writes were still under way; their keys are free in a moment");
        }
        if let Some(store) = self.store() {
            store.close().await;
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Relaxed)
    }
}

fn fault(trouble: Trouble) -> ControlFault {
    ControlFault {
        code: trouble.code,
        reason: trouble.reason,
    }
}

fn in_full(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
