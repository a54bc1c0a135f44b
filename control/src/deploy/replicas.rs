//! The models that this process holds for the control plane, and how much memory they take together.
//!
//! A replica is freed when nothing routes to it, no work order prepares it, and its last request has ended:
//! requests hold what they were routed to, so the count of a replica's owners tells.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sluice_engine::LoadError;
use sluice_engine::backend::onnx::{Bytes, Footprint};
use sluice_engine::folder::ModelFolder;
use sluice_gateway::Gateway;
use sluice_gateway::access::Audience;
use sluice_gateway::config::DeploymentConfig;
use sluice_gateway::router::load::DeployError;
use sluice_gateway::router::{Deployment as Routed, Standing, Target, load};

use super::Settings;
use crate::id::ArtifactId;
use crate::publish::clearance;
use crate::store::{LiveRevision, StoreError};

/// Where models come from. Implemented by the artifact store.
pub trait Artifacts: std::fmt::Debug + Send + Sync {
    /// A folder with exactly the files that `digest` names, verified. What was fetched before must be found again
    /// without the database.
    fn materialise<'a>(
        &'a self,
        artifact: Option<ArtifactId>,
        digest: &'a str,
    ) -> BoxFuture<'a, Result<Materialised, String>>;
}

/// An artifact on the local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialised {
    pub folder: PathBuf,
    pub bytes: u64,
}

/// A revision to be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// What it is held by: the id of the work order that made it, or the name of a revision on trial.
    pub key: Arc<str>,
    /// What requests give as their model.
    pub name: String,
    /// What `x-sluice-revision` says.
    pub revision: String,
    pub artifact: Option<ArtifactId>,
    pub digest: String,
    pub settings: Settings,
    pub standing: Standing,
}

impl Blueprint {
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn of(live: &LiveRevision) -> Result<Self, StoreError> {
        let settings = Settings::read(&live.snapshot)?;
        let order = live.origin().to_string();
        Ok(Self {
            name: settings.endpoint.clone(),
            revision: label(live.number, &order),
            artifact: live.artifact,
            digest: live.digest.clone(),
            standing: Standing {
                deployment: live.deployment.to_string().into(),
                version: live.version.to_string().into(),
                hidden: false,
                // Until the records say more, nobody else's.
                audience: Arc::new(Audience::of_department(
                    live.department.to_string(),
                    clearance(settings.clearance),
                )),
            },
            settings,
            key: order.into(),
        })
    }

    /// # Errors
    /// [`StoreError::Invalid`].
    pub(crate) fn config(&self, folder: &Path) -> Result<DeploymentConfig, StoreError> {
        self.settings.config(&self.name, folder, &self.revision)
    }
}

/// `v2-k3x9qa`: the version, and which work order's settings it is served by. The same version by other settings
/// is another revision, with series of its own.
pub(crate) fn label(number: i64, order: &str) -> String {
    let tail = order.len().saturating_sub(6);
    format!("v{number}-{}", &order[tail..])
}

/// Models in memory, by what they are held for.
#[derive(Debug)]
pub struct Replicas {
    gateway: Arc<Gateway>,
    artifacts: Arc<dyn Artifacts>,
    budget: u64,
    held: Mutex<HashMap<Arc<str>, Held>>,
    /// Keys of replicas that are kept as long as nobody needs their room.
    spare: Mutex<HashSet<Arc<str>>>,
    /// By artifact digest: what this process fetched and verified.
    copies: Mutex<HashMap<String, LocalCopy>>,
}

/// Where an artifact was found on this machine, to be loaded again without database and artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalCopy {
    pub(crate) folder: PathBuf,
    /// The engine's digest of the folder when it was fetched and verified.
    pub(crate) content: String,
}

/// What a replica is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Traffic reaches it, or soon will.
    Served,
    /// A work order or a trial is not finished with it.
    Pinned,
    /// It may be wanted back.
    Spare,
}

#[derive(Debug)]
struct Held {
    /// `None` while it is loaded.
    deployment: Option<Arc<Routed>>,
    name: String,
    /// Of the process's own memory.
    footprint: u64,
    /// GPUs that it lies on.
    gpus: Vec<u32>,
    /// A work order or a trial is not finished with it.
    pinned: bool,
}

impl Held {
    /// Whether its end would make room on one of these GPUs, or without any in the process's memory.
    fn takes_room_of(&self, gpus: &[u32]) -> bool {
        match gpus {
            [] => self.footprint > 0,
            gpus => self.gpus.iter().any(|gpu| gpus.contains(gpu)),
        }
    }

    /// Whether no work order, no trial and no request needs it.
    fn is_idle(&self) -> bool {
        let deployment = self.deployment.as_ref();
        !self.pinned && deployment.is_some_and(|it| Arc::strong_count(it) == 1)
    }
}

