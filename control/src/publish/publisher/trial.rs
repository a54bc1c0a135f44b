//! Revisions on trial, beside what is live.

use std::path::Path;
use std::sync::Arc;

use sluice_gateway::router::{Deployment as Routed, RouteError, Source, load};

use super::{Publisher, State};
use crate::deploy::Blueprint;
use crate::deploy::replicas::Need;
use crate::sandbox::render::SharedRenderer;
use crate::sandbox::{Ended, Shared};
use crate::store::StoreError;

/// A revision on trial: held beside the live one and reachable by operators as `model@version`, until it is
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
    /// Its process ended before it answered.
    #[error("{name}: {ended}")]
    Ended { name: Arc<str>, ended: Ended },
}

/// What is on trial, and what holds it: nothing of this process where other servers do.
#[derive(Debug, Clone)]
pub(super) struct OnTrial {
    routed: Arc<Routed>,
    hosted: Option<Shared>,
}

impl Publisher {
    /// Loads a revision for evaluation, in a process of its own: nobody has approved it. `blueprint.name` is
    /// `model@version`; its `standing` is replaced.
    ///
    /// # Errors
    /// It is on trial already, cannot be fetched, or its process ended before it answered.
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
        let on_trial = if blueprint.settings.is_remote() {
            let none = Path::new("");
            let loading = self.replicas.load(&blueprint, none, Need::Pinned);
            let (routed, _) = loading.await.map_err(failed)?;
            OnTrial {
                routed,
                hosted: None,
            }
        } else {
            self.held_by_a_process(&blueprint, &name).await?
        };
        let mut state = self.state.lock().await;
        let revision = Arc::clone(&on_trial.routed.revision);
        state.trials.insert(Arc::clone(&name), on_trial);
        if let Err(error) = self.publish_trials(&state) {
            state.trials.remove(&name);
            self.replicas.unpin(&name);
            return Err(failed(error.to_string()));
        }
        Ok(Trial { name, revision })
    }

    async fn held_by_a_process(
        &self,
        blueprint: &Blueprint,
        name: &Arc<str>,
    ) -> Result<OnTrial, TrialError> {
        let failed = |why| TrialError::Load {
            name: Arc::clone(name),
            why,
        };
        let fetched = self.replicas.fetch(blueprint).await.map_err(failed)?;
        let mut config = blueprint.config(&fetched.folder)?;
        let allow = &self.gateway.config().control.allow;
        let allowed = allow.check(&config);
        allowed.map_err(|refused| failed(refused.to_string()))?;
        // The child says what the folder's content is; how the revision is called is said here.
        config.revision = None;
        let hosted = self.hosts.start(config).await;
        let hosted = hosted.map_err(|ended| TrialError::Ended {
            name: Arc::clone(name),
            ended,
        })?;
        let Some(target) = hosted.target.clone() else {
            return Err(failed("its process holds no model".into()));
        };
        let routed = load::make(
            &self.gateway,
            &blueprint.name,
            &blueprint.revision,
            target,
            blueprint.standing.clone(),
        );
        Ok(OnTrial {
            routed,
            hosted: Some(Arc::new(hosted)),
        })
    }

    /// Something that renders prompts for a run.
    ///
    /// # Errors
    /// Its process cannot be started.
    pub async fn renderer(&self) -> Result<SharedRenderer, Ended> {
        self.hosts.renderer().await
    }

    /// The process that holds what is on trial under this name; it lives as long as what this returns.
    pub async fn on_trial(&self, name: &str) -> Option<Shared> {
        self.state.lock().await.trials.get(name)?.hosted.clone()
    }

    /// Ends a trial; its requests in flight end as they would have.
    pub async fn end_trial(&self, trial: Trial) {
        let mut state = self.state.lock().await;
        let ended = state.trials.remove(&trial.name);
        if let Err(error) = self.publish_trials(&state) {
            tracing::error!(%error, "the routes stay as they are");
        }
        drop(state);
        drop(ended);
        self.replicas.unpin(&trial.name);
        self.tick().await;
    }

    fn publish_trials(&self, state: &State) -> Result<(), RouteError> {
        let trials = state.trials.values().map(|it| Arc::clone(&it.routed));
        self.gateway
            .publish_from(Source::Trial, trials.collect::<Vec<_>>())
    }
}
