//! From a model's name to where it runs.

pub mod load;
mod release;
pub mod split;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::absent::Absence;
use crate::metrics::Series;
use crate::remote::RemotePool;
pub use crate::replicas::{LocalModel, Replicas};
pub use release::{Entry, Release};

/// All deployments at one moment. Immutable: a change publishes a new table.
#[derive(Debug, Default)]
pub struct RouteTable {
    by_model: HashMap<Arc<str>, Entry>,
    /// Those that are not hidden, in the order of the configuration.
    entries: Vec<Entry>,
    /// What stands for them in listings.
    deployments: Vec<Arc<Deployment>>,
}

impl RouteTable {
    /// A table of these deployments, found by [`Deployment::name`].
    ///
    /// # Errors
    /// Two deployments have the same name.
    pub fn new<E: Into<Entry>>(entries: Vec<E>) -> Result<Self, RouteError> {
        let mut entries: Vec<Entry> = entries.into_iter().map(Into::into).collect();
        let mut by_model = HashMap::with_capacity(entries.len());
        for entry in &entries {
            let name = &entry.stable().name;
            if by_model.insert(Arc::clone(name), entry.clone()).is_some() {
                return Err(RouteError::Duplicate(Arc::clone(name)));
            }
        }
        entries.retain(|entry| !entry.stable().standing.hidden);
        Ok(Self {
            by_model,
            deployments: entries.iter().map(Entry::stable).cloned().collect(),
            entries,
        })
    }

    /// Those that are not hidden, to be published.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// What `model` leads to. O(1), no allocation.
    #[must_use]
    pub fn entry(&self, model: &str) -> Option<&Entry> {
        self.by_model.get(model)
    }

    /// The deployment that serves `model`; under release the stable one. O(1), no allocation.
    #[must_use]
    pub fn find(&self, model: &str) -> Option<&Arc<Deployment>> {
        self.entry(model).map(Entry::stable)
    }

    /// All that are not hidden, in the order of the configuration; under release the
    /// stable ones.
    #[must_use]
    pub fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }

    /// The same with candidates after their stable ones.
    pub fn revisions(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.entries.iter().flat_map(Entry::revisions)
    }

    /// The releases under way.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Released(release) => Some(release),
            Entry::Settled(_) => None,
        })
    }
}

/// A named model as clients see it.
#[derive(Debug)]
pub struct Deployment {
    /// What clients send as `model`.
    pub name: Arc<str>,
    /// Which version of the model answers; goes out as `x-sluice-revision`.
    pub revision: Arc<str>,
    /// Where it runs.
    pub target: Target,
    /// Unix seconds, as `/v1/models` reports it.
    pub created: i64,
    /// Metric handles of this deployment and revision.
    pub series: Arc<Series>,
    /// What a control plane knows it as.
    pub standing: Standing,
}

/// What a control plane knows a deployment as. The data plane only passes it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Ids of the deployment and of the model's version in its records; empty for
    /// what only a configuration file knows.
    pub deployment: Arc<str>,
    /// As above.
    pub version: Arc<str>,
    /// Loaded for trial (`helpdesk@v2`): answers to its whole name and to operators
    /// only, is listed nowhere and counts as nobody's use.
    pub hidden: bool,
}

/// Whose word a part of the route table is. A source replaces its own part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[deployment]]` in `sluice.toml`.
    File,
    /// What a control plane published; wins over the file where both use a name.
    Control,
    /// Revisions on trial.
    Trial,
}

/// The parts that a route table is put together from.
#[derive(Debug, Default)]
pub(crate) struct Parts([Vec<Entry>; 3]);

impl Parts {
    pub(crate) fn replace(&mut self, source: Source, entries: Vec<Entry>) {
        self.0[source as usize] = entries;
    }

    /// The whole table.
    ///
    /// # Errors
    /// Two deployments of one source have the same name.
    pub(crate) fn table(&self) -> Result<RouteTable, RouteError> {
        let [file, control, trial] = &self.0;
        let name = |entry: &Entry| Arc::clone(&entry.stable().name);
        let named: HashSet<Arc<str>> = control.iter().map(name).collect();
        let all = file
            .iter()
            .filter(|entry| !named.contains(&entry.stable().name))
            .chain(control)
            .chain(trial);
        RouteTable::new(all.cloned().collect::<Vec<_>>())
    }
}

/// Where a deployment runs.
#[derive(Debug, Clone)]
pub enum Target {
    /// In this process.
    Local(Replicas),
    /// On OpenAI-compatible servers elsewhere.
    Remote(RemotePool),
}

impl From<LocalModel> for Target {
    fn from(model: LocalModel) -> Self {
        Self::Local(model.into())
    }
}

impl Target {
    /// The model in this process, to be asked about itself; whether it serves is another
    /// question.
    #[must_use]
    pub fn model(&self) -> Option<Arc<LocalModel>> {
        match self {
            Self::Local(replicas) => Some(replicas.model()),
            Self::Remote(_) => None,
        }
    }

    /// Whether requests wait for a place. Of upstreams that is not known.
    pub(crate) fn is_queueing(&self) -> bool {
        match self {
            Self::Local(replicas) => replicas.is_queueing(),
            Self::Remote(_) => false,
        }
    }
}

/// A model name led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No deployment has this name (404 `model_not_found`).
    #[error("the model does not exist")]
    NotFound,
    /// It exists, but not for this key. Answered like `NotFound`, so that keys
    /// cannot probe for names.
    #[error("the key may not use this model")]
    Forbidden,
    /// It is meant to be served here and is not (503).
    #[error("the model is not served at the moment")]
    Absent(Absence),
    /// Two deployments share a name.
    #[error("two deployments are named `{0}`; names must be unique")]
    Duplicate(Arc<str>),
    /// A release is of one name.
    #[error("the candidate of `{stable}` is named `{candidate}`; both must have one name")]
    OtherName {
        /// Name of the stable deployment.
        stable: Arc<str>,
        /// Name of the candidate.
        candidate: Arc<str>,
    },
    /// A release is of two revisions.
    #[error("stable and candidate of `{name}` are both revision `{revision}`; they must differ")]
    SameRevision {
        /// Name of the deployment.
        name: Arc<str>,
        /// The revision of both.
        revision: Arc<str>,
    },
}
