//! Two revisions behind one name.

use std::sync::Arc;

use super::split::{Side, Split};
use super::{Deployment, RouteError};

/// A deployment between two revisions. Immutable: a step publishes another one.
#[derive(Debug, Clone)]
pub struct Release {
    id: Arc<str>,
    stable: Arc<Deployment>,
    candidate: Arc<Deployment>,
    split: Split,
}

impl Release {
    /// A release of `candidate` in the place of `stable`; `id` is what a control plane's
    /// records call it.
    ///
    /// # Errors
    /// The two have different names, or the same revision: answers could not be told apart.
    pub fn new(
        id: impl Into<Arc<str>>,
        stable: Arc<Deployment>,
        candidate: Arc<Deployment>,
        split: Split,
    ) -> Result<Self, RouteError> {
        if stable.name != candidate.name {
            return Err(RouteError::OtherName {
                stable: Arc::clone(&stable.name),
                candidate: Arc::clone(&candidate.name),
            });
        }
        if stable.revision == candidate.revision {
            return Err(RouteError::SameRevision {
                name: Arc::clone(&stable.name),
                revision: Arc::clone(&stable.revision),
            });
        }
        Ok(Self {
            id: id.into(),
            stable,
            candidate,
            split,
        })
    }

    /// The same release with another split.
    #[must_use]
    pub fn with_split(&self, split: Split) -> Self {
        Self {
            split,
            ..self.clone()
        }
    }

    /// What a control plane's records call it.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The revision that is to be replaced.
    #[must_use]
    pub fn stable(&self) -> &Arc<Deployment> {
        &self.stable
    }

    /// The revision that may replace it.
    #[must_use]
    pub fn candidate(&self) -> &Arc<Deployment> {
        &self.candidate
    }

    /// The revision of one side.
    #[must_use]
    pub fn side(&self, side: Side) -> &Arc<Deployment> {
        match side {
            Side::Stable => &self.stable,
            Side::Candidate => &self.candidate,
        }
    }

    /// How the traffic is divided.
    #[must_use]
    pub fn split(&self) -> &Split {
        &self.split
    }
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub enum Entry {
    /// One revision.
    Settled(Arc<Deployment>),
    /// Two, between which a release divides the traffic.
    Released(Arc<Release>),
}

impl Entry {
    /// The revision that stands for the name in listings: under release the stable one.
    #[must_use]
    pub fn stable(&self) -> &Arc<Deployment> {
        match self {
            Self::Settled(deployment) => deployment,
            Self::Released(release) => &release.stable,
        }
    }

    /// All revisions that answer, the stable one first.
    pub fn revisions(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let candidate = match self {
            Self::Settled(_) => None,
            Self::Released(release) => Some(&release.candidate),
        };
        [self.stable()].into_iter().chain(candidate)
    }
}

impl From<Arc<Deployment>> for Entry {
    fn from(deployment: Arc<Deployment>) -> Self {
        Self::Settled(deployment)
    }
}

impl From<Arc<Release>> for Entry {
    fn from(release: Arc<Release>) -> Self {
        Self::Released(release)
    }
}
