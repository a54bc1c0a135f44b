//! What the control plane routes to, and the brakes on it.
//!
//! The publisher says what the records want. A brake says that a revision alone is to answer, whatever they want: it
//! takes hold in the one lock and the one store of a pointer that are here, with no database, no file and no
//! model to wait for, so that it may be pulled from the thread that sees a request end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use sluice_gateway::Gateway;
use sluice_gateway::access::Audience;
use sluice_gateway::metrics::TakenBack as Cause;
use sluice_gateway::router::{
    Deployment as Routed, Entry, Release as Split, RouteError, Served, Source,
};

use crate::deploy::Replicas;
use crate::id::DeploymentId;

/// The control plane's part of the route table.
#[derive(Debug)]
pub struct Routes {
    gateway: Arc<Gateway>,
    replicas: Arc<Replicas>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: BTreeMap<DeploymentId, Place>,
    /// By deployment: the key of the revision that is to answer alone.
    brakes: HashMap<DeploymentId, Arc<str>>,
}

/// A replica by the key that it is held by.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: Arc<str>,
    pub(crate) replica: Arc<Routed>,
}

/// What the records want a deployment's name to lead to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) stable: Keyed,
    /// Loaded for a release that is not over.
    pub(crate) candidate: Option<Keyed>,
    /// While requests are divided between the two.
    pub(crate) split: Option<Arc<Split>>,
    /// Who may use it.
    pub(crate) audience: Arc<Audience>,
    /// It leaves a name to the configuration that serves it.
    pub(crate) yields: bool,
}

/// A brake that cannot take hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrakeError {
    #[error("this process routes nothing for the deployment")]
    NotRouted,
    #[error("the revision is not loaded here")]
    NotLoaded,
}

impl Place {
    /// Nothing but one revision.
    pub(crate) fn alone(stable: Keyed) -> Self {
        Self {
            audience: Arc::clone(&stable.replica.standing.audience),
            yields: false,
            stable,
            candidate: None,
            split: None,
        }
    }

    fn leads_to_the_same(&self, other: &Self) -> bool {
        let candidate = |it: &Self| it.candidate.as_ref().map(|it| Arc::clone(&it.key));
        let split = |it: &Self| {
            let split = it.split.as_ref()?;
            let by = split.split();
            Some((Arc::clone(split.id()), by.weight(), by.shadow()))
        };
        self.stable.key == other.stable.key
            && self.audience == other.audience
            && self.yields == other.yields
            && candidate(self) == candidate(other)
            && split(self) == split(other)
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        let candidate = self.candidate.as_ref().map(|it| &it.key);
        [&self.stable.key].into_iter().chain(candidate)
    }
}

