//! One ONNX Runtime session: open it, ask what it takes and gives, run it.
//!
//! A session has one owner thread; other threads get a handle of their own by
//! [`OnnxSession::share`], and all run on the same weights.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorRef, ValueType};

use super::bound::{self, Output, c_name};
use super::gpu::engines::{EngineFolder, engine_folder};
use super::gpu::{self, Building, GpuOptions};
use super::runtime::{self, Provider};
use super::tensor_data::{Datatype, TensorData, TensorSlice};
use crate::cancel::LoadCanceller;
use crate::error::{BackendError, LoadError};
use crate::folder::is_engine;

/// How a session computes.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Where.
    pub provider: Provider,
    /// Threads of one operator; 0 takes every core.
    pub threads: usize,
    /// Idle threads spin instead of sleeping: lower latency, and cores burnt that
    /// another model could use. Off by default.
    pub spin: bool,
    /// How a GPU is used, where `provider` is one.
    pub gpu: GpuOptions,
}

/// What a model is made from.
#[derive(Debug, Clone, Copy)]
pub enum ModelSource<'a> {
    /// A file; external data are looked for beside it.
    File(&'a Path),
    /// A serialised model; external data are looked for in `folder`.
    Bytes {
        /// The serialised `ModelProto`.
        model: &'a [u8],
        /// Folder of the external data.
        folder: Option<&'a Path>,
    },
}

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// Fixed.
    Fixed(i64),
    /// Free; the name may be empty. Equal names mean equal sizes.
    Free(String),
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the graph.
    pub name: String,
    /// Element type; `None` for one that the Open Inference Protocol lacks
    /// (bfloat16, sequences, maps).
    pub datatype: Option<Datatype>,
    /// Dimensions, outermost first.
    pub shape: Vec<Dimension>,
}

impl TensorInfo {
    fn of(outlet: &Outlet) -> Self {
        let (datatype, shape) = match outlet.dtype() {
            ValueType::Tensor {
                ty,
                shape,
                dimension_symbols,
            } => {
                let dimension = |(size, name): (&i64, &String)| match *size {
                    -1 => Dimension::Free(name.clone()),
                    size => Dimension::Fixed(size),
                };
                let shape = shape.iter().zip(dimension_symbols.iter()).map(dimension);
                (Datatype::from_ort(*ty), shape.collect())
            }
            _ => (None, Vec::new()),
        };
        Self {
            name: outlet.name().to_owned(),
            datatype,
            shape,
        }
    }

    /// The shape with `-1` for free dimensions, as the Open Inference Protocol writes it.
    #[must_use]
    pub fn dims(&self) -> Vec<i64> {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => *size,
            Dimension::Free(_) => -1,
        };
        self.shape.iter().map(size).collect()
    }
}

/// A borrowed tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// Sizes, outermost first; their product is the number of elements.
    pub shape: &'a [i64],
    /// Elements, row-major.
    pub data: TensorSlice<'a>,
}

/// An owned tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<i64>,
    /// Elements, row-major.
    pub data: TensorData,
}

/// Stops the run in flight of one session, from any thread.
#[derive(Clone)]
pub struct Canceller(Arc<RunOptions>);

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

impl Canceller {
    /// The run in flight and later ones fail until [`OnnxSession::resume`].
    pub fn cancel(&self) {
        if let Err(error) = self.0.terminate() {
            tracing::debug!(%error, "terminate");
        }
    }
}

