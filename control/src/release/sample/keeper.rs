//! From the thread that compares to the table, without making it wait.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use sluice_gateway::release::ShadowPair;
use tokio::sync::mpsc;

use super::{Offered, Sample, record};
use crate::domain::record::ReleasePair;
use crate::id::WorkOrderId;
use crate::release::agreement::Agreement;
use crate::store::{Store, StoreError};
use crate::time::Timestamp;

/// Pairs that may wait for the database; beyond it they are dropped.
const WAITING: usize = 64;
/// Pairs that are written together.
const BATCH: usize = 16;
/// Releases that are sampled at once. With more, one that is forgotten begins anew: the table still holds no more
/// pairs than it may.
const RELEASES: usize = 64;
/// How long what cannot be written is tried again before it is dropped.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);
/// Between looks for pairs that are too old.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Takes pairs; [`PairWriter`] writes them.
#[derive(Debug)]
pub struct PairKeeper {
    places: usize,
    samples: Mutex<HashMap<WorkOrderId, Sample<u64>>>,
    writer: mpsc::Sender<ReleasePair>,
}

/// Writes what a [`PairKeeper`] takes.
#[derive(Debug)]
pub struct PairWriter {
    places: usize,
    keep: Duration,
    pairs: tokio::sync::Mutex<mpsc::Receiver<ReleasePair>>,
}

impl PairKeeper {
    /// For so many pairs of each release at most, and so long; 0 keeps none.
    #[must_use]
    pub fn new(places: usize, keep: Duration) -> (Self, PairWriter) {
        let (writer, pairs) = mpsc::channel(WAITING);
        let keeper = Self {
            places,
            samples: Mutex::default(),
            writer,
        };
        (
            keeper,
            PairWriter {
                places,
                keep,
                pairs: tokio::sync::Mutex::new(pairs),
            },
        )
    }

    /// Keeps a pair, if chance will have it. Never waits.
    pub fn offer(&self, release: WorkOrderId, pair: &ShadowPair, agreement: &Agreement) {
        let draw = i64::from(rand::rng().random::<u32>());
        if self.places > 0 && self.draws(release, agreement.agrees, draw) {
            let kept = record(release, pair, agreement, draw);
            // Full: the database is slow or away, and a sample is not worth memory.
            _ = self.writer.try_send(kept);
        }
    }

    /// Whether the pair would be kept among those of this process: of others it is none either way.
    fn draws(&self, release: WorkOrderId, agrees: bool, draw: i64) -> bool {
        let mut samples = self.samples.lock();
        if samples.len() >= RELEASES && !samples.contains_key(&release) {
            samples.clear();
        }
        let sample = samples
            .entry(release)
            .or_insert_with(|| Sample::new(self.places));
        let number = rand::rng().random();
        !matches!(sample.offer(agrees, draw, number), Offered::Refused)
    }
}

impl PairWriter {
    /// Writes until `stop` is over or the keeper is gone.
    pub async fn run(&self, store: &Store, stop: impl Future<Output = ()>) {
        let mut pairs = self.pairs.lock().await;
        tokio::pin!(stop);
        let mut clock = tokio::time::interval(FORGET_EVERY);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                count = pairs.recv_many(&mut batch, BATCH) => if count == 0 { return },
                _ = clock.tick() => {
                    forget(store, self.keep).await;
                    continue;
                }
                () = &mut stop => return,
            }
            tokio::select! {
                () = write(store, batch, self.places) => {}
                () = &mut stop => return,
            }
        }
    }
}

async fn forget(store: &Store, keep: Duration) {
    if let Err(error) = store
        .forget_release_pairs(Timestamp::now().before(keep))
        .await
    {
        tracing::warn!(%error, "old pairs of answers were not forgotten");
    }
}

async fn write(store: &Store, batch: Vec<ReleasePair>, places: usize) {
    let mut by_release: HashMap<WorkOrderId, Vec<ReleasePair>> = HashMap::new();
    for pair in batch {
        by_release.entry(pair.work_order).or_default().push(pair);
    }
    for (release, pairs) in by_release {
        for attempt in 1..=TRIES {
            let Err(error) = add(store, release, pairs.clone(), places).await else {
                break;
            };
            if attempt == TRIES || !error.is_retryable() {
                tracing::warn!(%release, %error, count = pairs.len(), "pairs of answers were not kept");
                break;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

async fn add(
    store: &Store,
    release: WorkOrderId,
    pairs: Vec<ReleasePair>,
    places: usize,
) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.add_release_pairs(release, pairs, places).await?;
    tx.commit().await
}
