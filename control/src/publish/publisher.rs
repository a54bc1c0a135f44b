//! The round that makes the gateway do what the records say.

mod absent;
mod loading;
mod trial;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loading::Failure;
use sluice_gateway::Gateway;
use sluice_gateway::access::Audience;
use sluice_gateway::router::Release as Split;
use tokio::sync::{Mutex, Notify};
use trial::OnTrial;
pub use trial::{Trial, TrialError};

use super::file::{Kept, SnapshotFile};
use super::keys::{Counters, entries};
use super::pulse::Pulse;
use super::routes::{Keyed, Place, Routes};
use super::snapshot::{PublishedRelease, Snapshot};
use super::standing::clearance;
use crate::deploy::replicas::{LocalCopy, Need};
use crate::deploy::{Blueprint, Replicas};
use crate::id::ApiKeyId;
use crate::quota;
use crate::release::analysis::Share;
use crate::release::controller::{Watches, split};
use crate::sandbox::Hosts;
use crate::store::{DeploymentAudience, LiveRevision, Store};
use crate::time::Timestamp;

/// Publishes what the records say. Shared; rounds come one after the other.
#[derive(Debug)]
pub struct Publisher {
    gateway: Arc<Gateway>,
    replicas: Arc<Replicas>,
    /// Where models on trial are held.
    hosts: Arc<dyn Hosts>,
    routes: Arc<Routes>,
    watches: Arc<Watches>,
    file: SnapshotFile,
    state: Mutex<State>,
    /// Set once the database was opened: until then the file's snapshot stands.
    store: std::sync::OnceLock<Store>,
    pulse: Pulse,
    /// What was published last, for those who cannot wait for a model to load.
    published: parking_lot::Mutex<Arc<Snapshot>>,
    /// By key: why a revision was given up after some tries. It is tried again all the same.
    given_up: parking_lot::Mutex<HashMap<Arc<str>, String>>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Snapshot,
    copies: BTreeMap<String, LocalCopy>,
    counters: Counters,
    /// Keys that were published last.
    in_force: Vec<ApiKeyId>,
    keys_are_stale: bool,
    trials: HashMap<Arc<str>, OnTrial>,
    failures: HashMap<Arc<str>, Failure>,
    books_read: Option<Instant>,
    database_is_down: bool,
    /// The file on the disk is older than what is published: it could not be written.
    file_is_old: bool,
}

/// How often the month's use is read from the ledger: what other processes serve is seen this late.
const BOOKS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(1);
/// How long somebody who takes back waits for the upstreams of a revision to be looked up.
const REMOTE: Duration = Duration::from_millis(500);

