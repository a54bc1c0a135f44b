//! From files to an engine in device memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sluice_tensorrt::{
    BuildError, BuildOptions, Callbacks, EngineStore, Error, Library, Origin, Plan, PlanError,
    Runtime, RuntimeOptions, Span, Specification, StoreError, Wanted, build,
};

use super::NativeOptions;
use super::device::Gpu;
use super::progress::Watching;
use super::session::{StepError, TensorRtSession};
use crate::cuda::{CudaError, Device};
use crate::error::LoadError;
use crate::folder::{ModelFolder, is_engine, wrong};

/// Loads `path`: an engine (`.plan`, `.engine`), or an `.onnx` file that one is built from.
/// Building takes minutes; [`builds`](crate::backend::builds::builds) tells how far it is.
///
/// # Errors
/// [`LoadError::Runtime`]: no TensorRT, no device, a device that failed;
/// [`LoadError::DoesNotFit`]; [`LoadError::Folder`]; [`LoadError::Unsupported`] with
/// TensorRT's own words.
pub fn open(
    name: &str,
    path: &Path,
    options: &NativeOptions,
) -> Result<TensorRtSession, LoadError> {
    let load = Load::begin(name, options)?;
    let engine = match is_engine(path) {
        true => load.stored(path)?,
        false => load.built(path)?,
    };
    load.session(&engine)
}

/// Builds the engine of a graph to be laid aside, and loaded as a `.plan` file later, on a
/// machine with the same TensorRT and the same kind of GPU. Nothing is taken from a cache.
///
/// # Errors
/// As [`open`].
pub fn build_plan(name: &str, graph: &Path, options: &NativeOptions) -> Result<Vec<u8>, LoadError> {
    let load = Load::begin(name, options)?;
    let specification = load.specification()?;
    let origin = Origin {
        tensorrt: load.library.version(),
        model: ModelFolder::open(graph)?.digest()?,
        specification: specification.digest(),
        device: load.gpu.name(),
    };
    let built = build(
        &load.library,
        &read(graph)?,
        &specification,
        &load.watched(graph),
    );
    let engine = built.map_err(|error| load.unbuilt(&error))?.engine;
    let plan = Plan { origin, engine };
    plan.to_bytes().map_err(|error| runtime(name, &error))
}

struct Load<'a> {
    name: &'a str,
    options: &'a NativeOptions,
    library: Arc<Library>,
    gpu: Gpu,
}

impl<'a> Load<'a> {
    fn begin(name: &'a str, options: &'a NativeOptions) -> Result<Self, LoadError> {
        let library = Library::open(options.library.as_deref());
        let library = library.map_err(|error| runtime(name, &error))?;
        let device = Device::open(options.device, options.memory_budget);
        let gpu = Gpu::new(device.map_err(|error| runtime(name, &error))?);
        gpu.enter().map_err(|error| runtime(name, &error))?;
        Ok(Self {
            name,
            options,
            library: Arc::new(library),
            gpu,
        })
    }

