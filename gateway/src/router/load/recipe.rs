//! How a model is loaded, the first time and again, and the options that follow from its
//! configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_engine::LoadError;
use sluice_engine::backend::onnx::{Footprint, OnnxOptions, Provider, init_runtime};
use sluice_engine::backend::tensorrt::NativeOptions;
use sluice_engine::encoder::{Encoder, EncoderOptions};
use sluice_engine::folder::{ModelFolder, ModelKind};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::grammar::CompilerOptions;
use sluice_engine::language::{LanguageModel, LanguageOptions};
use sluice_engine::tensor::{TensorModel, TensorOptions};
use sluice_engine::tokenizer::template::TemplateLimits;

use crate::config::{DeploymentConfig, ProviderConfig, gpu_options};
use crate::replicas::Placed;
use crate::router::LocalModel;

/// Opens ONNX Runtime, where it computes this deployment.
pub(super) fn init(config: &DeploymentConfig, data: &Path) -> Result<(), LoadError> {
    if config.provider == ProviderConfig::TensorrtNative {
        return Ok(());
    }
    // What is named explicitly comes first.
    let named = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty());
    let library = data.join("lib/libonnxruntime.so");
    init_runtime((!named && library.exists()).then_some(&*library))?;
    Ok(())
}

/// Whether ONNX Runtime is where [`init`] looks for it. Only where that cannot be told without opening it, it is opened.
pub(super) fn find_runtime(config: &DeploymentConfig, data: &Path) -> Result<(), LoadError> {
    let named = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    let is_there = match &named {
        Some(path) => Path::new(path).is_file(),
        None => data.join("lib/libonnxruntime.so").is_file(),
    };
    match is_there {
        true => Ok(()),
        false => init(config, data),
    }
}

/// How a model is loaded, the first time and again.
pub(super) struct Recipe {
    pub(super) path: PathBuf,
    pub(super) data: PathBuf,
    pub(super) config: DeploymentConfig,
    pub(super) failed_runs: u32,
    pub(super) grammar: CompilerOptions,
    pub(super) template: TemplateLimits,
    /// Of the folder, since it was first loaded.
    pub(super) digest: String,
}

impl Recipe {
    /// Loads one replica on each device.
    pub(super) fn load_all(mut self) -> Result<(Vec<Placed>, Self), LoadError> {
        init(&self.config, &self.data)?;
        let folder = ModelFolder::open(&self.path)?;
        self.digest = folder.digest()?;
        let mut models = Vec::new();
        for place in self.config.places() {
            models.push((place, self.load(&folder, place)?));
        }
        if let Some((_, LocalModel::Language(model))) = models.first() {
            let capabilities = model.generator.capabilities();
            self.size_as(&Footprint {
                slots: capabilities.slots,
                capacity: capabilities.capacity,
                ..Footprint::default()
            });
        }
        Ok((models, self))
    }

    /// Loads a replica that was lost, as it was.
    pub(super) fn load_again(&self, device: Option<u32>) -> Result<LocalModel, LoadError> {
        let folder = ModelFolder::open(&self.path)?;
        if folder.digest()? != self.digest {
            return Err(LoadError::Folder {
                path: self.path.clone(),
                reason: "it has changed since the model was loaded: SIGHUP or a new deployment \
                         loads it as a new revision"
                    .to_owned(),
            });
        }
        self.load(&folder, device)
    }

    fn load(&self, folder: &ModelFolder, device: Option<u32>) -> Result<LocalModel, LoadError> {
        let Self {
            path, data, config, ..
        } = self;
        let runs = self.failed_runs;
        Ok(match &folder.kind {
            ModelKind::Tensor { model } => {
                LocalModel::Tensor(tensor(model, config, data, device, runs)?)
            }
            ModelKind::Generative(_) => {
                fit_to_generate(config)?;
                let mut options = language_options(config, data, device, runs);
                options.grammar = self.grammar;
                options.template = self.template;
                let model = LanguageModel::load(&config.name, path, options)?;
                LocalModel::Language(Arc::new(model))
            }
            ModelKind::Encoder(_) => {
                LocalModel::Encoder(encoder(path, config, data, device, runs)?)
            }
        })
    }

