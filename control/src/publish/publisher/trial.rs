//! Revisions on trial, beside what is live.

use std::sync::Arc;

use sluice_gateway::router::{RouteError, Source};

use super::{Publisher, State};
use crate::deploy::Blueprint;
use crate::deploy::replicas::Need;
use crate::store::StoreError;

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
            .load(&blueprint, &folder, Need::Pinned)
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
