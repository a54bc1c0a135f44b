//! The control plane of one process: the store once it can be reached, and who must hear of changes.
//!
//! The data plane never waits for it: it is made without a database, and [`Control::connect`] goes on
//! trying in the background while the API answers 503.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{DatabaseUrl, Store, StoreError, StoreSettings};

/// What the API needs to know beside the store.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// Everyone is the local administrator: for loopback only.
    pub open: bool,
    /// Largest JSON body.
    pub max_body: usize,
    /// How long the answer to a write with an `Idempotency-Key` is kept.
    pub idempotency_keep: Duration,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            open: false,
            max_body: 1 << 20,
            idempotency_keep: Duration::from_secs(24 * 3600),
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
    store: OnceLock<Store>,
    settings: ControlSettings,
    changes: watch::Sender<u64>,
    stopping: AtomicBool,
}

/// Between two tries to open the database.
const RETRY: Duration = Duration::from_secs(2);

impl Control {
    /// Without a database yet.
    pub fn new(settings: ControlSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                store: OnceLock::new(),
                settings,
                changes: watch::Sender::new(0),
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// On a store that is open.
    pub fn with_store(store: Store, settings: ControlSettings) -> Self {
        let control = Self::new(settings);
        // The lock is new: nobody else can have set it.
        let _ = control.shared.store.set(store);
        control
    }

    /// Opens the database, trying again until it can be reached or the process stops.
    pub async fn connect(&self, url: &DatabaseUrl, settings: &StoreSettings) {
        let mut said = String::new();
        while !self.is_stopping() {
            if let DatabaseUrl::Sqlite(path) = url
                && let Some(folder) = path.parent()
            {
                // Where that fails, opening says why.
                let _ = std::fs::create_dir_all(folder);
            }
            match Store::open(url, settings).await {
                Ok(store) => {
                    tracing::info!(database = %url, "the control plane is ready");
                    let _ = self.shared.store.set(store);
                    self.changed();
                    return;
                }
                Err(error) => {
                    // Once for each reason, not every two seconds.
                    let reason = in_full(&error);
                    if reason != said {
                        tracing::error!(
                            database = %url,
                            error = reason,
                            "the control plane has no database yet; models are served without it, and it tries again every {} s",
                            RETRY.as_secs()
                        );
                        said = reason;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// `None` until the database was opened once.
    pub fn store(&self) -> Option<&Store> {
        self.shared.store.get()
    }

    pub fn settings(&self) -> &ControlSettings {
        &self.shared.settings
    }

    /// Wakes those who follow the records, such as the publisher.
    pub fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
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
        if let Some(store) = self.store() {
            store.close().await;
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Relaxed)
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
