//! The round that makes the gateway do what the records say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_gateway::Gateway;
use sluice_gateway::router::{Deployment as Routed, RouteError, Source};
use tokio::sync::{Mutex, Notify};

use super::file::{Kept, SnapshotFile};
use super::keys::{Counters, entries};
use super::snapshot::Snapshot;
use crate::deploy::replicas::LocalCopy;
use crate::deploy::{Blueprint, Replicas, replicas};
use crate::id::{ApiKeyId, DeploymentId};
use crate::quota;
use crate::store::{LiveRevision, Store, StoreError};
use crate::time::Timestamp;

/// Publishes what the records say. Shared; rounds come one after the other.
#[derive(Debug)]
pub struct Publisher {
    gateway: Arc<Gateway>,
    replicas: Arc<Replicas>,
    file: SnapshotFile,
    state: Mutex<State>,
    /// Set once the database was opened: until then the file's snapshot stands.
    store: std::sync::OnceLock<Store>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Snapshot,
    copies: BTreeMap<String, LocalCopy>,
    counters: Counters,
    /// Keys that were published last.
    in_force: Vec<ApiKeyId>,
    keys_are_stale: bool,
    /// What traffic reaches now.
    routed: HashMap<DeploymentId, (Arc<str>, Arc<Routed>)>,
    trials: HashMap<Arc<str>, Arc<Routed>>,
    failures: HashMap<Arc<str>, Failure>,
    books_read: Option<Instant>,
    database_is_down: bool,
}

/// A revision that could not be loaded, and when it is tried again.
#[derive(Debug)]
struct Failure {
    count: u32,
    again: Instant,
}

/// How often the month's use is read from the ledger: what other processes serve is seen this late.
const BOOKS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);

