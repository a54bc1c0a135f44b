//! Records in SQLite or PostgreSQL, through one set of queries.
//!
//! sqlx's `Any` driver speaks to both; every statement uses `$1` places and the types that the two share.
//! SQLite has one connection that writes, whose transactions take the write lock at once, and a few
//! that only read: so a writer never fails halfway for another one, and readers never wait. PostgreSQL has one pool.
//!
//! The schema is brought up to date when the store opens. On PostgreSQL that happens under an advisory
//! lock, so that processes which start together do not meet; on SQLite under the database's own.

mod audit;
mod backup;
pub(crate) mod column;
mod error;
mod fault;
mod health;
mod migration;
mod page;
mod record;
mod transition;
mod url;
mod whole;

mod access;
mod artifact;
mod blob;
mod dataset;
mod deployment;
mod evaluation;
mod idempotency;
mod lease;
mod lineage;
mod model;
mod quota;
mod release;
mod release_pair;
mod required;
mod run;
mod task;
mod upload;
mod usage;
mod webhook;

#[cfg(test)]
pub(crate) mod rig;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyConnection, AnyPool, Transaction};

pub use access::{DeploymentAudience, IssuedKey, KeyLimits, KeyOwner, NewKey};
pub use artifact::{ArtifactFile, Reference};
pub use audit::{Actor, Audit, AuditEvent, AuditFilter};
pub use backup::BackupError;
pub use column::{Column, Document, Json, Value, arguments, read};
pub use dataset::Viewer;
pub use deployment::{Commitment, LiveRevision};
pub use error::StoreError;
pub use evaluation::{AbandonedRun, EvaluationSample, SampleFilter, SampleScores};
pub use fault::StorageFault;
pub use health::Trouble;
pub use idempotency::{Claim, Idempotency, IdempotencyTimes};
pub use lease::Lease;
pub use model::{DatasetSummary, DeploymentSummary, EvaluationSummary, ModelView, VersionView};
pub use page::{DEFAULT_LIMIT, Listing, MAX_LIMIT, Page};
pub use record::{Record, Stored, columns, get};
pub use release::{ReleasedRevision, WarmRevision};
pub use task::LoggedEvent;
pub use transition::{EventOf, Stateful, Transition};
pub use upload::UploadPart;
pub use url::{DatabaseUrl, DatabaseUrlError};
pub use usage::{Amounts, KeyUse, UsageEntry, UsageFilter, UsageGroup, UsageSum};

pub use webhook::{Hook, ReleaseRevisions};
pub use whole::{Reader, Whole};

pub(crate) use column::text_column;
use health::{Files, Health, with_suffix};
use record::mapped;
use transition::{stateful, stateful_run};
use whole::Lent;

use crate::time::Timestamp;

/// How the database is used. The defaults suit one process on one machine.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Connections at most: of PostgreSQL's pool, or SQLite's readers.
    pub connections: u32,
    /// How long a caller waits for a connection, and a SQLite writer for another process's lock.
    pub patience: Duration,
    /// SQLite only. `false`: a power cut may lose the last moments, never the file's consistency; a
    /// killed process loses nothing. `true`: every commit is on the disk before it is reported.
    pub full_sync: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            connections: 8,
            patience: Duration::from_secs(5),
            full_sync: false,
        }
    }
}

/// Which of the two it is: the one place where they differ in SQL asks here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// The database. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    dialect: Dialect,
    writers: AnyPool,
    readers: AnyPool,
    health: Arc<Health>,
    patience: Duration,
    /// The request with an `Idempotency-Key` that it works for.
    claim: Option<Claim>,
    /// The transaction that all of its own are parts of.
    whole: Option<Whole>,
}

impl Store {
    /// Connects, creating SQLite's file where there is none, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached, [`StoreError::Migration`] if its
    /// schema is newer than this binary or was changed by hand.
    pub async fn open(url: &DatabaseUrl, settings: &StoreSettings) -> Result<Self, StoreError> {
        let store = Self::connect(url, settings).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Connects without touching the schema, for `sluice migrate`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn connect(url: &DatabaseUrl, settings: &StoreSettings) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options = url.connect_options()?;
        match url {
            DatabaseUrl::Sqlite(path) => {
                let again = url.options_of_existing()?;
                Self::connect_sqlite(path, options, again, settings).await
            }
            DatabaseUrl::Postgres(_) => {
                let pool = pool(settings, settings.connections)
                    .connect_with(options)
                    .await?;
                Ok(Self {
                    dialect: Dialect::Postgres,
                    writers: pool.clone(),
                    readers: pool,
                    health: Health::new(None),
                    patience: settings.patience,
                    claim: None,
                    whole: None,
                })
            }
        }
    }

