//! What was taken back, written down: to a journal on this machine at once, to the database when it answers.
//!
//! A brake outlives the process by its journal, and is let go when the records say the same.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::act::{Made, apply, release_state};
use super::people::ReleaseError;
use crate::deploy::Deployments;
use crate::domain::record::{DecisionKind, WorkOrder};
use crate::id::{DeploymentId, WorkOrderId};
use crate::publish::Publisher;
use crate::release::planner::{Action, Why};
use crate::store::{Actor, Store};
use crate::time::Timestamp;

/// A revision that was taken out of the traffic before the records said so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakenBack {
    pub deployment: DeploymentId,
    /// The release that is over; `None` where a promoted revision is taken back.
    pub release: Option<WorkOrderId>,
    /// The key of the revision that answers now.
    pub to: Arc<str>,
    pub at: Timestamp,
    pub by: Actor,
    pub kind: DecisionKind,
    pub why: Why,
    pub evidence: Option<Value>,
    /// The work order that makes it so in the records, once there is one.
    #[serde(default)]
    pub order: Option<WorkOrderId>,
}

/// Writes down what was taken back.
#[derive(Debug)]
pub struct Recorder {
    publisher: Arc<Publisher>,
    journal: PathBuf,
    store: OnceLock<(Store, Deployments)>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// What the database does not know yet, or does not say yet.
    open: Vec<TakenBack>,
    /// What the records refused, until somebody asks.
    refused: HashMap<DeploymentId, ReleaseError>,
}

/// Between two tries to write what is open.
const RETRY: Duration = Duration::from_millis(500);

impl Recorder {
    /// Pulls the brakes that were on when the process ended; to be made before anything is published. `folder` is
    /// this process's own.
    pub fn new(publisher: Arc<Publisher>, folder: &Path) -> Arc<Self> {
        let journal = folder.join("taken_back.json");
        let open = read(&journal);
        for taken in &open {
            let to = Arc::clone(&taken.to);
            publisher
                .routes()
                .brake_from_the_start(taken.deployment, to);
        }
        Arc::new(Self {
            publisher,
            journal,
            store: OnceLock::new(),
            books: Mutex::new(Books {
                open,
                refused: HashMap::new(),
            }),
        })
    }

    /// The database is open.
    pub fn follow(&self, store: Store, deployments: Deployments) {
        // The first is kept: there is one database.
        _ = self.store.set((store, deployments));
    }

    /// Writes what the watches find, until `stop` is over.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let Some(mut found) = self.publisher.watches().to_record() else {
            return;
        };
        tokio::pin!(stop);
        loop {
            tokio::select! {
                taken = found.recv() => match taken {
                    Some(taken) => self.add(taken).await,
                    None => return,
                },
                () = tokio::time::sleep(RETRY) => {}
                () = &mut stop => return,
            }
            while let Ok(taken) = found.try_recv() {
                self.add(taken).await;
            }
            self.round().await;
        }
    }

    /// On this machine's disk when it returns.
    pub(super) async fn add(&self, taken: TakenBack) {
        let mut books = self.books.lock().await;
        books.refused.remove(&taken.deployment);
        books.open.push(taken);
        self.keep(&books.open).await;
    }

    /// Whether everything about a deployment is in the records.
    ///
    /// # Errors
    /// Why they refused it; once.
    pub(super) async fn is_recorded(&self, deployment: DeploymentId) -> Result<bool, ReleaseError> {
        let mut books = self.books.lock().await;
        if let Some(error) = books.refused.remove(&deployment) {
            return Err(error);
        }
        let mut open = books.open.iter();
        Ok(open.all(|it| it.deployment != deployment || it.order.is_some()))
    }

    /// Writes what can be written now.
    pub(super) async fn round(&self) {
        let mut books = self.books.lock().await;
        let (Some((store, deployments)), false) = (self.store.get(), books.open.is_empty()) else {
            return;
        };
        let mut left = Vec::new();
        for mut taken in std::mem::take(&mut books.open) {
            let settled = match taken.release {
                Some(release) => take_back(store, release, &taken).await.map(|()| true),
                None => bring_back(store, deployments, &mut taken).await,
            };
            match settled {
                Ok(false) => left.push(taken),
                Ok(true) => self.let_go(&taken).await,
                Err(error) if error.is_retryable() => left.push(taken),
                // Stable keeps the traffic, whatever is wrong with the records.
                Err(error) if taken.release.is_some() => {
                    tracing::error!(deployment = %taken.deployment, %error, "taken back, but not written down");
                    left.push(taken);
                }
                Err(error) => {
                    tracing::error!(deployment = %taken.deployment, %error, "not taken back after all: the records stand");
                    self.let_go(&taken).await;
                    books.refused.insert(taken.deployment, error);
                }
            }
        }
        books.open = left;
        self.keep(&books.open).await;
    }

    /// The table follows the records again, which are read first.
    async fn let_go(&self, taken: &TakenBack) {
        self.publisher.tick().await;
        self.publisher.routes().let_go(taken.deployment);
    }

    async fn keep(&self, open: &[TakenBack]) {
        let (journal, open) = (self.journal.clone(), open.to_vec());
        let written = tokio::task::spawn_blocking(move || write(&journal, &open)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "what was taken back is not on the disk; a restart would forget it");
        }
    }
}

/// Ends a release in the records, at the instant when it ended in truth.
async fn take_back(
    store: &Store,
    release: WorkOrderId,
    taken: &TakenBack,
) -> Result<(), ReleaseError> {
    let mut tx = store.begin().await?;
    tx.lock_work_order(release).await?;
    let order = tx.get::<WorkOrder>(release).await?;
    let state = release_state(&order)?;
    let mut made = Made {
        action: Some(Action::RollBack {
            why: taken.why.clone(),
        }),
        kind: taken.kind,
        at: taken.at,
        by: taken.by.clone(),
        evidence: taken.evidence.clone(),
    };
    if !state.is_armed() {
        // Somebody else has ended it meanwhile.
        made.kind = DecisionKind::Note;
        made.action = None;
    }
    let applied = apply(&mut tx, &order, &state, made).await?;
    tx.commit().await?;
    applied.log();
    Ok(())
}

/// Orders the revision before, and waits for the order to be carried out. `true` when it is over.
async fn bring_back(
    store: &Store,
    deployments: &Deployments,
    taken: &mut TakenBack,
) -> Result<bool, ReleaseError> {
    let id = match taken.order {
        Some(id) => id,
        None => {
            let order = deployments
                .bring_back(&taken.by, taken.deployment, &taken.to)
                .await?;
            let Some(order) = order else {
                // The records say so already.
                return Ok(true);
            };
            taken.order = Some(order.id);
            order.id
        }
    };
    Ok(store.get::<WorkOrder>(id).await?.finished_at.is_some())
}

fn read(journal: &Path) -> Vec<TakenBack> {
    let bytes = match std::fs::read(journal) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(%error, "what was taken back before cannot be read");
            return Vec::new();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "what was taken back before cannot be read");
        Vec::new()
    })
}

/// Whole or not at all, and on the disk when it returns.
fn write(journal: &Path, open: &[TakenBack]) -> std::io::Result<()> {
    let partial = journal.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(&serde_json::to_vec(open)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, journal)?;
    let folder = journal.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
