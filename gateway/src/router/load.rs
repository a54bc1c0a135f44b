//! From the configuration to deployments: models loaded, pools made.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_engine::LoadError;
use sluice_engine::backend::onnx::{self, Footprint, OnnxOptions, Provider, init_runtime};
use sluice_engine::encoder::{Encoder, EncoderOptions};
use sluice_engine::folder::{ModelFolder, ModelKind};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::language::{LanguageModel, LanguageOptions};
use sluice_engine::tensor::{TensorModel, TensorOptions};

use super::{Deployment, LocalModel, Standing, Target};
use crate::Gateway;
use crate::config::{DeploymentConfig, ProviderConfig, gpu_options};
use crate::remote::{PoolError, RemotePool};

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
    deployment_as(gateway, config, Standing::default()).await
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
    match &config.path {
        None => remote(gateway, config, standing).await,
        Some(path) => {
            let (path, data) = (path.clone(), gateway.config().data.clone());
            let options = config.clone();
            // Reading and warming up takes seconds and must not hold the runtime's threads.
            let loading = tokio::task::spawn_blocking(move || local(&path, &data, &options));
            let loaded = match loading.await {
                Ok(loaded) => loaded,
                Err(panic) => Err(LoadError::Runtime(format!("loading failed: {panic}"))),
            };
            let (model, digest) = loaded.map_err(|source| DeployError::Load {
                name: config.name.clone(),
                source,
            })?;
            let revision = config.revision.as_deref().unwrap_or(short(&digest));
            let target = Target::Local(model);
            Ok(make(gateway, &config.name, revision, target, standing))
        }
    }
}

/// Whether a folder's files still are those that `loaded` was made of. Also true where
/// that is not for us to tell: of upstreams, and where `revision` is set by hand.
pub async fn is_current(config: &DeploymentConfig, loaded: &Deployment) -> bool {
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

/// What a model would take of the memory if it were loaded now. Reads the graph, not the weights.
///
/// # Errors
/// As [`deployment`]; [`LoadError::DoesNotFit`] with the sum when `config.memory` is exceeded.
pub async fn footprint(
    gateway: &Gateway,
    config: &DeploymentConfig,
) -> Result<Footprint, DeployError> {
    let Some(path) = config.path.clone() else {
        return Ok(Footprint::default());
    };
    let (data, options) = (gateway.config().data.clone(), config.clone());
    let measuring = tokio::task::spawn_blocking(move || {
        init(&data)?;
        match ModelFolder::open(&path)?.kind {
            ModelKind::Generative(_) => onnx::footprint(
                &path,
                &options.name,
                &language_options(&options, &data).onnx,
            ),
            // Without K/V: what the graph's files weigh.
            _ => Ok(Footprint {
                weights: graph_bytes(&path)?,
                ..Footprint::default()
            }),
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

/// Bytes of the graphs at `path` and of the weights beside them.
fn graph_bytes(path: &Path) -> Result<u64, LoadError> {
    let unreadable = |error: std::io::Error| LoadError::Folder {
        path: path.to_path_buf(),
        reason: format!("cannot be read: {error}"),
    };
    if path.is_file() {
        return Ok(path.metadata().map_err(unreadable)?.len());
    }
    let mut bytes = 0;
    for folder in [path.to_path_buf(), path.join("onnx")] {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if name.to_string_lossy().contains(".onnx") {
                bytes += entry.metadata().map_err(unreadable)?.len();
            }
        }
    }
    Ok(bytes)
}

fn init(data: &Path) -> Result<(), LoadError> {
    let library = data.join("lib/libonnxruntime.so");
    init_runtime(library.exists().then_some(&*library))?;
    Ok(())
}

/// Loads a folder; also gives its digest.
fn local(
    path: &Path,
    data: &Path,
    config: &DeploymentConfig,
) -> Result<(LocalModel, String), LoadError> {
    init(data)?;
    let folder = ModelFolder::open(path)?;
    let digest = folder.digest()?;
    let model = match &folder.kind {
        ModelKind::Tensor { model } => LocalModel::Tensor(tensor(model, data, config)?),
        ModelKind::Generative(_) => LocalModel::Language(Arc::new(language(path, data, config)?)),
        ModelKind::Encoder(_) => LocalModel::Encoder(encoder(path, data, config)?),
    };
    Ok((model, digest))
}

fn language(
    dir: &Path,
    data: &Path,
    config: &DeploymentConfig,
) -> Result<LanguageModel, LoadError> {
    LanguageModel::load(&config.name, dir, language_options(config, data))
}

fn language_options(config: &DeploymentConfig, data: &Path) -> LanguageOptions {
    let defaults = LanguageOptions::default();
    LanguageOptions {
        onnx: OnnxOptions {
            provider: provider(config.provider),
            gpu: gpu_options(config, data),
            threads: config.threads.unwrap_or(defaults.onnx.threads),
            slots: config.slots,
            capacity: config.context,
            memory_budget: config.memory.map(|bytes| bytes as u64),
            ..defaults.onnx
        },
        generator: GeneratorOptions {
            max_waiting: config.max_waiting.unwrap_or(defaults.generator.max_waiting),
            prefill_chunk: config
                .prefill_chunk
                .unwrap_or(defaults.generator.prefill_chunk),
            ..defaults.generator
        },
    }
}

fn encoder(dir: &Path, data: &Path, config: &DeploymentConfig) -> Result<Encoder, LoadError> {
    let defaults = EncoderOptions::on(provider(config.provider));
    let options = EncoderOptions {
        gpu: gpu_options(config, data),
        workers: config.threads.unwrap_or(defaults.workers),
        max_waiting: config.max_waiting.unwrap_or(defaults.max_waiting),
        max_tokens: config.context.map(|tokens| tokens as usize),
        ..defaults
    };
    Encoder::load(&config.name, dir, &options)
}

fn tensor(model: &Path, data: &Path, config: &DeploymentConfig) -> Result<TensorModel, LoadError> {
    let defaults = TensorOptions::default();
    let options = TensorOptions {
        provider: provider(config.provider),
        gpu: gpu_options(config, data),
        threads: config.threads.unwrap_or(defaults.threads),
        max_waiting: config.max_waiting.unwrap_or(defaults.max_waiting),
        ..defaults
    };
    TensorModel::load(&config.name, model, &options)
}

fn provider(config: ProviderConfig) -> Provider {
    match config {
        ProviderConfig::Cpu => Provider::Cpu,
        ProviderConfig::Cuda => Provider::Cuda { device: 0 },
        ProviderConfig::Tensorrt => Provider::TensorRt { device: 0 },
    }
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
    let target = Target::Remote(pool);
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