    /// `first` makes the file where there is none; `again` is for connections that come later, and would otherwise
    /// make a new database where somebody deleted this one.
    async fn connect_sqlite(
        path: &Path,
        first: AnyConnectOptions,
        again: AnyConnectOptions,
        settings: &StoreSettings,
    ) -> Result<Self, StoreError> {
        make_private(path);
        let patience = settings.patience.as_millis();
        let sync = if settings.full_sync { "FULL" } else { "NORMAL" };
        let common = format!(
            "PRAGMA busy_timeout = {patience}; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;"
        );
        let writing = format!("{common} PRAGMA journal_mode = WAL; PRAGMA synchronous = {sync};");
        let reading = format!("{common} PRAGMA query_only = ON;");
        // The writer first: it makes the file, and the mode that readers then find.
        let writers = sqlite_pool(settings, 1)
            .after_connect(move |connection, _| Box::pin(run(connection, writing.clone())))
            .before_acquire(|connection, _| Box::pin(is_between_transactions(connection)))
            .connect_with(first)
            .await?;
        writers.set_connect_options(again.clone());
        let readers = sqlite_pool(settings, settings.connections)
            .after_connect(move |connection, _| Box::pin(run(connection, reading.clone())))
            .connect_with(again)
            .await?;
        let files = Files::new(path.to_owned());
        files.learn();
        Ok(Self {
            dialect: Dialect::Sqlite,
            writers,
            readers,
            health: Health::new(Some(files)),
            patience: settings.patience,
            claim: None,
            whole: None,
        })
    }

    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Begins a transaction that writes. Dropped without [`Tx::commit`], it leaves no trace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        if let Some(whole) = &self.whole {
            let part = whole.part(self.patience).await?;
            return Ok(self.transaction(Source::Part(part), whole.now()));
        }
        if let Some(claim) = &self.claim {
            claim.settle().await?;
        }
        self.health.in_place(self.patience).await?;
        let begun = match self.dialect {
            // Deferred, two transactions that read first and then write would fail each other.
            Dialect::Sqlite => self.writers.begin_with("BEGIN IMMEDIATE").await,
            Dialect::Postgres => self.writers.begin().await,
        };
        let begun = begun.map_err(|error| self.noted(error))?;
        Ok(self.transaction(Source::Own(begun), Timestamp::now()))
    }

    fn transaction(&self, source: Source, now: Timestamp) -> Tx {
        Tx {
            source,
            dialect: self.dialect,
            now,
            health: Arc::clone(&self.health),
            patience: self.patience,
            claim: self.claim.clone(),
        }
    }

    /// A connection for reading only.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn reader(&self) -> Result<Reader, StoreError> {
        if let Some(whole) = &self.whole {
            return Reader::of(whole, self.patience).await;
        }
        if let Some(claim) = &self.claim {
            claim.settle().await?;
        }
        Ok(Reader::Own(self.readers.acquire().await?))
    }

    fn noted(&self, error: sqlx::Error) -> StoreError {
        let error = error.into();
        self.health.met(&error);
        error
    }

    /// Whether the database answers now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1")
            .execute(&mut *self.reader().await?)
            .await?;
        Ok(())
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

fn pool(settings: &StoreSettings, connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(settings.patience)
}

/// Connections that stay: with the last one SQLite would put its log away, and where the log is gone somebody else took
/// it.
fn sqlite_pool(settings: &StoreSettings, connections: u32) -> AnyPoolOptions {
    pool(settings, connections)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Both ends of a transaction that SQLite itself undid, the disk being full, fail to be said to it: the driver goes on
/// counting it as open, and would refuse every later one. Such a connection is closed, and another takes its place.
async fn is_between_transactions(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    use sqlx::Connection as _;
    Ok(!connection.is_in_transaction())
}

/// Makes the file for its owner alone, before SQLite makes it for everybody; its log and index take after it. One that
/// is there is tightened. Where that cannot be done, opening says why, or somebody else owns it.
fn make_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Only a new file is opened here: closing one that is in use would lose this process's locks on it.
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    if made.is_err() {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            crate::private::tighten_file(&with_suffix(path, suffix));
        }
    }
}

/// Runs settings of the program's own making on a new connection.
async fn run(connection: &mut AnyConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

/// A transaction that writes. All of it happens at one instant, [`Tx::now`].
#[derive(Debug)]
pub struct Tx {
    source: Source,
    dialect: Dialect,
    now: Timestamp,
    health: Arc<Health>,
    patience: Duration,
    claim: Option<Claim>,
}

/// Where a transaction's statements go.
#[derive(Debug)]
enum Source {
    Own(Transaction<'static, Any>),
    /// One of several that are committed together.
    Part(Lent),
}

impl Tx {
    /// For statements of one's own.
    pub fn connection(&mut self) -> &mut AnyConnection {
        match &mut self.source {
            Source::Own(transaction) => transaction,
            Source::Part(part) => part.connection(),
        }
    }

    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// When the transaction began, by this machine's clock.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Database`]; nothing was written then, unless the
    /// connection broke while the database answered.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        // Of a request whose answer is kept: committed together with that.
        if let Some(claim) = self.claim.take() {
            claim.put(self);
            return Ok(());
        }
        let transaction = match self.source {
            Source::Own(transaction) => transaction,
            Source::Part(mut part) => return part.keep_part().await,
        };
        // Begun on a file that was taken away since, it would be lost.
        self.health.in_place(self.patience).await?;
        match transaction.commit().await {
            Ok(()) => {
                self.health.wrote();
                Ok(())
            }
            Err(error) => {
                let error = error.into();
                self.health.met(&error);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
