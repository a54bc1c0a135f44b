//! From the configuration to deployments: models loaded, pools made.

mod recipe;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_engine::backend::FAILED_RUNS;
use sluice_engine::backend::onnx::{self, Footprint};
use sluice_engine::folder::{ModelFolder, ModelKind};
use sluice_engine::{LoadCanceller, LoadError};

use self::recipe::Recipe;
use super::{Deployment, Replicas, Standing, Target};
use crate::Gateway;
use crate::config::{DeploymentConfig, NotAllowed, ProviderConfig};
use crate::remote::{PoolError, RemotePool};
use crate::replicas::{Devices, Loader, RestartPolicy};

/// A deployment cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Its folder cannot be loaded.
    #[error("deployment `{name}`: {source}")]
    Load {
        /// Name of the deployment.
        name: String,
        /// Why.
        source: LoadError,
    },
    /// Its upstreams cannot be used.
    #[error("deployment `{name}`: {source}")]
    Pool {
        /// Name of the deployment.
        name: String,
        /// Why.
        source: PoolError,
    },
    /// A record asks for what it may not name.
    #[error("deployment `{name}`: engine_options.{field}: {problem}", field = source.field, problem = source.problem)]
    NotAllowed {
        /// Name of the deployment.
        name: String,
        /// What it may not name.
        source: NotAllowed,
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

/// Loads what a `[[deployment]]` asks for.
///
/// # Errors
/// [`DeployError`]
pub async fn deployment(
    gateway: &Gateway,
    config: &DeploymentConfig,
) -> Result<Arc<Deployment>, DeployError> {
    let standing = Standing {
        audience: Arc::new(config.audience()),
        ..Standing::default()
    };
    deployment_as(gateway, config, standing).await
}

/// The same for a control plane, which has records about it.
///
/// # Errors
/// [`DeployError`]
pub async fn deployment_as(
    gateway: &Gateway,
    config: &DeploymentConfig,
    standing: Standing,
) -> Result<Arc<Deployment>, DeployError> {
    if standing.is_recorded() {
        let allow = &gateway.config().control.allow;
        allow
            .check(config)
            .map_err(|source| DeployError::NotAllowed {
                name: config.name.clone(),
                source,
            })?;
    }
    match &config.path {
        None => remote(gateway, config, standing).await,
        Some(path) => local(gateway, config, path.clone(), standing).await,
    }
}

/// Loads a folder on each of its devices.
async fn local(
    gateway: &Gateway,
    config: &DeploymentConfig,
    path: PathBuf,
    standing: Standing,
) -> Result<Arc<Deployment>, DeployError> {
    let refused = |source| DeployError::Load {
        name: config.name.clone(),
        source,
    };
    let devices = Arc::clone(gateway.devices());
    let gpus: Vec<u32> = config.places().into_iter().flatten().collect();
    let mut recipe = Recipe {
        path,
        data: gateway.config().data.clone(),
        config: config.clone(),
        failed_runs: gateway.config().replicas.failed_runs,
        grammar: gateway.config().grammar.options(),
        template: gateway.config().templates.limits(),
        digest: String::new(),
    };
    let mut holding = None;
    if !gpus.is_empty() {
        let footprint = footprint(gateway, config).await?;
        let held = devices.hold(&config.name, footprint.total(), &gpus);
        let full = |sum| LoadError::DoesNotFit {
            model: config.name.clone(),
            sum,
        };
        holding = Some(held.map_err(|sum| refused(full(sum)))?);
        recipe.size_as(&footprint);
    }
    let mut turns = Vec::with_capacity(gpus.len());
    for &gpu in &gpus {
        turns.push(devices.loading(gpu).await);
    }
    // Reading and warming up takes seconds and must not hold the runtime's threads.
    let mut awaited = Awaited::default();
    let canceller = awaited.load.clone();
    let loading = tokio::task::spawn_blocking(move || canceller.during(|| recipe.load_all()));
    let loaded = match loading.await {
        Ok(loaded) => loaded,
        Err(panic) => Err(LoadError::Runtime(format!("loading failed: {panic}"))),
    };
    awaited.over = true;
    drop(turns);
    let (models, recipe) = loaded.map_err(refused)?;
    let revision = config.revision.clone();
    let revision = revision.unwrap_or_else(|| short(&recipe.digest).to_owned());
    let again: Loader = Arc::new(move |device| recipe.load_again(device));
    let policy = RestartPolicy::from(&gateway.config().replicas);
    let replicas = Replicas::supervised(&config.name, models, again, &policy, holding, &devices);
    let target = Target::Local(replicas);
    Ok(make(gateway, &config.name, &revision, target, standing))
}

/// Ends the load when nobody waits for it any more, as when a work order is aborted.
#[derive(Default)]
struct Awaited {
    load: LoadCanceller,
    over: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.over {
            self.load.cancel();
        }
    }
}

