//! Bringing revisions into memory: what is served, what brakes lead to, what is kept warm; with tries that come apart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_gateway::router::Deployment as Routed;

use super::{Publisher, State};
use crate::deploy::replicas::{LocalCopy, Need};
use crate::deploy::{Blueprint, replicas};
use crate::publish::routes::Keyed;
use crate::publish::snapshot::PublishedWarm;
use crate::store::LiveRevision;
use crate::time::Timestamp;

/// A revision that could not be loaded, and when it is tried again.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    count: u32,
    again: Instant,
}

/// So many times a release's candidate is tried before the release is taken back.
const TRIES: u32 = 4;
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);

impl Publisher {
    /// Loads what brakes lead to that were on before a restart: a revision that is only kept warm. Returns whether
    /// one came.
    pub(super) async fn hold_braked(&self, state: &mut State) -> bool {
        let mut came = false;
        let warm = state.snapshot.warm.iter().map(|it| it.revision.clone());
        let earlier = state.snapshot.returns.iter().map(|it| it.revision.clone());
        for revision in warm.chain(earlier).collect::<Vec<_>>() {
            let key = revision.origin().to_string();
            if self.routes.is_braked_to(revision.deployment, &key) {
                self.held(state, &revision, &mut came).await;
            }
        }
        came
    }

    /// A revision's replica, loaded if it has to be.
    pub(super) async fn held(
        &self,
        state: &mut State,
        revision: &LiveRevision,
        loaded: &mut bool,
    ) -> Option<Keyed> {
        let blueprint = match Blueprint::of(revision) {
            Ok(blueprint) => blueprint,
            Err(error) => {
                tracing::error!(deployment = %revision.deployment, %error, "not published");
                return None;
            }
        };
        let replica = match self.replicas.get(&blueprint.key) {
            Some(replica) => replica,
            None => {
                let replica = self.load(state, &blueprint, Need::Served).await?;
                *loaded = true;
                replica
            }
        };
        Some(Keyed {
            key: blueprint.key,
            replica,
        })
    }

    /// Loads what is kept to be taken back to, where there is room, and says what may be freed for others.
    pub(super) async fn keep_warm(&self, state: &mut State) -> Vec<Arc<str>> {
        let now = Timestamp::now();
        let kept = |warm: &&PublishedWarm| now < warm.until;
        let warm: Vec<_> = state.snapshot.warm.iter().filter(kept).cloned().collect();
        let mut keys = Vec::new();
        for PublishedWarm { revision, .. } in warm {
            let Ok(blueprint) = Blueprint::of(&revision) else {
                continue;
            };
            keys.push(Arc::clone(&blueprint.key));
            self.replicas.set_spare(&keys);
            if self.replicas.get(&blueprint.key).is_none() {
                _ = self.load(state, &blueprint, Need::Spare).await;
            }
        }
        self.replicas.set_spare(&keys);
        keys
    }

    /// Loads what another process made live, or this one before it was restarted.
    pub(super) async fn load(
        &self,
        state: &mut State,
        blueprint: &Blueprint,
        need: Need,
    ) -> Option<Arc<Routed>> {
        let waits = |failure: &Failure| Instant::now() < failure.again;
        if state.failures.get(&blueprint.key).is_some_and(waits) {
            return None;
        }
        let (deployment, revision) = (&blueprint.name, &blueprint.revision);
        match self.try_load(state, blueprint, need).await {
            Ok(replica) => {
                state.failures.remove(&blueprint.key);
                self.given_up.lock().remove(&blueprint.key);
                tracing::info!(deployment, revision, "loaded");
                Some(replica)
            }
            Err(why) => {
                let count = state.failures.get(&blueprint.key).map_or(0, |it| it.count);
                let pause = (FIRST_RETRY * 2_u32.saturating_pow(count)).min(LAST_RETRY);
                let seconds = pause.as_secs();
                match need {
                    Need::Served | Need::Pinned => tracing::error!(
                        deployment,
                        revision,
                        why,
                        "a revision cannot be loaded; tried again in {seconds} s"
                    ),
                    Need::Spare => tracing::info!(
                        deployment,
                        revision,
                        why,
                        "not kept warm; tried again in {seconds} s"
                    ),
                }
                if count + 1 >= TRIES {
                    self.given_up
                        .lock()
                        .insert(Arc::clone(&blueprint.key), why.clone());
                }
                let failure = Failure {
                    why,
                    count: (count + 1).min(8),
                    again: Instant::now() + pause,
                };
                state.failures.insert(Arc::clone(&blueprint.key), failure);
                None
            }
        }
    }

    async fn try_load(
        &self,
        state: &State,
        blueprint: &Blueprint,
        need: Need,
    ) -> Result<Arc<Routed>, String> {
        if blueprint.settings.is_remote() {
            let nowhere = std::path::Path::new("");
            return Ok(self.replicas.load(blueprint, nowhere, need).await?.0);
        }
        let copy = self.local_copy(state, blueprint).await?;
        let (replica, _) = self.replicas.load(blueprint, &copy.folder, need).await?;
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
}