impl Routes {
    pub fn new(gateway: Arc<Gateway>, replicas: Arc<Replicas>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            replicas,
            table: Mutex::default(),
        })
    }

    pub(crate) fn place(&self, deployment: DeploymentId) -> Option<Place> {
        self.table.lock().places.get(&deployment).cloned()
    }

    /// Keys of everything that traffic reaches or may soon reach.
    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        let table = self.table.lock();
        let places = table.places.values().flat_map(Place::keys);
        places.chain(table.brakes.values()).cloned().collect()
    }

    /// Swaps the table once, if it leads anywhere else than before.
    pub(crate) fn publish(&self, places: BTreeMap<DeploymentId, Place>) {
        let mut table = self.table.lock();
        let same = places.len() == table.places.len()
            && places.iter().all(|(id, place)| {
                let old = table.places.get(id);
                old.is_some_and(|old| old.leads_to_the_same(place))
            });
        if same {
            return;
        }
        let before = std::mem::replace(&mut table.places, places);
        if let Err(error) = self.swap(&table) {
            tracing::error!(%error, "the routes stay as they are");
            table.places = before;
        }
    }

    /// The revision that answers for a deployment now; of a release the stable one.
    pub fn answering(&self, deployment: DeploymentId) -> Option<String> {
        let table = self.table.lock();
        let place = table.places.get(&deployment)?;
        let braked = table.brakes.get(&deployment);
        let alone = braked.and_then(|key| self.replica(place, key));
        let replica = alone.unwrap_or_else(|| Arc::clone(&place.stable.replica));
        Some(replica.revision.to_string())
    }

    /// From now on no new request reaches another revision of the deployment than the one of `key`.
    ///
    /// # Errors
    /// [`BrakeError`]; everything stays as it is.
    pub fn brake(&self, deployment: DeploymentId, key: &Arc<str>) -> Result<(), BrakeError> {
        let mut table = self.table.lock();
        let place = table.places.get(&deployment).ok_or(BrakeError::NotRouted)?;
        self.replica(place, key).ok_or(BrakeError::NotLoaded)?;
        let before = table.brakes.insert(deployment, Arc::clone(key));
        if before.as_ref() == Some(key) {
            return Ok(());
        }
        self.swap(&table).map_err(|error| {
            tracing::error!(%error, "a brake did not take hold");
            BrakeError::NotRouted
        })
    }

    /// As [`Routes::brake`], also where the revision is not loaded here: then it takes hold as soon as it is. Whether it
    /// holds now.
    pub(crate) fn brake_when_loaded(&self, deployment: DeploymentId, key: &Arc<str>) -> bool {
        let mut table = self.table.lock();
        table.brakes.insert(deployment, Arc::clone(key));
        let place = table.places.get(&deployment);
        let holds = place.is_some_and(|place| self.replica(place, key).is_some());
        if let Err(error) = self.swap(&table) {
            tracing::error!(%error, "a brake did not take hold");
            return false;
        }
        holds
    }

    /// Counts what was taken back.
    pub(crate) fn count(&self, cause: Cause) {
        self.gateway.metrics().taken_back(cause);
    }

    /// Pulls a brake that was on before the process was restarted: it takes hold with the first publication.
    pub(crate) fn brake_from_the_start(&self, deployment: DeploymentId, key: Arc<str>) {
        self.table.lock().brakes.insert(deployment, key);
    }

    /// The records say the same by now, or something newer.
    pub(crate) fn let_go(&self, deployment: DeploymentId) {
        let mut table = self.table.lock();
        if table.brakes.remove(&deployment).is_some()
            && let Err(error) = self.swap(&table)
        {
            tracing::error!(%error, "the routes stay as they are");
        }
    }

    /// Whether a brake leads a deployment to the revision of `key`.
    pub(crate) fn is_braked_to(&self, deployment: DeploymentId, key: &str) -> bool {
        let table = self.table.lock();
        table.brakes.get(&deployment).is_some_and(|to| **to == *key)
    }

    /// A revision came that a brake leads to.
    pub(crate) fn renew(&self) {
        if let Err(error) = self.swap(&self.table.lock()) {
            tracing::error!(%error, "the routes stay as they are");
        }
    }

    fn replica(&self, place: &Place, key: &str) -> Option<Arc<Routed>> {
        let placed = [Some(&place.stable), place.candidate.as_ref()];
        let found = placed.into_iter().flatten().find(|it| *it.key == *key);
        found
            .map(|it| Arc::clone(&it.replica))
            .or_else(|| self.replicas.get(key))
    }

    fn swap(&self, table: &Table) -> Result<(), RouteError> {
        let entry = |id: &DeploymentId, place: &Place| -> Entry {
            let braked = table.brakes.get(id);
            if let Some(alone) = braked.and_then(|key| self.replica(place, key)) {
                return alone.into();
            }
            match &place.split {
                Some(split) => Arc::clone(split).into(),
                None => Arc::clone(&place.stable.replica).into(),
            }
        };
        let served = |(id, place): (&DeploymentId, &Place)| Served {
            entry: entry(id, place),
            audience: Arc::clone(&place.audience),
            yields: place.yields,
        };
        let entries: Vec<Served> = table.places.iter().map(served).collect();
        self.gateway.publish_from(Source::Control, entries)
    }
}