/// Whether a folder can be loaded as it is configured, as far as can be told without reading its weights. The error
/// comes with the field at fault.
///
/// # Errors
/// As [`deployment`], for the first thing that stands in the way.
pub fn check(config: &DeploymentConfig, data: &Path) -> Result<(), (&'static str, LoadError)> {
    let Some(path) = &config.path else {
        return Ok(());
    };
    let folder = ModelFolder::open(path).map_err(|error| ("path", error))?;
    folder.graph_files().map_err(|error| ("path", error))?;
    if let ModelKind::Generative(_) = &folder.kind {
        recipe::fit_to_generate(config).map_err(|error| ("provider", error))?;
    }
    recipe::find_runtime(config, data).map_err(|error| ("provider", error))?;
    match (config.provider, config.memory) {
        // What fits on a GPU depends on what lies there already.
        (ProviderConfig::Cpu, Some(_)) => {
            recipe::init(config, data).map_err(|error| ("provider", error))?;
            match measure(path, config, data) {
                Err(error @ LoadError::DoesNotFit { .. }) => Err(("memory", error)),
                Err(error) => Err(("path", error)),
                Ok(_) => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Whether a folder's files still are those that `loaded` was made of. Also true where
/// that is not for us to tell: of upstreams, and where `revision` is set by hand. What was
/// given up is to be loaded again.
pub async fn is_current(config: &DeploymentConfig, loaded: &Deployment) -> bool {
    if matches!(&loaded.target, Target::Local(replicas) if replicas.given_up()) {
        return false;
    }
    let (Some(path), None) = (config.path.clone(), &config.revision) else {
        return true;
    };
    let digest = move || ModelFolder::open(&path)?.digest();
    match tokio::task::spawn_blocking(digest).await {
        Ok(Ok(digest)) => short(&digest) == &*loaded.revision,
        // Loading it again will say what is wrong with it.
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Twelve hex digits tell versions apart and fit in a label.
fn short(digest: &str) -> &str {
    &digest[..12.min(digest.len())]
}

/// What each replica of a model would take of the memory if it were loaded now. Reads the
/// graph, not the weights. On GPUs what is not configured is chosen so that it fits beside
/// what is there.
///
/// # Errors
/// As [`deployment`]; [`LoadError::DoesNotFit`] with the sum when `config.memory`, or what
/// is left of the GPUs, is exceeded.
pub async fn footprint(
    gateway: &Gateway,
    config: &DeploymentConfig,
) -> Result<Footprint, DeployError> {
    let Some(path) = config.path.clone() else {
        return Ok(Footprint::default());
    };
    let (data, options) = (gateway.config().data.clone(), config.clone());
    let devices = Arc::clone(gateway.devices());
    let measuring = tokio::task::spawn_blocking(move || {
        recipe::init(&options, &data)?;
        match options.places().into_iter().flatten().collect::<Vec<_>>() {
            gpus if gpus.is_empty() => measure(&path, &options, &data),
            gpus => measure_on(&path, &options, &data, (&devices, &gpus)),
        }
    });
    let measured = match measuring.await {
        Ok(measured) => measured,
        Err(panic) => Err(LoadError::Runtime(format!("measuring failed: {panic}"))),
    };
    measured.map_err(|source| DeployError::Load {
        name: config.name.clone(),
        source,
    })
}

fn measure(path: &Path, config: &DeploymentConfig, data: &Path) -> Result<Footprint, LoadError> {
    let folder = ModelFolder::open(path)?;
    match &folder.kind {
        ModelKind::Generative(_) => {
            recipe::fit_to_generate(config)?;
            let options = recipe::language_options(config, data, None, FAILED_RUNS);
            onnx::footprint(path, &config.name, &options.onnx)
        }
        // Without K/V: what the graph's files weigh.
        ModelKind::Encoder(_) | ModelKind::Tensor { .. } => Ok(Footprint {
            weights: bytes(&folder.graph_files()?)?,
            ..Footprint::default()
        }),
    }
}

/// The same where it has to fit beside what the GPUs hold already.
fn measure_on(
    path: &Path,
    config: &DeploymentConfig,
    data: &Path,
    (devices, gpus): (&Devices, &[u32]),
) -> Result<Footprint, LoadError> {
    let room = devices
        .room(gpus)
        .map_err(|why| no_gpu(config.provider, &why))?;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let within = DeploymentConfig {
        memory: Some(config.memory.map_or(room, |memory| memory.min(room))),
        ..config.clone()
    };
    measure(path, &within, data).map_err(|error| match error {
        LoadError::DoesNotFit { model, sum } => LoadError::DoesNotFit {
            model,
            sum: format!("{sum} ({})", devices.describe(gpus)),
        },
        other => other,
    })
}

/// That there is no GPU to load on, and where to read what to install.
pub(crate) fn no_gpu(provider: ProviderConfig, why: &str) -> LoadError {
    let provider = match provider {
        ProviderConfig::Cpu => "CPU",
        ProviderConfig::Cuda => "CUDA",
        ProviderConfig::Tensorrt | ProviderConfig::TensorrtNative => "TensorRT",
    };
    LoadError::Runtime(format!(
        "the {provider} provider cannot be used: {why} (`sluice doctor` says what is missing)"
    ))
}

/// What these files weigh.
fn bytes(files: &[PathBuf]) -> Result<u64, LoadError> {
    let mut bytes = 0;
    for file in files {
        let known = file.metadata().map_err(|error| LoadError::Folder {
            path: file.clone(),
            reason: format!("cannot be read: {error}"),
        });
        bytes += known?.len();
    }
    Ok(bytes)
}

/// Makes the pool in front of upstreams.
async fn remote(
    gateway: &Gateway,
    config: &DeploymentConfig,
    standing: Standing,
) -> Result<Arc<Deployment>, DeployError> {
    let key = match &config.api_key_env {
        None => None,
        Some(variable) => Some(std::env::var(variable).map_err(|_| DeployError::NoKey {
            name: config.name.clone(),
            variable: variable.clone(),
        })?),
    };
    // Names are looked at again whenever they are resolved.
    let reach = standing
        .is_recorded()
        .then(|| gateway.config().control.allow.reach());
    let pool = RemotePool::within(
        &config.upstream,
        config.model.as_deref(),
        key.as_deref(),
        &gateway.config().upstream,
        reach.as_ref(),
    )
    .await
    .map_err(|source| DeployError::Pool {
        name: config.name.clone(),
        source,
    })?;
    let revision = config.revision.as_deref().unwrap_or("remote");
    let target = Target::Remote(pool.keeping_model_name(config.keep_model_name));
    Ok(make(gateway, &config.name, revision, target, standing))
}

/// A deployment that begins now.
#[must_use]
pub fn make(
    gateway: &Gateway,
    name: &str,
    revision: &str,
    target: Target,
    standing: Standing,
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
        standing,
    })
}
