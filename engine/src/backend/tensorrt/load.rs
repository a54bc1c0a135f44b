//! From files to an engine in device memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_tensorrt::{
    BuildError, BuildOptions, Callbacks, EngineStore, Error, Library, Plan, PlanError, Runtime,
    RuntimeOptions, Span, Specification, StoreError, Wanted, build,
};

use super::NativeOptions;
use super::device::Gpu;
use super::progress::{Progress, Telling};
use super::session::{StepError, TensorRtSession};
use crate::cuda::{CudaError, Device};
use crate::error::LoadError;
use crate::folder::{ModelFolder, wrong};

/// What an engine comes from.
enum Source {
    /// It lies there, built.
    Engine(PathBuf),
    /// It is built from this graph.
    Graph(PathBuf),
}

/// Loads `path`: an engine (`.plan`, `.engine`), an `.onnx` file that one is built from,
/// or a folder with one of them. Building takes minutes; [`builds`](super::builds) tells
/// how far it is.
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
    let source = find(path)?;
    let library = Library::open(options.library.as_deref());
    let library = library.map_err(|error| runtime(name, &error))?;
    let device = Device::open(options.device, options.memory_budget);
    let gpu = Gpu::new(device.map_err(|error| runtime(name, &error))?);
    let load = Load {
        name,
        options,
        library: Arc::new(library),
        gpu: &gpu,
    };
    let engine = load.engine(&source)?;
    load.session(&engine)
}

struct Load<'a> {
    name: &'a str,
    options: &'a NativeOptions,
    library: Arc<Library>,
    gpu: &'a Gpu,
}

impl Load<'_> {
    fn engine(&self, source: &Source) -> Result<Vec<u8>, LoadError> {
        match source {
            Source::Engine(path) => self.stored(path),
            Source::Graph(path) => self.built(path),
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
        let progress = Arc::new(Progress::new(self.name));
        let watching = Watching::new(&progress);
        let options = BuildOptions {
            callbacks: Callbacks {
                watch: Some(Arc::new(watching)),
                ..Callbacks::default()
            },
            path: Some(path),
            ..BuildOptions::default()
        };
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
        let store = EngineStore::new(cache);
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
            StepError::TensorRt(_) | StepError::Invalid(_) => self.unsupported(&error.to_string()),
        }
    }

    fn unbuilt(&self, error: &BuildError) -> LoadError {
        match error {
            BuildError::Open(error) => runtime(self.name, error),
            BuildError::Call(error @ Error::OutOfMemory { .. }) => LoadError::DoesNotFit {
                model: self.name.to_owned(),
                sum: error.to_string(),
            },
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

/// The engine or graph of a folder, or the file itself. An engine comes before a graph.
fn find(path: &Path) -> Result<Source, LoadError> {
    if path.is_file() {
        return source(path).ok_or_else(|| wrong(path, "is neither .plan nor .engine nor .onnx"));
    }
    let entries = fs::read_dir(path).map_err(|error| wrong(path, &error.to_string()))?;
    let (mut engines, mut graphs) = (Vec::new(), Vec::new());
    for entry in entries {
        let file = entry
            .map_err(|error| wrong(path, &error.to_string()))?
            .path();
        match source(&file) {
            Some(Source::Engine(file)) => engines.push(file),
            Some(Source::Graph(file)) => graphs.push(file),
            None => {}
        }
    }
    let named = |file: &&PathBuf| file.file_stem().is_some_and(|stem| stem == "model");
    let one = |files: &[PathBuf], kind: &str| match files {
        [only] => Ok(only.clone()),
        several => several.iter().find(named).cloned().ok_or_else(|| {
            wrong(
                path,
                &format!("there are several {kind} files; name one of them"),
            )
        }),
    };
    match (engines.as_slice(), graphs.as_slice()) {
        ([], []) => Err(wrong(path, "there is no .plan, .engine or .onnx file")),
        ([], graphs) => Ok(Source::Graph(one(graphs, ".onnx")?)),
        (engines, _) => Ok(Source::Engine(one(engines, ".plan or .engine")?)),
    }
}

fn source(file: &Path) -> Option<Source> {
    let extension = file.extension()?.to_str()?;
    match extension {
        _ if !file.is_file() => None,
        "plan" | "engine" => Some(Source::Engine(file.to_path_buf())),
        "onnx" => Some(Source::Graph(file.to_path_buf())),
        _ => None,
    }
}

/// Tells of a build from its first phase on: what comes from the cache is not announced.
struct Watching {
    progress: Arc<Progress>,
    telling: parking_lot::Mutex<Option<Telling>>,
}

impl Watching {
    fn new(progress: &Arc<Progress>) -> Self {
        Self {
            progress: Arc::clone(progress),
            telling: parking_lot::Mutex::new(None),
        }
    }
}

impl sluice_tensorrt::Watch for Watching {
    fn start(&self, phase: &str, parent: &str, steps: u32) {
        let begin = || Telling::begin(&self.progress);
        self.telling.lock().get_or_insert_with(begin);
        self.progress.start(phase, parent, steps);
    }

    fn step(&self, phase: &str, step: u32) -> bool {
        self.progress.step(phase, step)
    }

    fn finish(&self, phase: &str) {
        self.progress.finish(phase);
    }
}