/// A loaded model on one device, owned by one thread.
pub struct OnnxSession {
    pub(super) session: Arc<Session>,
    run_options: Arc<RunOptions>,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

impl fmt::Debug for OnnxSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnnxSession")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl OnnxSession {
    /// Loads and optimises a model. A [`LoadCanceller`] ends that, and what is run before its load is over.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] when the library or the provider is missing,
    /// [`LoadError::Unsupported`] with ONNX Runtime's own words when it refuses
    /// the graph; `name` is the model's, for the message. [`LoadError::Cancelled`].
    pub fn open(
        name: &str,
        source: ModelSource<'_>,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let refused = |error: ort::Error| LoadError::Unsupported {
            model: name.to_owned(),
            reason: format!("ONNX Runtime refuses the graph: {}", error.message()),
        };
        if let ModelSource::File(path) = source
            && is_engine(path)
        {
            return Err(LoadError::Unsupported {
                model: name.to_owned(),
                reason: format!(
                    "{} is an engine of TensorRT: it needs provider = \"tensorrt-native\"",
                    path.display()
                ),
            });
        }
        let engines = engine_folder(source, options)?;
        let mut builder = builder(options, engines.as_ref())?;
        let run_options = Arc::new(RunOptions::new().map_err(refused)?);
        let load = LoadCanceller::current();
        let (commit, runs) = (builder.canceler(), Canceller(Arc::clone(&run_options)));
        load.begin(move || {
            if let Err(error) = commit.cancel() {
                tracing::debug!(%error, "cancel a load");
            }
            runs.cancel();
        })?;
        let _building = engines.map(|folder| Building::begin(name, folder));
        let session = match source {
            ModelSource::File(path) => builder.commit_from_file(path),
            ModelSource::Bytes { model, folder } => {
                if let Some(folder) = folder {
                    builder = builder
                        .with_config_entry(
                            "session.model_external_initializers_file_folder_path",
                            folder.to_string_lossy(),
                        )
                        .map_err(|e| refused(e.into()))?;
                }
                builder.commit_from_memory(model)
            }
        };
        // Whatever came of it.
        load.check()?;
        let session = session.map_err(refused)?;
        Ok(Self {
            inputs: session.inputs().iter().map(TensorInfo::of).collect(),
            outputs: session.outputs().iter().map(TensorInfo::of).collect(),
            run_options,
            session: Arc::new(session),
        })
    }

    /// The same loaded model for another thread. The weights are there once; runs of
    /// both handles may overlap, each with its own canceller.
    ///
    /// # Errors
    /// [`LoadError::Runtime`]: ONNX Runtime has no memory for the handle.
    pub fn share(&self) -> Result<Self, LoadError> {
        let run_options = RunOptions::new()
            .map_err(|error| LoadError::Runtime(format!("run options: {}", error.message())))?;
        Ok(Self {
            session: Arc::clone(&self.session),
            run_options: Arc::new(run_options),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
        })
    }

    /// What the model takes, in the graph's order.
    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What the model gives, in the graph's order.
    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// A handle that stops the run in flight.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.run_options))
    }

    /// Allows runs again after [`Canceller::cancel`].
    pub fn resume(&mut self) {
        if let Err(error) = self.run_options.unterminate() {
            tracing::debug!(%error, "unterminate");
        }
    }

    /// Runs the model on borrowed tensors and returns the `wanted` outputs, in
    /// that order (all of them, in the graph's order, when `wanted` is empty).
    ///
    /// # Errors
    /// [`BackendError::Step`]: an unknown name, a wrong type or shape, a failed
    /// or cancelled run. The session can be used again.
    pub fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        self.run_with(inputs, wanted, |outputs| {
            let owned = |view: &TensorView<'_>| Tensor {
                shape: view.shape.to_vec(),
                data: view.data.to_data(),
            };
            outputs.iter().map(owned).collect()
        })
    }

    /// As [`run`](Self::run), but `then` sees the outputs where ONNX Runtime put
    /// them, without a copy.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with<T>(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
        then: impl FnOnce(&[TensorView<'_>]) -> T,
    ) -> Result<T, BackendError> {
        let all = self.outputs.iter().map(|info| info.name.as_str());
        let output_names = match wanted {
            [] => c_names(all)?,
            wanted => c_names(wanted.iter().copied())?,
        };
        let mut outputs: Vec<_> = output_names
            .iter()
            .map(|name| (name.as_c_str(), Output::Allocate(None)))
            .collect();
        self.run_named(inputs, &mut outputs)?;
        let mut extracted = Vec::with_capacity(outputs.len());
        for (_, output) in &outputs {
            if let Output::Allocate(Some(value)) = output {
                extracted.push(extract(value)?);
            }
        }
        let views: Vec<_> = extracted.iter().map(Extracted::view).collect();
        Ok(then(&views))
    }

    /// Runs the model for one output, which goes into the memory of `target`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) fn run_into(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        output: &str,
        target: &DynValue,
    ) -> Result<(), BackendError> {
        let output = c_name(output).map_err(|error| step("name", &error))?;
        self.run_named(inputs, &mut [(output.as_c_str(), Output::Into(target))])
    }

    fn run_named(
        &self,
        inputs: &[(&str, TensorView<'_>)],
        outputs: &mut [(&CStr, Output<'_>)],
    ) -> Result<(), BackendError> {
        let names = c_names(inputs.iter().map(|(name, _)| *name))?;
        let values = inputs
            .iter()
            .map(|(name, view)| input_value(view).map_err(|e| step(&format!("input `{name}`"), &e)))
            .collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<_> = names
            .iter()
            .map(CString::as_c_str)
            .zip(values.iter().map(|value| &**value))
            .collect();
        bound::run(&self.session, &self.run_options, &inputs, outputs)
            .map_err(|error| step("run", &error))
    }
}

fn builder(
    options: &SessionOptions,
    engines: Option<&EngineFolder>,
) -> Result<SessionBuilder, LoadError> {
    let (info, environment) = runtime::environment()?;
    runtime::check_provider(options.provider, &info)?;
    if options.provider.device().is_some() {
        // ONNX Runtime would say so too, in five lines.
        let found = crate::cuda::discover();
        found.map_err(|absent| LoadError::Runtime(format!("{}: {absent}", options.provider)))?;
    }
    configure(&environment, options, engines).map_err(|error| {
        LoadError::Runtime(format!(
            "the {} provider cannot be used with ONNX Runtime {} ({}): {}",
            options.provider,
            info.version,
            info.path.display(),
            in_short(error.message())
        ))
    })
}

/// What matters of ONNX Runtime's words when a library that a provider needs is missing.
fn in_short(message: &str) -> String {
    let missing = message
        .contains("Failed to load library")
        .then(|| message.split_once("with error: "))
        .flatten();
    match missing {
        Some((_, why)) => format!("{} (`sluice doctor` says what to install)", why.trim()),
        None => message.trim().to_owned(),
    }
}

fn configure(
    environment: &ort::environment::Environment,
    options: &SessionOptions,
    engines: Option<&EngineFolder>,
) -> ort::Result<SessionBuilder> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut builder = Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(options.spin)?
        // Memory patterns are cached for every shape ever seen: unbounded here.
        .with_memory_pattern(false)?;
    let providers = gpu::providers(options.provider, &options.gpu, engines);
    if !providers.is_empty() {
        builder = builder.with_execution_providers(providers)?;
    }
    Ok(builder)
}

fn c_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, BackendError> {
    names
        .map(|name| c_name(name).map_err(|error| step("name", &error)))
        .collect()
}

fn step(what: &str, error: &ort::Error) -> BackendError {
    BackendError::Step(format!("{what}: {}", error.message()))
}

/// Runs `$on!(variant)` for every datatype that lies in memory as it is.
macro_rules! plain_datatypes {
    ($on:ident) => {
        $on!(
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64
        )
    };
}

fn input_value<'a>(view: &TensorView<'a>) -> ort::Result<SessionInputValue<'a>> {
    macro_rules! borrow {
        ($($variant:ident),+) => {
            match view.data {
                $(TensorSlice::$variant(data) => TensorRef::from_array_view((view.shape, data))?.into(),)+
                TensorSlice::Bytes(data) => OrtTensor::from_string_array((view.shape, data))?.into(),
            }
        };
    }
    Ok(plain_datatypes!(borrow))
}