    /// How the engine of the graph at `path` is built: told of while it goes on.
    fn watched<'p>(&self, path: &'p Path) -> BuildOptions<'p> {
        BuildOptions {
            callbacks: Callbacks {
                watch: Some(Arc::new(Watching::new(self.name))),
                ..Callbacks::default()
            },
            path: Some(path),
            ..BuildOptions::default()
        }
    }

    /// An engine as it lies there. One that this crate made says what it is for; of
    /// others, TensorRT finds out.
    fn stored(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let bytes = read(path)?;
        let plan = match Plan::from_bytes(&bytes) {
            Ok(plan) => plan,
            Err(PlanError::NotAPlan) => return Ok(bytes),
            Err(error) => return Err(wrong(path, &error.to_string())),
        };
        let (version, device) = (self.library.version(), self.gpu.name());
        let made = &plan.origin;
        if made.tensorrt != version || made.device != device {
            return Err(wrong(
                path,
                &format!(
                    "the engine was built by TensorRT {} for {}; here are TensorRT {version} and {device}",
                    made.tensorrt, made.device
                ),
            ));
        }
        Ok(plan.engine)
    }

    /// The engine of a graph, from the cache or built now.
    fn built(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        let specification = self.specification()?;
        let model = read(path)?;
        let options = self.watched(path);
        let Some(cache) = &self.options.build.cache else {
            let made = build(&self.library, &model, &specification, &options);
            return Ok(made.map_err(|error| self.unbuilt(&error))?.engine);
        };
        let digest = ModelFolder::open(path)?.digest()?;
        let wanted = Wanted {
            model: &model,
            digest: &digest,
            specification: &specification,
            device: &self.gpu.name(),
        };
        let store = EngineStore::keeping(cache, self.options.build.keep);
        let stored = store.engine(&self.library, &wanted, &options);
        let stored = stored.map_err(|error| match error {
            StoreError::Build(error) => self.unbuilt(&error),
            StoreError::Disk { .. } | StoreError::Plan(_) => runtime(self.name, &error),
        })?;
        if !stored.built {
            tracing::info!(model = self.name, "an engine that was built before is used");
        }
        Ok(stored.engine)
    }

    fn specification(&self) -> Result<Specification, LoadError> {
        let asked = &self.options.build;
        if asked.fp16 || asked.bf16 || asked.int8 {
            return Err(self.unsupported(
                "native TensorRT computes in the types that the graph states: leave fp16, bf16 \
                 and int8 off, and convert the graph instead",
            ));
        }
        let span = |profile: &crate::backend::onnx::ShapeProfile| {
            let span = Span {
                smallest: profile.min.clone(),
                best: profile.opt.clone(),
                largest: profile.max.clone(),
            };
            (profile.input.clone(), span)
        };
        let spans: BTreeMap<_, _> = asked.profiles.iter().map(span).collect();
        Ok(Specification {
            profiles: if spans.is_empty() {
                Vec::new()
            } else {
                vec![spans]
            },
            workspace_bytes: asked.workspace,
            level: asked.optimization_level,
            target: None,
        })
    }

    fn session(&self, engine: &[u8]) -> Result<TensorRtSession, LoadError> {
        let options = RuntimeOptions {
            callbacks: Callbacks {
                memory: Some(self.gpu.lender()),
                ..Callbacks::default()
            },
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(&self.library, &options);
        let loaded = runtime.and_then(|runtime| runtime.load(engine));
        let loaded = loaded.map_err(StepError::from);
        let session = loaded.and_then(|engine| TensorRtSession::new(&engine, self.gpu.clone()));
        session.map_err(|error| self.unloaded(&error))
    }

    fn unloaded(&self, error: &StepError) -> LoadError {
        if let Some(cause) = self.gpu.lost() {
            return runtime(self.name, &format!("{error}: {cause}"));
        }
        match error {
            StepError::TensorRt(Error::OutOfMemory { .. })
            | StepError::Device(CudaError::OutOfMemory { .. }) => LoadError::DoesNotFit {
                model: self.name.to_owned(),
                sum: error.to_string(),
            },
            StepError::TensorRt(Error::Declined(_)) | StepError::Device(_) => {
                runtime(self.name, error)
            }
            StepError::TensorRt(_) | StepError::Invalid(_) | StepError::Output(_) => {
                self.unsupported(&error.to_string())
            }
        }
    }

    fn unbuilt(&self, error: &BuildError) -> LoadError {
        match error {
            BuildError::Open(error) => runtime(self.name, error),
            BuildError::Call(error @ Error::OutOfMemory { .. }) => LoadError::DoesNotFit {
                model: self.name.to_owned(),
                sum: error.to_string(),
            },
            BuildError::Call(error @ Error::Specification(_)) => {
                self.unsupported(&format!("{error} (`profiles` in [deployment.tensorrt])"))
            }
            BuildError::Call(error) => self.unsupported(&error.to_string()),
        }
    }

    fn unsupported(&self, reason: &str) -> LoadError {
        LoadError::Unsupported {
            model: self.name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn runtime(name: &str, error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Runtime(format!(
        "model `{name}` cannot run on native TensorRT: {error}"
    ))
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(path).map_err(|error| wrong(path, &format!("cannot be read: {error}")))
}