impl Publisher {
    /// Knows the last snapshot's file, and no database yet. [`Publisher::restore`] serves what it says.
    pub fn new(gateway: Arc<Gateway>, replicas: Arc<Replicas>, file: SnapshotFile) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            replicas,
            file,
            state: Mutex::default(),
            store: std::sync::OnceLock::new(),
        })
    }

    /// Publishes the last snapshot of this machine, without a database. Returns when its models are loaded;
    /// one that cannot be loaded is said and left out.
    pub async fn restore(&self) {
        let mut state = self.state.lock().await;
        let Some(kept) = self.file.read() else {
            return;
        };
        state.copies = kept.copies;
        self.apply(&mut state, kept.snapshot).await;
    }

    /// From now on the records are followed.
    pub fn follow(&self, store: Store) {
        // The first is kept: there is one database.
        _ = self.store.set(store);
    }

    /// Rounds until `stop` is over: each second, and when woken.
    pub async fn run(&self, wake: &Notify, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            tokio::select! {
                () = self.tick() => {}
                () = &mut stop => return,
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(POLL) => {}
                () = &mut stop => return,
            }
        }
    }

    /// One round. Whatever goes wrong is said, and the next round tries again.
    pub async fn tick(&self) {
        let mut state = self.state.lock().await;
        let taken = match self.store.get() {
            Some(store) => Snapshot::take(store).await.map(Some),
            None => Ok(None),
        };
        let snapshot = match taken {
            Ok(Some(snapshot)) => {
                if std::mem::take(&mut state.database_is_down) {
                    tracing::info!("the database answers again; what is published follows it");
                }
                snapshot
            }
            Ok(None) => state.snapshot.clone(),
            Err(error) => {
                if !std::mem::replace(&mut state.database_is_down, true) {
                    tracing::warn!(%error, "the database does not answer; what is published stays");
                }
                state.snapshot.clone()
            }
        };
        self.apply(&mut state, snapshot).await;
        if !state.database_is_down {
            self.read_books(&mut state).await;
        }
    }

    async fn apply(&self, state: &mut State, snapshot: Snapshot) {
        let changed = snapshot != state.snapshot;
        if changed {
            state.counters.follow(&snapshot.quotas);
            state.snapshot = snapshot;
            state.keys_are_stale = true;
        }
        quota::begin_month(state.counters.iter().map(|(_, counter)| counter));
        self.publish_keys(state);
        let loaded = self.publish_routes(state).await;
        if changed || loaded {
            self.keep(state).await;
        }
    }

    /// Published again when they change, and when one expires.
    fn publish_keys(&self, state: &mut State) {
        let now = Timestamp::now();
        let in_force: Vec<ApiKeyId> = state
            .snapshot
            .keys
            .iter()
            .filter(|key| key.expires_at.is_none_or(|end| now < end))
            .map(|key| key.key)
            .collect();
        if !state.keys_are_stale && in_force == state.in_force {
            return;
        }
        let entries = entries(&state.snapshot, &state.counters, now);
        match self.gateway.publish_keys(entries) {
            Ok(()) => {
                state.in_force = in_force;
                state.keys_are_stale = false;
            }
            Err(error) => tracing::error!(%error, "the keys stay as they are"),
        }
    }

    /// Loads what is missing, then swaps the table once. Returns whether something was loaded.
    async fn publish_routes(&self, state: &mut State) -> bool {
        let mut next = HashMap::new();
        let mut loaded = false;
        for revision in state.snapshot.revisions.clone() {
            let blueprint = match Blueprint::of(&revision) {
                Ok(blueprint) => blueprint,
                Err(error) => {
                    tracing::error!(deployment = %revision.deployment, %error, "not published");
                    continue;
                }
            };
            let old = state.routed.get(&revision.deployment).cloned();
            let key = Arc::clone(&blueprint.key);
            let replica = match (&old, self.replicas.get(&key)) {
                (Some((routed, replica)), _) if *routed == key => Some(Arc::clone(replica)),
                (_, Some(replica)) => Some(replica),
                (_, None) => {
                    let replica = self.load(state, &blueprint).await;
                    loaded |= replica.is_some();
                    replica
                }
            };
            match (replica, old) {
                (Some(replica), _) => next.insert(revision.deployment, (key, replica)),
                // The predecessor goes on.
                (None, Some(old)) => next.insert(revision.deployment, old),
                (None, None) => None,
            };
        }
        let same = |next: &HashMap<DeploymentId, (Arc<str>, Arc<Routed>)>| {
            next.len() == state.routed.len()
                && next
                    .iter()
                    .all(|(id, (key, _))| state.routed.get(id).is_some_and(|(old, _)| old == key))
        };
        if !same(&next) {
            let mut table: Vec<_> = next.iter().collect();
            table.sort_by_key(|(id, _)| **id);
            let table = table
                .into_iter()
                .map(|(_, (_, it))| Arc::clone(it))
                .collect();
            match self.gateway.publish_from(Source::Control, table) {
                Ok(()) => state.routed = next,
                Err(error) => tracing::error!(%error, "the routes stay as they are"),
            }
        } else {
            drop(next);
        }
        let in_use: HashSet<Arc<str>> = state
            .routed
            .values()
            .map(|(key, _)| Arc::clone(key))
            .chain(state.trials.keys().cloned())
            .collect();
        // One owner is the table, one is `state`: the count of a routed one does not matter.
        self.replicas.retire(&in_use);
        loaded
    }

    /// Loads what another process made live, or this one before it was restarted.
    async fn load(&self, state: &mut State, blueprint: &Blueprint) -> Option<Arc<Routed>> {
        let waits = |failure: &Failure| Instant::now() < failure.again;
        if state.failures.get(&blueprint.key).is_some_and(waits) {
            return None;
        }
        match self.try_load(state, blueprint).await {
            Ok(replica) => {
                state.failures.remove(&blueprint.key);
                tracing::info!(
                    deployment = blueprint.name,
                    revision = blueprint.revision,
                    "loaded"
                );
                Some(replica)
            }
            Err(why) => {
                let count = state.failures.get(&blueprint.key).map_or(0, |it| it.count);
                let pause = (FIRST_RETRY * 2_u32.saturating_pow(count)).min(LAST_RETRY);
                tracing::error!(
                    deployment = blueprint.name,
                    revision = blueprint.revision,
                    why,
                    "a live revision cannot be loaded; tried again in {} s",
                    pause.as_secs()
                );
                let failure = Failure {
                    count: (count + 1).min(8),
                    again: Instant::now() + pause,
                };
                state.failures.insert(Arc::clone(&blueprint.key), failure);
                None
            }
        }
    }

    async fn try_load(&self, state: &State, blueprint: &Blueprint) -> Result<Arc<Routed>, String> {
        if blueprint.settings.is_remote() {
            let nowhere = std::path::Path::new("");
            return Ok(self.replicas.load(blueprint, nowhere, false).await?.0);
        }
        let copy = self.local_copy(state, blueprint).await?;
        let (replica, _) = self.replicas.load(blueprint, &copy.folder, false).await?;
        Ok(replica)
    }

    /// What was fetched before and still is what it was; else the artifact store's.
    async fn local_copy(&self, state: &State, blueprint: &Blueprint) -> Result<LocalCopy, String> {
        if let Some(copy) = state.copies.get(&blueprint.digest)
            && replicas::content(&copy.folder).await.as_ref() == Ok(&copy.content)
        {
            return Ok(copy.clone());
        }
        let fetched = self.replicas.fetch(blueprint).await?;
        self.replicas
            .verify(&blueprint.digest, &fetched.folder)
            .await
    }

    /// Writes the snapshot for the next start, with where its models lie.
    async fn keep(&self, state: &mut State) {
        let mut copies = BTreeMap::new();
        for LiveRevision { digest, .. } in &state.snapshot.revisions {
            let copy = self.replicas.copy_of(digest);
            if let Some(copy) = copy.or_else(|| state.copies.get(digest).cloned()) {
                copies.insert(digest.clone(), copy);
            }
        }
        state.copies = copies;
        let kept = Kept::new(state.snapshot.clone(), state.copies.clone());
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.write(&kept)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the snapshot for the next start was not written")
            }
            Err(panic) => {
                tracing::error!(%panic, "the snapshot for the next start was not written")
            }
        }
    }

    async fn read_books(&self, state: &mut State) {
        let (Some(store), true) = (
            self.store.get(),
            state.books_read.is_none_or(|at| at.elapsed() >= BOOKS),
        ) else {
            return;
        };
        match quota::read_books(store, state.counters.iter()).await {
            Ok(()) => state.books_read = Some(Instant::now()),
            Err(error) => tracing::warn!(%error, "the month's use could not be read"),
        }
    }
}