impl Replicas {
    /// `budget` bounds weights and K/V of all replicas together, in bytes.
    pub fn new(gateway: Arc<Gateway>, artifacts: Arc<dyn Artifacts>, budget: u64) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            artifacts,
            budget,
            held: Mutex::default(),
            spare: Mutex::default(),
            copies: Mutex::default(),
        })
    }

    /// The replica, once it is loaded.
    pub fn get(&self, key: &str) -> Option<Arc<Routed>> {
        self.held.lock().get(key)?.deployment.clone()
    }

    /// Pins a replica, if it is loaded.
    pub(crate) fn pin_if_loaded(&self, key: &str) -> bool {
        let mut held = self.held.lock();
        match held.get_mut(key) {
            Some(held) if held.deployment.is_some() => {
                held.pinned = true;
                true
            }
            _ => false,
        }
    }

    /// Bytes of all replicas, loaded or being loaded.
    pub fn in_use(&self) -> u64 {
        self.held.lock().values().map(|held| held.footprint).sum()
    }

    /// How many there are, loaded or being loaded.
    pub fn count(&self) -> usize {
        self.held.lock().len()
    }

    /// # Errors
    /// Why the artifact cannot be had, in words.
    pub(crate) async fn fetch(&self, blueprint: &Blueprint) -> Result<Materialised, String> {
        let fetching = self
            .artifacts
            .materialise(blueprint.artifact, &blueprint.digest);
        fetching.await
    }

    /// Reads what was fetched, and remembers what it found.
    ///
    /// # Errors
    /// It is no model folder, or cannot be read.
    pub(crate) async fn verify(&self, digest: &str, folder: &Path) -> Result<LocalCopy, String> {
        let copy = LocalCopy {
            content: content(folder).await?,
            folder: folder.to_path_buf(),
        };
        self.copies.lock().insert(digest.to_owned(), copy.clone());
        Ok(copy)
    }

    pub(crate) fn copy_of(&self, digest: &str) -> Option<LocalCopy> {
        self.copies.lock().get(digest).cloned()
    }

    /// Sums the memory, loads, and holds it: pinned until [`Replicas::unpin`] if a work order or a trial asks. What is
    /// there already is not loaded again; what is spare makes room.
    ///
    /// # Errors
    /// Why not, in words, with the sum where it does not fit.
    pub(crate) async fn load(
        &self,
        blueprint: &Blueprint,
        folder: &Path,
        need: Need,
    ) -> Result<(Arc<Routed>, Footprint), String> {
        let config = blueprint
            .config(folder)
            .map_err(|error| error.to_string())?;
        let gpus: Vec<u32> = config.places().into_iter().flatten().collect();
        let footprint = self.measure(&config, &gpus, need).await?;
        let mut place = match self.reserve(blueprint, footprint, gpus, need)? {
            Reserved::There(deployment) => return Ok((deployment, footprint)),
            Reserved::Place(place) => place,
        };
        // As it was summed, whatever the machine has left by now.
        let config = DeploymentConfig {
            slots: Some(footprint.slots)
                .filter(|slots| *slots > 0)
                .or(config.slots),
            context: Some(footprint.capacity)
                .filter(|capacity| *capacity > 0)
                .or(config.context),
            // Of what has no slots it stays the limit.
            memory: config.memory.filter(|_| footprint.slots == 0),
            ..config
        };
        let deployment = load::deployment_as(&self.gateway, &config, blueprint.standing.clone())
            .await
            .map_err(|error| error.to_string())?;
        place.fill(Arc::clone(&deployment));
        Ok((deployment, footprint))
    }

    /// What a replica would take, after the GPUs' ledger was asked.
    async fn measure(
        &self,
        config: &DeploymentConfig,
        gpus: &[u32],
        need: Need,
    ) -> Result<Footprint, String> {
        let sum = || load::footprint(&self.gateway, config);
        self.sum_up(sum, gpus, need).await
    }

    /// Sums until it fits: as long as GPUs have no room, what is spare there goes first, one by one.
    async fn sum_up<S>(
        &self,
        sum: impl Fn() -> S,
        gpus: &[u32],
        need: Need,
    ) -> Result<Footprint, String>
    where
        S: Future<Output = Result<Footprint, DeployError>>,
    {
        loop {
            match sum().await {
                Ok(footprint) => return Ok(footprint),
                Err(error) if lacks_room(&error, gpus, need) && self.free_one(gpus) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// What lies on GPUs is in their ledger, which is asked before anything is loaded; what does not is counted here.
    fn reserve(
        &self,
        blueprint: &Blueprint,
        footprint: Footprint,
        gpus: Vec<u32>,
        need: Need,
    ) -> Result<Reserved<'_>, String> {
        let pinned = need == Need::Pinned;
        let host = if gpus.is_empty() {
            footprint.total()
        } else {
            0
        };
        let mut held = self.held.lock();
        if let Some(there) = held.get_mut(&blueprint.key) {
            there.pinned |= pinned;
            return match &there.deployment {
                Some(deployment) => Ok(Reserved::There(Arc::clone(deployment))),
                None => Err(format!("{} is being loaded already", blueprint.name)),
            };
        }
        if need != Need::Spare {
            self.make_room(&mut held, host);
        }
        let others: u64 = held.values().map(|held| held.footprint).sum();
        if others.saturating_add(host) > self.budget {
            let mut sum: Vec<_> = held
                .values()
                .map(|held| format!("{} {}", held.name, Bytes(held.footprint)))
                .collect();
            sum.sort();
            sum.push(format!(
                "{} {} (weights {} + K/V {})",
                blueprint.name,
                Bytes(footprint.total()),
                Bytes(footprint.weights),
                Bytes(footprint.kv)
            ));
            return Err(format!(
                "it does not fit: {} = {} > budget {} for all models of this process",
                sum.join(" + "),
                Bytes(others.saturating_add(footprint.total())),
                Bytes(self.budget)
            ));
        }
        let entry = Held {
            deployment: None,
            name: format!("{} {}", blueprint.name, blueprint.revision),
            footprint: host,
            gpus,
            pinned,
        };
        held.insert(Arc::clone(&blueprint.key), entry);
        Ok(Reserved::Place(Place {
            replicas: self,
            key: Arc::clone(&blueprint.key),
            filled: false,
        }))
    }

    /// Frees what is spare and used by no request, until `wanted` bytes fit.
    fn make_room(&self, held: &mut HashMap<Arc<str>, Held>, wanted: u64) {
        let taken =
            |held: &HashMap<Arc<str>, Held>| held.values().map(|it| it.footprint).sum::<u64>();
        while taken(held).saturating_add(wanted) > self.budget {
            if !self.free_one_of(held, &[]) {
                return;
            }
        }
    }

    /// Frees one spare replica that no request uses, if there is one on these GPUs.
    fn free_one(&self, gpus: &[u32]) -> bool {
        self.free_one_of(&mut self.held.lock(), gpus)
    }

    fn free_one_of(&self, held: &mut HashMap<Arc<str>, Held>, gpus: &[u32]) -> bool {
        let is_free = |held: &Held| held.is_idle() && held.takes_room_of(gpus);
        let spare = self.spare.lock();
        let free = spare.iter().find(|key| held.get(*key).is_some_and(is_free));
        let Some(gone) = free.and_then(|key| held.remove(key)) else {
            return false;
        };
        tracing::info!(
            replica = gone.name,
            "no longer kept warm: its room is needed"
        );
        true
    }

    /// What is kept as long as nobody needs its room.
    pub(crate) fn set_spare(&self, keys: &[Arc<str>]) {
        *self.spare.lock() = keys.iter().cloned().collect();
    }

    /// Its work order is over, or its trial: it stays only while something routes to it.
    pub(crate) fn unpin(&self, key: &str) {
        if let Some(held) = self.held.lock().get_mut(key) {
            held.pinned = false;
        }
    }

    /// Frees what is neither pinned, nor in `routed`, nor used by a request any more. Returns how many wait for
    /// their requests.
    pub(crate) fn retire(&self, routed: &HashSet<Arc<str>>) -> usize {
        let mut waiting = 0;
        let mut freed = Vec::new();
        let mut held = self.held.lock();
        held.retain(|key, held| {
            let Some(deployment) = &held.deployment else {
                return true;
            };
            let wanted = held.pinned || routed.contains(key);
            // What only waits for its last requests is not loaded again when it is lost.
            if let Target::Local(replicas) = &deployment.target {
                replicas.set_wanted(wanted);
            }
            if wanted {
                return true;
            }
            if Arc::strong_count(deployment) > 1 {
                waiting += 1;
                return true;
            }
            freed.extend(held.deployment.take());
            false
        });
        drop(held);
        for deployment in freed {
            tracing::info!(deployment = %deployment.name, revision = %deployment.revision, "unloaded");
        }
        waiting
    }
}

/// Whether room on GPUs is what is missing, and others may be ended for it.
fn lacks_room(error: &DeployError, gpus: &[u32], need: Need) -> bool {
    let does_not_fit = matches!(
        error,
        DeployError::Load {
            source: LoadError::DoesNotFit { .. },
            ..
        }
    );
    does_not_fit && !gpus.is_empty() && need != Need::Spare
}

enum Reserved<'a> {
    There(Arc<Routed>),
    Place(Place<'a>),
}

/// Memory that is counted before it is taken. Dropped unfilled (the load failed, or was given up), it is free again.
struct Place<'a> {
    replicas: &'a Replicas,
    key: Arc<str>,
    filled: bool,
}

impl Place<'_> {
    fn fill(&mut self, deployment: Arc<Routed>) {
        if let Some(held) = self.replicas.held.lock().get_mut(&self.key) {
            held.deployment = Some(deployment);
            self.filled = true;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.replicas.held.lock().remove(&self.key);
        }
    }
}

/// The engine's digest of a model folder, `sha256:…`: what is compared when it is loaded again without
/// the artifact store.
pub(crate) async fn content(folder: &Path) -> Result<String, String> {
    let folder = folder.to_path_buf();
    let digest = move || ModelFolder::open(&folder)?.digest();
    match tokio::task::spawn_blocking(digest).await {
        Ok(Ok(digest)) => Ok(format!("sha256:{digest}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("reading it failed: {panic}")),
    }
}

#[cfg(test)]
mod tests;
