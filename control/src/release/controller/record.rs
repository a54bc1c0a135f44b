//! What was taken back, written down: to a journal on this machine at once, to the database when it answers.
//!
//! A brake outlives the process by its journal, and is let go when the records say the same.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::act::{Made, apply, release_state};
use super::people::ReleaseError;
use crate::deploy::{DeployError, Deployments};
use crate::domain::record::{DecisionKind, Deployment, WorkOrder};
use crate::domain::work_order::WorkOrderState;
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
    /// Held by the round that is under way.
    writing: Mutex<()>,
    /// The journal on the disk is older than the books: it could not be written.
    unkept: AtomicBool,
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
            writing: Mutex::default(),
            unkept: AtomicBool::new(false),
        })
    }

    /// The database is open.
    pub fn follow(&self, store: Store, deployments: Deployments) {
        // The first is kept: there is one database.
        _ = self.store.set((store, deployments));
    }

    /// Writes what the watches find, until `stop` is over.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut found = self.publisher.watches().to_record().lock().await;
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

    /// Whether a release was taken back, and the records do not say so yet.
    pub(super) async fn has_open(&self, release: WorkOrderId) -> bool {
        let books = self.books.lock().await;
        books.open.iter().any(|it| it.release == Some(release))
    }

    /// To which revision a deployment was taken back last, where the records do not say so yet.
    pub(super) async fn open_for(&self, deployment: DeploymentId) -> Option<TakenBack> {
        let books = self.books.lock().await;
        let mut open = books.open.iter().rev();
        open.find(|it| it.deployment == deployment).cloned()
    }

    /// Writes what can be written now, and waits for no database that is known to be away. May be given up anywhere: what
    /// is not settled is still open.
    pub(super) async fn round(&self) {
        let pulse = self.publisher.pulse();
        if pulse.is_away() {
            return;
        }
        tokio::select! {
            // On the heap: it holds all that a transaction needs.
            () = Box::pin(self.write_all()) => {}
            () = pulse.lost() => {}
        }
    }

    async fn write_all(&self) {
        let _alone = self.writing.lock().await;
        if self.unkept.load(Relaxed) {
            let books = self.books.lock().await;
            self.keep(&books.open).await;
        }
        let Some((store, deployments)) = self.store.get() else {
            return;
        };
        // Not under the books' lock: who adds to them must not wait for the database.
        let due = self.books.lock().await.open.clone();
        for taken in due {
            self.settle(store, deployments, taken).await;
        }
    }

    async fn settle(&self, store: &Store, deployments: &Deployments, mut taken: TakenBack) {
        let before = (taken.release, taken.order);
        let ended = match taken.release {
            Some(release) => take_back(store, release, &taken).await,
            None => Ok(Ended::Live),
        };
        let written = match ended {
            Ok(Ended::Over) => Ok(true),
            Ok(Ended::Live) => {
                taken.release = None;
                bring_back(store, deployments, &mut taken).await
            }
            Err(error) => Err(error),
        };
        let (is_over, refused) = match written {
            Ok(is_over) => (is_over, None),
            // What takes traffic now gives way first: whoever took back was told that it was done.
            Err(ReleaseError::Deploy(DeployError::Busy(active))) => {
                if let Err(error) = give_way(store, active, &taken).await {
                    tracing::info!(deployment = %taken.deployment, %error, "waits for another work order to end");
                }
                (false, None)
            }
            Err(error) if error.is_retryable() => (false, None),
            // Stable keeps the traffic, whatever is wrong with the records.
            Err(error) if taken.release.is_some() => {
                tracing::error!(deployment = %taken.deployment, %error, "taken back, but not written down");
                (false, None)
            }
            Err(error) => {
                tracing::error!(deployment = %taken.deployment, %error, "not taken back after all: the records stand");
                (true, Some(error))
            }
        };
        if is_over {
            // The table follows the records again, which are read first.
            self.publisher.tick().await;
        } else if (taken.release, taken.order) == before {
            return;
        }
        let mut books = self.books.lock().await;
        let is_it = |it: &TakenBack| it.deployment == taken.deployment && it.at == taken.at;
        if is_over {
            books.open.retain(|it| !is_it(it));
            let routes = self.publisher.routes();
            let mut further = books.open.iter().rev();
            match further.find(|it| it.deployment == taken.deployment) {
                // One that went further meanwhile holds on.
                Some(further) => _ = routes.brake_when_loaded(taken.deployment, &further.to),
                None => routes.let_go(taken.deployment),
            }
        } else if let Some(it) = books.open.iter_mut().find(|it| is_it(it)) {
            (it.release, it.order) = (taken.release, taken.order);
        }
        if let Some(error) = refused {
            books.refused.insert(taken.deployment, error);
        }
        self.keep(&books.open).await;
    }

    async fn keep(&self, open: &[TakenBack]) {
        let (journal, open) = (self.journal.clone(), open.to_vec());
        let written = tokio::task::spawn_blocking(move || write(&journal, &open)).await;
        let refused = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        // Said once, and tried again by the next round: the disk may be full for a while.
        let was_unkept = self.unkept.swap(refused.is_some(), Relaxed);
        if let Some(error) = refused
            && !was_unkept
        {
            tracing::error!(
                error,
                "what was taken back is not on the disk yet; a restart would forget it"
            );
        }
    }
}

/// What became of a release that was taken back.
enum Ended {
    /// The records say that it is over.
    Over,
    /// It was promoted before this was known here: what it brought is live, and has to be taken back itself.
    Live,
}

/// Ends a release in the records, at the instant when it ended in truth.
async fn take_back(
    store: &Store,
    release: WorkOrderId,
    taken: &TakenBack,
) -> Result<Ended, ReleaseError> {
    let mut tx = store.begin().await?;
    tx.lock_work_order(release).await?;
    let order = tx.get::<WorkOrder>(release).await?;
    let state = release_state(&order)?;
    if order.state == WorkOrderState::Promoted
        && tx
            .get::<Deployment>(order.deployment)
            .await?
            .live_work_order
            == Some(release)
    {
        return Ok(Ended::Live);
    }
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
    Ok(Ended::Over)
}

/// A release that stands in the way of what was taken back is over, too.
async fn give_way(
    store: &Store,
    active: WorkOrderId,
    taken: &TakenBack,
) -> Result<(), ReleaseError> {
    let order = store.get::<WorkOrder>(active).await?;
    if release_state(&order)?.is_armed() {
        take_back(store, active, taken).await?;
    }
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
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(&serde_json::to_vec(open)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, journal)?;
    let folder = journal.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
