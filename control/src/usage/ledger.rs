//! The clockwork: sums to the journal each half second, the journal to the database each second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Journal, Tally};
use crate::store::{Store, StoreError, UsageEntry};

/// How the ledger is kept. The defaults suit a service.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// How often sums are written to the disk; with the write itself, what kill -9 loses. At most 500 ms keeps
    /// that below a second.
    pub flush: Duration,
    /// How often the journal is sent to the database.
    pub send: Duration,
    /// Bytes of the journal while the database is away; beyond it new sums are dropped and counted.
    pub max_waiting: u64,
    /// Sums in memory at once: combinations of person, key, deployment, version and status in one flush.
    pub max_sums: usize,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            flush: Duration::from_millis(500),
            send: Duration::from_secs(1),
            max_waiting: 256 << 20,
            max_sums: 100_000,
        }
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerState {
    /// Bytes on the disk that the database does not have yet.
    pub waiting_bytes: u64,
    /// Sums that were lost since the process started, because there was no room for them.
    pub dropped: u64,
}

/// The way of what was used into the database.
#[derive(Debug)]
pub struct Ledger {
    settings: LedgerSettings,
    tally: Arc<Tally>,
    desk: Mutex<Desk>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Desk {
    journal: Journal,
    /// Lines that the disk refused; tried again with the next ones.
    unwritten: Vec<UsageEntry>,
    /// The last try to write failed.
    refused: bool,
}

impl Ledger {
    /// `folder` is the ledger's own, such as `control/usage` in the data directory.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(
        folder: impl Into<PathBuf>,
        settings: LedgerSettings,
    ) -> std::io::Result<Arc<Self>> {
        let journal = Journal::open(folder, settings.max_waiting)?;
        Ok(Arc::new(Self {
            tally: Arc::new(Tally::new(settings.max_sums)),
            desk: Mutex::new(Desk {
                journal,
                unwritten: Vec::new(),
                refused: false,
            }),
            dropped: AtomicU64::new(0),
            settings,
        }))
    }

    /// What the gateway tells of finished requests: `gateway.observer().tell(ledger.tally())`.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    pub fn state(&self) -> LedgerState {
        LedgerState {
            waiting_bytes: self.desk.lock().journal.bytes(),
            dropped: self.dropped.load(Relaxed),
        }
    }

    /// Writes what was summed to the disk, and waits for it. Blocks.
    pub fn flush(&self) {
        let (entries, mut dropped) = self.tally.take();
        let mut desk = self.desk.lock();
        let Desk {
            journal,
            unwritten,
            refused,
        } = &mut *desk;
        unwritten.extend(entries);
        match journal.append(unwritten) {
            Ok(without_room) => {
                unwritten.clear();
                if std::mem::take(refused) {
                    tracing::info!("the usage journal is written again");
                }
                dropped += without_room as u64;
            }
            Err(error) => {
                if !std::mem::replace(refused, true) {
                    tracing::error!(%error, "the usage journal cannot be written; kept in memory and tried again");
                }
                let surplus = unwritten.len().saturating_sub(self.settings.max_sums);
                unwritten.truncate(self.settings.max_sums);
                dropped += surplus as u64;
            }
        }
        drop(desk);
        if dropped > 0 {
            let total = self.dropped.fetch_add(dropped, Relaxed) + dropped;
            tracing::error!(
                dropped,
                total,
                "use was not recorded: the usage journal is full"
            );
        }
    }

    /// Sends all that lies on the disk to the database. Returns how many lines that were.
    ///
    /// # Errors
    /// The database does not answer; what was not sent stays.
    pub async fn send(&self, store: &Store) -> Result<usize, StoreError> {
        self.send_shown(store).await?;
        let mut sent = 0;
        loop {
            let oldest = self.desk.lock().journal.oldest();
            let Some(path) = oldest else { return Ok(sent) };
            let reading = {
                let path = path.clone();
                tokio::task::spawn_blocking(move || Journal::read(&path))
            };
            let lines = match reading.await {
                Ok(Ok(lines)) => lines,
                Ok(Err(error)) => {
                    tracing::error!(%error, path = %path.display(), "a segment of the usage journal cannot be read");
                    return Ok(sent);
                }
                Err(_) => return Ok(sent),
            };
            if lines.torn > 0 {
                let torn = lines.torn;
                tracing::warn!(torn, path = %path.display(), "lines of the usage journal were torn by a crash");
            }
            let mut tx = store.begin().await?;
            tx.record_usage(&lines.entries).await?;
            tx.commit().await?;
            sent += lines.entries.len();
            if let Err(error) = self.desk.lock().journal.remove(&path) {
                tracing::error!(%error, path = %path.display(), "a segment of the usage journal cannot be removed");
                return Ok(sent);
            }
        }
    }

    /// Writes down when keys were last shown that used nothing. No use is lost with it, so that it lies on no disk before.
    async fn send_shown(&self, store: &Store) -> Result<(), StoreError> {
        let shown = self.tally.take_shown();
        if shown.is_empty() {
            return Ok(());
        }
        let noted = store.note_key_uses(&shown).await;
        if noted.is_err() {
            self.tally.put_back(shown);
        }
        noted
    }

    /// Flushes on a thread of its own, and sends, until `stop` is over; then once more each.
    pub async fn run(
        self: Arc<Self>,
        store: impl Fn() -> Option<Store>,
        stop: impl Future<Output = ()>,
    ) {
        let mut flush = tokio::time::interval(self.settings.flush);
        let mut send = tokio::time::interval(self.settings.send);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        send.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let flushing = {
            let ledger = Arc::clone(&self);
            async move {
                loop {
                    flush.tick().await;
                    let ledger = Arc::clone(&ledger);
                    _ = tokio::task::spawn_blocking(move || ledger.flush()).await;
                }
            }
        };
        let sending = async {
            let mut waits = false;
            loop {
                send.tick().await;
                let Some(store) = store() else { continue };
                match self.send(&store).await {
                    Ok(_) if waits => {
                        tracing::info!("the usage journal is sent again");
                        waits = false;
                    }
                    Ok(_) => {}
                    Err(error) if !waits => {
                        tracing::warn!(%error, "the usage journal waits for the database");
                        waits = true;
                    }
                    Err(_) => {}
                }
            }
        };
        tokio::select! {
            () = flushing => {}
            () = sending => {}
            () = stop => {}
        }
        let last = Arc::clone(&self);
        _ = tokio::task::spawn_blocking(move || last.flush()).await;
        if let Some(store) = store()
            && let Err(error) = self.send(&store).await
        {
            tracing::warn!(%error, "the usage journal goes with the next start");
        }
    }
}
