//! From a model's name to where it runs.

pub mod load;
mod release;
pub mod split;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::absent::Absence;
use crate::access::Audience;
use crate::context::Principal;
use crate::metrics::Series;
use crate::remote::RemotePool;
pub use crate::replicas::{LocalModel, Replicas};
pub use release::{Entry, Release};

/// All deployments at one moment. Immutable: a change publishes a new table.
#[derive(Debug, Default)]
pub struct RouteTable {
    by_model: HashMap<Arc<str>, Served>,
    /// Those that are not hidden, in the order of the configuration.
    entries: Vec<Served>,
    /// What stands for them in listings.
    deployments: Vec<Arc<Deployment>>,
}

impl RouteTable {
    /// A table of these deployments, found by [`Deployment::name`].
    ///
    /// # Errors
    /// Two deployments have the same name.
    pub fn new<E: Into<Served>>(entries: Vec<E>) -> Result<Self, RouteError> {
        let mut entries: Vec<Served> = entries.into_iter().map(Into::into).collect();
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
            deployments: entries.iter().map(|it| it.stable()).cloned().collect(),
            entries,
        })
    }

    /// Those that are not hidden, to be published.
    pub(crate) fn into_entries(self) -> Vec<Served> {
        self.entries
    }

    /// What `model` leads to. O(1), no allocation.
    #[must_use]
    pub fn entry(&self, model: &str) -> Option<&Entry> {
        self.served(model).map(|served| &served.entry)
    }

    /// The same with who may use it.
    #[must_use]
    pub fn served(&self, model: &str) -> Option<&Served> {
        self.by_model.get(model)
    }

    /// What a request of `who` may use, of all that is not hidden; under release the stable ones. Without
    /// authentication there is nobody to tell apart, and that is everything.
    pub fn usable<'a>(
        &'a self,
        who: Option<&'a Principal>,
    ) -> impl Iterator<Item = &'a Arc<Deployment>> {
        let usable = move |served: &&'a Served| {
            who.is_none_or(|who| who.may_use(&served.stable().name, &served.audience))
        };
        self.entries.iter().filter(usable).map(|it| it.stable())
    }

    /// Who may use what, of all that is not hidden.
    pub fn all_served(&self) -> &[Served] {
        &self.entries
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
        self.entries.iter().flat_map(|it| it.revisions())
    }

    /// The releases under way.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.entries
            .iter()
            .filter_map(|served| match &served.entry {
                Entry::Released(release) => Some(release),
                Entry::Settled(_) => None,
            })
    }
}

/// What a name leads to, and for whom.
#[derive(Debug, Clone)]
pub struct Served {
    /// What it leads to.
    pub entry: Entry,
    /// Who may use it.
    pub audience: Arc<Audience>,
    /// Whether it leaves its name to the configuration, where that serves it too.
    pub yields: bool,
}

impl std::ops::Deref for Served {
    type Target = Entry;
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// As its deployment was loaded.
impl From<Entry> for Served {
    fn from(entry: Entry) -> Self {
        let audience = Arc::clone(&entry.stable().standing.audience);
        Self {
            entry,
            audience,
            yields: false,
        }
    }
}

impl From<Arc<Deployment>> for Served {
    fn from(deployment: Arc<Deployment>) -> Self {
        Entry::from(deployment).into()
    }
}

impl From<Arc<Release>> for Served {
    fn from(release: Arc<Release>) -> Self {
        Entry::from(release).into()
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
    /// Who may use it, unless whoever publishes it says otherwise; by default everybody.
    pub audience: Arc<Audience>,
}

impl Standing {
    /// Whether records speak of it, and not the configuration.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        !self.version.is_empty()
    }
}

/// Whose word a part of the route table is. A source replaces its own part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[deployment]]` in `sluice.toml`.
    File,
    /// What a control plane published; wins over the file where both use a name, unless it
    /// yields.
    Control,
    /// Revisions on trial.
    Trial,
}

/// The parts that a route table is put together from.
#[derive(Debug, Default)]
pub(crate) struct Parts([Vec<Served>; 3]);

impl Parts {
    pub(crate) fn replace(&mut self, source: Source, entries: Vec<Served>) {
        self.0[source as usize] = entries;
    }

    /// Names that one source serves.
    pub(crate) fn names(&self, source: Source) -> impl Iterator<Item = &Arc<str>> {
        self.0[source as usize].iter().map(|it| &it.stable().name)
    }

    /// The whole table.
    ///
    /// # Errors
    /// Two deployments of one source have the same name.
    pub(crate) fn table(&self) -> Result<RouteTable, RouteError> {
        let [file, control, trial] = &self.0;
        let name = |entry: &Served| Arc::clone(&entry.stable().name);
        let in_file: HashSet<Arc<str>> = file.iter().map(name).collect();
        let control = || {
            let wins = |it: &&Served| !it.yields || !in_file.contains(&it.stable().name);
            control.iter().filter(wins)
        };
        let named: HashSet<Arc<str>> = control().map(name).collect();
        let all = file
            .iter()
            .filter(|entry| !named.contains(&entry.stable().name))
            .chain(control())
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