    /// Keeps to a size that was found to fit, whatever is left of the memory later.
    pub(super) fn size_as(&mut self, footprint: &Footprint) {
        if footprint.slots == 0 {
            return;
        }
        self.config.slots = Some(footprint.slots);
        self.config.context = Some(footprint.capacity);
        self.config.memory = Some(usize::MAX);
    }
}

/// TensorRT itself knows no K/V here.
pub(super) fn fit_to_generate(config: &DeploymentConfig) -> Result<(), LoadError> {
    if config.provider != ProviderConfig::TensorrtNative {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        model: config.name.clone(),
        reason: "provider = \"tensorrt-native\" is for encoders and tensor models; a language \
                 model runs with \"cuda\", \"tensorrt\" or \"cpu\""
            .to_owned(),
    })
}

pub(super) fn language_options(
    config: &DeploymentConfig,
    data: &Path,
    device: Option<u32>,
    failed_steps: u32,
) -> LanguageOptions {
    let defaults = LanguageOptions::default();
    LanguageOptions {
        onnx: OnnxOptions {
            provider: provider(config.provider, device),
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
            failed_steps,
            ..defaults.generator
        },
        grammar: defaults.grammar,
        template: defaults.template,
    }
}

fn encoder(
    dir: &Path,
    config: &DeploymentConfig,
    data: &Path,
    device: Option<u32>,
    failed_runs: u32,
) -> Result<Encoder, LoadError> {
    let defaults = EncoderOptions::on(provider(config.provider, device));
    let options = EncoderOptions {
        gpu: gpu_options(config, data),
        workers: config.threads.unwrap_or(defaults.workers),
        max_waiting: config.max_waiting.unwrap_or(defaults.max_waiting),
        max_tokens: config.context.map(|tokens| tokens as usize),
        failed_runs,
        ..defaults
    };
    match native(config, data, device) {
        Some(native) => Encoder::load_native(&config.name, dir, &options, &native),
        None => Encoder::load(&config.name, dir, &options),
    }
}

fn tensor(
    model: &Path,
    config: &DeploymentConfig,
    data: &Path,
    device: Option<u32>,
    failed_runs: u32,
) -> Result<TensorModel, LoadError> {
    let defaults = TensorOptions::default();
    let options = TensorOptions {
        provider: provider(config.provider, device),
        gpu: gpu_options(config, data),
        threads: config.threads.unwrap_or(defaults.threads),
        max_waiting: config.max_waiting.unwrap_or(defaults.max_waiting),
        failed_runs,
        ..defaults
    };
    match native(config, data, device) {
        Some(native) => TensorModel::load_native(&config.name, model, &options, &native),
        None => TensorModel::load(&config.name, model, &options),
    }
}

/// As ONNX Runtime names it; what computes without it is loaded otherwise ([`native`]), and
/// of its provider only the device counts.
fn provider(config: ProviderConfig, device: Option<u32>) -> Provider {
    let device = device.unwrap_or(0);
    match config {
        ProviderConfig::Cpu => Provider::Cpu,
        ProviderConfig::Cuda => Provider::Cuda { device },
        ProviderConfig::Tensorrt | ProviderConfig::TensorrtNative => Provider::TensorRt { device },
    }
}

/// How TensorRT itself computes this deployment, if it does.
fn native(config: &DeploymentConfig, data: &Path, device: Option<u32>) -> Option<NativeOptions> {
    (config.provider == ProviderConfig::TensorrtNative).then(|| NativeOptions {
        device: device.unwrap_or(0),
        memory_budget: config.memory.map(|bytes| bytes as u64),
        build: gpu_options(config, data).tensorrt,
        library: None,
    })
}
