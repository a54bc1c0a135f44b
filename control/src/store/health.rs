//! Whether the database takes writes now: what the last one met, and whether SQLite's files are those that were opened.
//!
//! SQLite goes on writing to a file that was deleted, and says that all is well; it would all be gone with the next
//! start. So the files' identities are compared before each write. A fault is forgotten with the first write that
//! succeeds; where nobody writes, a heartbeat does.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{StorageFault, Store, StoreError};

/// Between two looks while all is well: a fault that nobody has met by writing is known this late.
const CALM: Duration = Duration::from_secs(2);
/// Between two tries to write while something is wrong.
const ANXIOUS: Duration = Duration::from_millis(500);

/// What is known of the database. Shared by all clones of a store.
#[derive(Debug)]
pub(super) struct Health {
    files: Option<Files>,
    state: watch::Sender<Option<Trouble>>,
    written: Mutex<Option<Instant>>,
}

/// What is wrong with the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs: a [`StorageFault`]'s, or `database_unavailable`.
    pub code: &'static str,
    /// A sentence without hosts, paths and secrets.
    pub reason: String,
}

impl Trouble {
    /// What an error says of the database; `None` if it says something of a record only.
    pub fn of(error: &StoreError) -> Option<Self> {
        let code = match error {
            StoreError::Storage { fault, .. } => fault.code(),
            StoreError::Unavailable(_) => "database_unavailable",
            StoreError::NewerSchema { .. } => "schema_newer",
            StoreError::Migration(_) => "schema_failed",
            StoreError::Database(_) | StoreError::Malformed { .. } => "database_failed",
            StoreError::NotFound { .. }
            | StoreError::Stale { .. }
            | StoreError::Conflict { .. }
            | StoreError::IllegalTransition(_)
            | StoreError::Reference
            | StoreError::Fixed { .. }
            | StoreError::Invalid { .. } => return None,
        };
        let reason = error.to_string();
        Some(Self { code, reason })
    }
}

impl Health {
    pub(super) fn new(files: Option<Files>) -> Arc<Self> {
        Arc::new(Self {
            files,
            state: watch::Sender::new(None),
            written: Mutex::new(None),
        })
    }

    /// Refuses where SQLite's files are not the ones that were opened. On a thread that may wait, and not for ever: a
    /// disk that hangs must not hold up who serves models.
    pub(super) async fn in_place(self: &Arc<Self>, patience: Duration) -> Result<(), StoreError> {
        if self.files.is_none() {
            return Ok(());
        }
        let health = Arc::clone(self);
        let look = tokio::task::spawn_blocking(move || {
            health.files.as_ref().is_none_or(Files::are_in_place)
        });
        let fault = match tokio::time::timeout(patience, look).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => StorageFault::Replaced,
            // The disk hangs.
            Ok(Err(_)) | Err(_) => StorageFault::Failed,
        };
        let error = StoreError::Storage { fault, cause: None };
        self.met(&error);
        Err(error)
    }

    /// Notes what a write has met.
    pub(super) fn met(&self, error: &StoreError) {
        let Some(trouble) = Trouble::of(error) else {
            return;
        };
        let changed = self.state.send_if_modified(|state| {
            let differs = state.as_ref() != Some(&trouble);
            *state = Some(trouble.clone());
            differs
        });
        if changed {
            let code = trouble.code;
            tracing::error!(code, reason = trouble.reason, cause = ?std::error::Error::source(error), "records cannot be written");
        }
    }

    /// Notes a write that succeeded.
    pub(super) fn wrote(&self) {
        *self.written.lock() = Some(Instant::now());
        if self.state.send_if_modified(|state| state.take().is_some()) {
            tracing::info!("records are written again");
        }
    }

    fn wrote_within(&self, span: Duration) -> bool {
        let written = *self.written.lock();
        written.is_some_and(|at| at.elapsed() < span)
    }
}

impl Store {
    /// What is wrong now.
    pub fn trouble(&self) -> Option<Trouble> {
        self.health.state.borrow().clone()
    }

    /// Follows what is wrong.
    pub fn troubles(&self) -> watch::Receiver<Option<Trouble>> {
        self.health.state.subscribe()
    }

    /// Writes now and then, so that what is wrong is known, and known to be over, also where nobody else writes. Runs
    /// until `stop` is over.
    pub async fn watch_over(&self, stop: impl Future<Output = ()>) {
        let looking = async {
            loop {
                let pause = match self.trouble() {
                    Some(_) => ANXIOUS,
                    None => CALM,
                };
                tokio::time::sleep(pause).await;
                self.beat(pause).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = stop => {}
        }
    }

    /// Looks now: somebody met a fault of the storage in the middle of a transaction.
    pub async fn look(&self) {
        self.beat(Duration::ZERO).await;
    }

    /// One look. Begin and commit note what they meet; a refusal in between is noted here.
    async fn beat(&self, pause: Duration) {
        let looked = match self.health.wrote_within(pause) && self.trouble().is_none() {
            // Others have written just now: only the files are looked at.
            true => self.health.in_place(self.patience).await,
            false => self
                .take_lease("heartbeat", "heartbeat", CALM)
                .await
                .map(drop),
        };
        if let Err(error) = looked {
            self.health.met(&error);
        }
    }
}

/// SQLite's files by what the system knows them by.
#[derive(Debug)]
pub(super) struct Files {
    database: PathBuf,
    known: Mutex<Vec<Known>>,
}

/// A file as it was found.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    identity: Identity,
    /// Something was in it. A new database is empty until its log is written back for the first time.
    filled: bool,
}

/// Device and inode: what stays the same while a file is written, and differs between two files.
type Identity = (u64, u64);

impl Files {
    /// Nothing is known yet.
    pub(super) fn new(database: PathBuf) -> Self {
        Self {
            database,
            known: Mutex::default(),
        }
    }

    /// Whether the files that were there before are still there, and the same. The database's own log and index are
    /// learned once they appear: as long as it is open, SQLite keeps them.
    fn are_in_place(&self) -> bool {
        let mut known = self.known.lock();
        for suffix in ["", "-wal", "-shm"] {
            let path = with_suffix(&self.database, suffix);
            // By the path alone: a file that is opened and closed here would lose the process's locks on it.
            let found = std::fs::metadata(&path).ok();
            let found = found.map(|it| ((it.dev(), it.ino()), it.len() > 0));
            let before = known.iter_mut().find(|known| known.path == path);
            match (before, found) {
                (Some(before), Some((identity, filled))) if before.identity == identity => {
                    // SQLite empties its log, and never the database.
                    if suffix.is_empty() && before.filled && !filled {
                        return false;
                    }
                    before.filled |= filled;
                }
                (Some(_), _) => return false,
                (None, Some((identity, filled))) => known.push(Known {
                    path,
                    identity,
                    filled,
                }),
                (None, None) => {}
            }
        }
        true
    }

    /// Learns what is there. To be called once the database is open.
    pub(super) fn learn(&self) {
        self.known.lock().clear();
        _ = self.are_in_place();
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