impl Publisher {
    /// Knows the last snapshot's file, and no database yet. [`Publisher::restore`] serves what it says.
    pub fn new(
        gateway: Arc<Gateway>,
        replicas: Arc<Replicas>,
        hosts: Arc<dyn Hosts>,
        file: SnapshotFile,
    ) -> Arc<Self> {
        let routes = Routes::new(Arc::clone(&gateway), Arc::clone(&replicas));
        Arc::new(Self {
            gateway,
            replicas,
            hosts,
            watches: Watches::new(&routes),
            routes,
            file,
            state: Mutex::default(),
            store: std::sync::OnceLock::new(),
            pulse: Pulse::new(),
            published: parking_lot::Mutex::default(),
            given_up: parking_lot::Mutex::default(),
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
        self.gateway.set_unread(false);
        self.apply(&mut state, kept.snapshot).await;
    }

    /// The records as they are followed now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.lock())
    }

    /// Why a revision cannot be loaded here, after some tries.
    pub(crate) fn given_up(&self, key: &str) -> Option<String> {
        self.given_up.lock().get(key).cloned()
    }

    /// The control plane's part of the route table.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Those who watch the releases.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// From now on the records are followed.
    pub fn follow(&self, store: Store) {
        // The first is kept: there is one database.
        _ = self.store.set(store);
        self.pulse.set_away(false);
    }

    /// Whether the database answers.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Loads a revision that other servers compute, which takes no memory and no file, without waiting for a round.
    /// Whether it is loaded now.
    pub(crate) async fn bring(&self, revision: &LiveRevision) -> bool {
        let Ok(blueprint) = Blueprint::of(revision) else {
            return false;
        };
        if self.replicas.get(&blueprint.key).is_some() {
            return true;
        }
        if !blueprint.settings.is_remote() {
            return false;
        }
        let nowhere = std::path::Path::new("");
        let loading = self.replicas.load(&blueprint, nowhere, Need::Served);
        match tokio::time::timeout(REMOTE, loading).await {
            Ok(Ok(_)) => true,
            Ok(Err(why)) => {
                tracing::warn!(
                    revision = blueprint.revision,
                    why,
                    "cannot be taken back to"
                );
                false
            }
            Err(_) => false,
        }
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
        let file_key = |id: &str| self.gateway.file_key(id);
        let taken = match self.store.get() {
            // Whatever waits for this round does not wait for the database.
            Some(store) => tokio::select! {
                taken = Snapshot::take(store, &state.snapshot, &file_key) => {
                    taken.map(Some).map_err(|it| it.to_string())
                }
                () = self.pulse.lost() => Err("nothing was heard of it".to_owned()),
            },
            None => Ok(None),
        };
        let snapshot = match taken {
            Ok(Some(snapshot)) => {
                if std::mem::take(&mut state.database_is_down) {
                    tracing::info!("the database answers again; what is published follows it");
                }
                // Before it is loaded: what is to come is known from now on.
                self.tell_absent(&snapshot, &state.failures);
                self.gateway.set_unread(false);
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
            tokio::select! {
                () = self.read_books(&mut state) => {}
                () = self.pulse.lost() => {}
            }
        }
    }

    async fn apply(&self, state: &mut State, snapshot: Snapshot) {
        let changed = snapshot != state.snapshot;
        if changed {
            state.counters.follow(&snapshot.quotas);
            let file = |id: &str| self.gateway.file_key(id);
            state.counters.follow_keys(&snapshot.keys, &file);
            *self.published.lock() = Arc::new(snapshot.clone());
            state.snapshot = snapshot;
            state.keys_are_stale = true;
        }
        let of_keys = state.counters.of_keys().map(|(_, counter)| counter);
        quota::begin_month(
            state
                .counters
                .iter()
                .map(|(_, counter)| counter)
                .chain(of_keys),
        );
        self.publish_keys(state);
        // Before it takes hold: a process that is killed in between starts with what was on its way, not with what was
        // over. Where its models lie is known once they are loaded.
        if changed || state.file_is_old {
            self.keep(state).await;
        }
        if self.publish_routes(state).await {
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
        let mut places = BTreeMap::new();
        let mut loaded = false;
        for revision in state.snapshot.revisions.clone() {
            let id = revision.deployment;
            let released = state.snapshot.releases.iter();
            let release = released.clone().find(|it| it.candidate.deployment == id);
            let release = release.cloned();
            let mut stable = self.held(state, &revision, &mut loaded).await;
            let candidate = match &release {
                Some(release) => self.held(state, &release.candidate, &mut loaded).await,
                None => None,
            };
            // The predecessor goes on.
            stable = stable.or_else(|| Some(self.routes.place(id)?.stable));
            // All traffic was the candidate's already; only taking it back has to wait.
            if release
                .as_ref()
                .is_some_and(|it| it.state.share == Share::ALL)
            {
                stable = stable.or_else(|| candidate.clone());
            }
            if let Some(stable) = stable {
                let mut place = place(stable, candidate, release.as_ref());
                let audience = state.snapshot.audiences.iter();
                if let Some(audience) = audience.clone().find(|it| it.deployment == id) {
                    place.audience = Arc::new(told(audience));
                    place.yields = !audience.adopted;
                }
                places.insert(id, place);
            }
        }
        let came = self.hold_braked(state).await;
        self.watches.follow(&state.snapshot.releases, &places);
        self.routes.publish(places);
        if came {
            self.routes.renew();
        }
        self.tell_absent(&state.snapshot, &state.failures);
        let warm = self.keep_warm(state).await;
        let in_use: HashSet<Arc<str>> = self
            .routes
            .keys()
            .into_iter()
            .chain(state.trials.keys().cloned())
            .chain(warm)
            .collect();
        self.replicas.retire(&in_use);
        loaded || came
    }

    /// Writes the snapshot for the next start, with where its models lie.
    async fn keep(&self, state: &mut State) {
        let mut copies = BTreeMap::new();
        let snapshot = &state.snapshot;
        let candidates = snapshot.releases.iter().map(|it| &it.candidate);
        let warm = snapshot.warm.iter().map(|it| &it.revision);
        let earlier = snapshot.returns.iter().map(|it| &it.revision);
        let revisions = snapshot.revisions.iter();
        let revisions = revisions.chain(candidates).chain(warm).chain(earlier);
        for LiveRevision { digest, .. } in revisions {
            let copy = self.replicas.copy_of(digest);
            if let Some(copy) = copy.or_else(|| state.copies.get(digest).cloned()) {
                copies.insert(digest.clone(), copy);
            }
        }
        state.copies = copies;
        let kept = Kept::new(state.snapshot.clone(), state.copies.clone());
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.write(&kept)).await;
        let refused = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        // Once, not each second: the disk may be full for a while.
        let was_old = std::mem::replace(&mut state.file_is_old, refused.is_some());
        match refused {
            Some(error) if !was_old => {
                tracing::error!(
                    error,
                    "the snapshot for the next start was not written; tried again each second"
                )
            }
            None if was_old => tracing::info!("the snapshot for the next start is written again"),
            Some(_) | None => {}
        }
    }

    async fn read_books(&self, state: &mut State) {
        let (Some(store), true) = (
            self.store.get(),
            state.books_read.is_none_or(|at| at.elapsed() >= BOOKS),
        ) else {
            return;
        };
        let read = async {
            quota::read_books(store, state.counters.iter()).await?;
            quota::read_key_books(store, state.counters.of_keys()).await
        };
        match read.await {
            Ok(()) => state.books_read = Some(Instant::now()),
            Err(error) => tracing::warn!(%error, "the month's use could not be read"),
        }
    }
}

/// Who may use a deployment, in the gateway's terms.
pub(crate) fn told(audience: &DeploymentAudience) -> Audience {
    let people = audience.people.iter().map(|id| id.to_string().into());
    let file_keys = audience.file_keys.iter();
    let people = people.chain(file_keys.map(|id| format!("file:{id}").into()));
    let departments = audience.departments.iter();
    Audience::of_department(
        audience.department_name.as_str(),
        clearance(audience.clearance),
    )
    .opened(audience.open_to_all)
    .granted(
        people.collect(),
        departments.map(|name| name.as_str().into()).collect(),
    )
}

/// Where a deployment's name leads, by what is loaded.
fn place(stable: Keyed, candidate: Option<Keyed>, release: Option<&PublishedRelease>) -> Place {
    let mut place = Place::alone(stable);
    place.candidate = candidate;
    if let (Some(candidate), Some(release)) = (&place.candidate, release)
        && release.state.is_armed()
        && candidate.key != place.stable.key
    {
        let id = release.candidate.work_order.to_string();
        let made = split(&release.strategy, &release.state, &id)
            .map_err(|error| error.to_string())
            .and_then(|split| {
                let (stable, candidate) = (&place.stable.replica, &candidate.replica);
                Split::new(
                    id.as_str(),
                    Arc::clone(stable),
                    Arc::clone(candidate),
                    split,
                )
                .map_err(|error| error.to_string())
            });
        match made {
            Ok(made) => place.split = Some(Arc::new(made)),
            Err(error) => tracing::error!(release = id, error, "stable gets all of the traffic"),
        }
    }
    place
}