/// An output: in ONNX Runtime's memory, or copied out because it is made of strings.
enum Extracted<'v> {
    InPlace(TensorView<'v>),
    Strings { shape: &'v [i64], data: Vec<String> },
}

impl Extracted<'_> {
    fn view(&self) -> TensorView<'_> {
        match self {
            Self::InPlace(view) => *view,
            Self::Strings { shape, data } => TensorView {
                shape,
                data: TensorSlice::Bytes(data),
            },
        }
    }
}

fn extract(value: &DynValue) -> Result<Extracted<'_>, BackendError> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(BackendError::Step("an output is not a tensor".to_owned()));
    };
    let Some(datatype) = Datatype::from_ort(*ty) else {
        return Err(BackendError::Step(format!(
            "an output is of type {ty}, which cannot be returned"
        )));
    };
    macro_rules! in_place {
        ($($variant:ident),+) => {
            match datatype {
                $(Datatype::$variant => value.try_extract_tensor().map(|(shape, data)| {
                    Extracted::InPlace(TensorView { shape, data: TensorSlice::$variant(data) })
                }),)+
                Datatype::Bytes => value
                    .try_extract_strings()
                    .map(|(shape, data)| Extracted::Strings { shape, data }),
            }
        };
    }
    plain_datatypes!(in_place).map_err(|error| step("output", &error))
}

#[cfg(test)]
mod tests;