/// A revision on trial: loaded beside the live one and reachable by operators as `model@version`, until it is
/// ended. Its requests are in no deployment's series and nobody's use.
#[derive(Debug)]
pub struct Trial {
    /// What requests give as their model.
    pub name: Arc<str>,
    /// What answers say in `x-sluice-revision`.
    pub revision: Arc<str>,
}

/// A trial could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} is on trial already")]
    Taken(Arc<str>),
    #[error("{name}: {why}")]
    Load { name: Arc<str>, why: String },
}

impl Publisher {
    /// Loads a revision for evaluation. `blueprint.name` is `model@version`; its `standing` is replaced.
    ///
    /// # Errors
    /// It is on trial already, cannot be fetched, or does not fit beside the others.
    pub async fn begin_trial(&self, mut blueprint: Blueprint) -> Result<Trial, TrialError> {
        let name: Arc<str> = blueprint.name.as_str().into();
        blueprint.key = Arc::clone(&name);
        blueprint.standing.hidden = true;
        let failed = |why| TrialError::Load {
            name: Arc::clone(&name),
            why,
        };
        if self.state.lock().await.trials.contains_key(&name) {
            return Err(TrialError::Taken(name));
        }
        // Without the lock: publishing must not wait for a model to load.
        let folder = if blueprint.settings.is_remote() {
            std::path::PathBuf::new()
        } else {
            self.replicas
                .fetch(&blueprint)
                .await
                .map_err(failed)?
                .folder
        };
        let (replica, _) = self
            .replicas
            .load(&blueprint, &folder, true)
            .await
            .map_err(failed)?;
        let mut state = self.state.lock().await;
        let revision = Arc::clone(&replica.revision);
        state.trials.insert(Arc::clone(&name), replica);
        if let Err(error) = self.publish_trials(&state) {
            state.trials.remove(&name);
            self.replicas.unpin(&name);
            return Err(failed(error.to_string()));
        }
        Ok(Trial { name, revision })
    }

    /// Ends a trial; its requests in flight end as they would have.
    pub async fn end_trial(&self, trial: Trial) {
        let mut state = self.state.lock().await;
        state.trials.remove(&trial.name);
        if let Err(error) = self.publish_trials(&state) {
            tracing::error!(%error, "the routes stay as they are");
        }
        drop(state);
        self.replicas.unpin(&trial.name);
        self.tick().await;
    }

    fn publish_trials(&self, state: &State) -> Result<(), RouteError> {
        let trials = state.trials.values().cloned().collect();
        self.gateway.publish_from(Source::Trial, trials)
    }
}
