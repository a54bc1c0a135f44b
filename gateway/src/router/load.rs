//! From the configuration to deployments: models loaded, pools made.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Deployment, Target};
use crate::Gateway;
use crate::config::DeploymentConfig;
use crate::remote::{PoolError, RemotePool};

/// A deployment cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Its upstreams cannot be used.
    #[error("deployment `{name}`: {source}")]
    Pool {
        /// Name of the deployment.
        name: String,
        /// Why.
        source: PoolError,
    },
    /// The variable that should hold the upstreams' key is not set.
    #[error("deployment `{name}`: the environment variable {variable} (api_key_env) is not set")]
    NoKey {
        /// Name of the deployment.
        name: String,
        /// Name of the variable.
        variable: String,
    },
}

/// A deployment in front of upstreams.
///
/// # Errors
/// [`DeployError`]
pub async fn remote(
    gateway: &Gateway,
    config: &DeploymentConfig,
) -> Result<Arc<Deployment>, DeployError> {
    let key = match &config.api_key_env {
        None => None,
        Some(variable) => Some(std::env::var(variable).map_err(|_| DeployError::NoKey {
            name: config.name.clone(),
            variable: variable.clone(),
        })?),
    };
    let pool = RemotePool::new(
        &config.upstream,
        config.model.as_deref(),
        key.as_deref(),
        &gateway.config().upstream,
    )
    .await
    .map_err(|source| DeployError::Pool {
        name: config.name.clone(),
        source,
    })?;
    let revision = config.revision.as_deref().unwrap_or("remote");
    Ok(deployment(
        gateway,
        &config.name,
        revision,
        Target::Remote(pool),
    ))
}

/// A deployment that begins now.
#[must_use]
pub fn deployment(
    gateway: &Gateway,
    name: &str,
    revision: &str,
    target: Target,
) -> Arc<Deployment> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Arc::new(Deployment {
        name: name.into(),
        revision: revision.into(),
        target,
        created: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        series: gateway.metrics().series(name, revision),
    })
}
