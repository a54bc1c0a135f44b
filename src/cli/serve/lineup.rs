//! What is served now, and how a new configuration changes it (SIGHUP) while requests go on.
//!
//! Everything new is loaded before anything changes, and then published at once: a
//! configuration that is wrong anywhere changes nothing, and a request finds either
//! the old model or the new one, never none.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use sluice_gateway::Gateway;
use sluice_gateway::config::{AuthConfig, Config, DeploymentConfig};
use sluice_gateway::router::{Deployment, RouteTable, Served, Target, load};
use tokio::signal::unix::Signal;

use crate::cli::{in_full, output};

/// The deployments that are served, each with what it was made from.
pub(super) struct Lineup {
    gateway: Arc<Gateway>,
    /// In the order of the configuration.
    served: Vec<(DeploymentConfig, Arc<Deployment>)>,
}

/// What a new configuration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    loaded: usize,
    kept: usize,
    /// Gone, or replaced by one of the same name.
    dropped: usize,
    keys: usize,
}

impl Lineup {
    /// Nothing yet.
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            served: Vec::new(),
        }
    }

    /// Serves what `config` asks for. Deployments that stay as they are go on undisturbed.
    ///
    /// # Errors
    /// A deployment cannot be loaded or the keys cannot be used; nothing has changed then.
    pub(super) async fn change(&mut self, config: &Config) -> Result<Changed> {
        let mut next = Vec::with_capacity(config.deployments.len());
        let mut kept = 0;
        for wanted in &config.deployments {
            let deployment = match self.unchanged(wanted).await {
                Some(deployment) => {
                    kept += 1;
                    deployment
                }
                None => self.load(wanted).await?,
            };
            next.push((wanted.clone(), deployment));
        }
        let routes = RouteTable::new(next.iter().map(served).collect())?;
        let keys = self.gateway.reload_keys(&config.auth)?;
        self.gateway.publish(routes);
        let loaded = next.len() - kept;
        let old = std::mem::replace(&mut self.served, next);
        self.let_go(&old);
        Ok(Changed {
            loaded,
            kept,
            dropped: old.len() - kept,
            keys,
        })
    }

    /// What only waits for its last requests is not loaded again when it is lost.
    fn let_go(&self, old: &[(DeploymentConfig, Arc<Deployment>)]) {
        for (_, deployment) in old {
            let stays = self
                .served
                .iter()
                .any(|(_, it)| Arc::ptr_eq(it, deployment));
            if let (Target::Local(replicas), false) = (&deployment.target, stays) {
                replicas.set_wanted(false);
            }
        }
    }

    async fn unchanged(&self, wanted: &DeploymentConfig) -> Option<Arc<Deployment>> {
        let mut served = self.served.iter();
        let (_, deployment) = served.find(|(made_of, _)| made_of.loads_as(wanted))?;
        let current = load::is_current(wanted, deployment).await;
        current.then(|| Arc::clone(deployment))
    }

    async fn load(&self, wanted: &DeploymentConfig) -> Result<Arc<Deployment>> {
        let began = Instant::now();
        let deployment = load::deployment(&self.gateway, wanted).await?;
        output::note(format!(
            "Loaded {} (revision {}) in {:.1} s",
            deployment.name,
            deployment.revision,
            began.elapsed().as_secs_f64()
        ));
        Ok(deployment)
    }

    /// Reads the configuration again at every hang-up, for as long as the process lives.
    pub(super) async fn follow(mut self, mut hangups: Signal, read: impl Fn() -> Result<Config>) {
        while hangups.recv().await.is_some() {
            match self.reload(&read).await {
                Ok(changed) => tracing::info!(
                    loaded = changed.loaded,
                    kept = changed.kept,
                    dropped = changed.dropped,
                    keys = changed.keys,
                    "configuration read again"
                ),
                Err(error) => tracing::error!(
                    error = in_full(&error),
                    "configuration not read again, the old one stays"
                ),
            }
        }
    }

    async fn reload(&mut self, read: &impl Fn() -> Result<Config>) -> Result<Changed> {
        // Files are read for that, a model's graph among them.
        let config = tokio::task::block_in_place(read)?;
        let changed = self.change(&config).await?;
        let waiting = waiting_for_restart(self.gateway.config(), &config);
        if !waiting.is_empty() {
            let settings = waiting.join(", ");
            tracing::warn!(settings, "changed settings that wait for a restart");
        }
        Ok(changed)
    }
}

/// For whom the configuration serves it, which changes without loading anything.
fn served((config, deployment): &(DeploymentConfig, Arc<Deployment>)) -> Served {
    Served {
        audience: Arc::new(config.audience()),
        ..Served::from(Arc::clone(deployment))
    }
}

/// What differs and cannot change in a running process.
fn waiting_for_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let fixed = |auth: &AuthConfig| (auth.required, auth.open_metrics);
    [
        ("listen", old.listen != new.listen),
        ("data", old.data != new.data),
        ("[server]", old.server != new.server),
        ("[auth]", fixed(&old.auth) != fixed(&new.auth)),
        ("[limits]", old.limits != new.limits),
        ("[upstream]", old.upstream != new.upstream),
        ("[devices]", old.devices != new.devices),
        ("[replicas]", old.replicas != new.replicas),
        ("[metrics]", old.metrics != new.metrics),
        ("[log]", old.log != new.log),
        ("[sandbox]", old.sandbox != new.sandbox),
        ("[control]", old.control != new.control),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}
