//! Models on ONNX Runtime.
//!
//! [`runtime`] loads the library, [`session`] is one loaded graph.
//! [`language_model`] makes a [`Backend`](super::Backend) of a folder written by
//! `onnxruntime_genai.models.builder`: [`graph`] edits the graph for slots (over
//! [`proto`]), [`memory`] chooses how many, [`arena`] holds their K/V, [`plan`]
//! decides which slots run together, [`lm`] runs them, and [`probe`] compares the
//! result with what the source model says before anything is served.

mod arena;
mod bound;
mod gpu;
mod graph;
mod lm;
mod memory;
mod place;
mod plan;
mod pooled;
mod probe;
mod proto;
pub mod runtime;
pub mod session;
mod store;
mod tensor_data;
#[cfg(test)]
mod testing;

use std::path::Path;

pub(crate) use gpu::text_profiles;
pub use gpu::{ComputeStream, GpuOptions, ShapeProfile, TensorRtOptions};
pub use runtime::{Provider, RuntimeInfo, has_provider, init_runtime};
pub use session::{
    Canceller, Dimension, ModelSource, OnnxSession, SessionOptions, Tensor, TensorInfo, TensorView,
};
pub use tensor_data::{Datatype, TensorData, TensorSlice};

use self::arena::ArenaShape;
use self::graph::{GraphError, Layout};
use self::lm::OnnxLm;
pub use self::memory::{Bytes, default_budget};
use self::memory::{Demand, Size};
pub(crate) use self::pooled::DevicePooling;
use self::probe::Probe;
use super::{Backend, BackendFactory, Capabilities};
use crate::error::{BackendError, LoadError};
use crate::folder::{GenAiConfig, ModelFolder, ModelKind, wrong};

/// How a language model is loaded. `None` lets the engine choose.
#[derive(Debug, Clone)]
pub struct OnnxOptions {
    /// Where it runs.
    pub provider: Provider,
    /// Threads of one operator; 0 takes every core.
    pub threads: usize,
    /// Idle threads spin instead of sleeping; off by default, because several
    /// models share the cores.
    pub spin: bool,
    /// Sequences that hold K/V at once; by default 16, fewer where memory is short.
    pub slots: Option<u32>,
    /// Tokens that one slot holds; by default the model's context, at most 8192,
    /// less where memory is short.
    pub capacity: Option<u32>,
    /// Bytes for weights and K/V together; by default 60 % of what the host or the
    /// control group has available.
    pub memory_budget: Option<u64>,
    /// Compare with `sluice_probe.json` at load (and without one, the model with
    /// itself). Off only for tests of the loader.
    pub probe: bool,
    /// Run prompts of several rows together where the runtime can and it is
    /// measured to be faster.
    pub ragged: bool,
    /// How a GPU is used, where `provider` is one.
    pub gpu: GpuOptions,
    /// K/V and logits lie on the stand-in for a GPU, over which the CPU provider runs.
    #[cfg(test)]
    pub(crate) stand_in: bool,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            threads: 0,
            spin: false,
            slots: None,
            capacity: None,
            memory_budget: None,
            probe: true,
            ragged: true,
            gpu: GpuOptions::default(),
            #[cfg(test)]
            stand_in: false,
        }
    }
}

/// First minor version of ONNX Runtime 1.x whose CPU GroupQueryAttention takes
/// `query_seqlens`.
const QUERY_SEQLENS_SINCE: u32 = 32;

/// Checks the folder, edits the graph and sums the memory; the factory then makes
/// the session on the thread that calls it, runs the probe and measures.
///
/// # Errors
/// Every [`LoadError`]; `name` is the model's as configured.
pub fn language_model(
    dir: &Path,
    name: &str,
    options: &OnnxOptions,
) -> Result<BackendFactory, LoadError> {
    let load = Load::prepare(dir, name, options)?;
    Ok(Box::new(move || {
        Ok(Box::new(load.run()?) as Box<dyn Backend>)
    }))
}

/// What a language model takes of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes of K/V, all slots.
    pub kv: u64,
    /// Sequences that hold K/V at once; 0 for what holds none.
    pub slots: u32,
    /// Tokens that one slot holds.
    pub capacity: u32,
}

impl Footprint {
    /// Weights and K/V together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv)
    }
}

/// What [`language_model`] would take of the memory with these options, without
/// reading the weights.
///
/// # Errors
/// As [`language_model`].
pub fn footprint(dir: &Path, name: &str, options: &OnnxOptions) -> Result<Footprint, LoadError> {
    let load = Load::prepare(dir, name, options)?;
    let shape = arena_shape(&load.layout, load.size);
    let kv = shape.token_bytes() * shape.slots * shape.capacity;
    Ok(Footprint {
        weights: load.layout.weight_bytes,
        kv: kv as u64,
        slots: load.size.slots,
        capacity: load.size.capacity,
    })
}

fn graph_error(error: GraphError, name: &str, config: &GenAiConfig) -> LoadError {
    match error {
        GraphError::Unsupported(reason) => LoadError::Unsupported {
            model: name.to_owned(),
            reason,
        },
        other => wrong(&config.model, &other.to_string()),
    }
}

/// A window that the exporter lost is right until the window ends. A probe can
/// tell; without one the model is not trusted.
fn check_window(layout: &Layout, probe: Option<&Probe>, name: &str) -> Result<(), LoadError> {
    match (layout.lost_window, probe) {
        (Some(window), None) => Err(LoadError::Unsupported {
            model: name.to_owned(),
            reason: format!(
                "the source model attends within a window of {window} tokens, but no layer of the \
                 exported graph does, and there is no {} to prove it right",
                probe::FILE
            ),
        }),
        _ => Ok(()),
    }
}

fn size(
    layout: &Layout,
    config: &GenAiConfig,
    name: &str,
    options: &OnnxOptions,
) -> Result<Size, LoadError> {
    let positions = layout.positions.unwrap_or(u64::from(u32::MAX));
    let longest = u32::try_from(positions)
        .unwrap_or(u32::MAX)
        .min(config.context_length);
    for (field, value, most) in [
        ("slots", options.slots, 4096),
        ("capacity", options.capacity, longest),
    ] {
        if let Some(value) = value
            && !(1..=most).contains(&value)
        {
            return Err(LoadError::Unsupported {
                model: name.to_owned(),
                reason: format!("{field} is {value}, it must be in 1..={most}"),
            });
        }
    }
    let demand = Demand {
        weights: layout.weight_bytes,
        token: arena_shape(
            layout,
            Size {
                slots: 1,
                capacity: 1,
            },
        )
        .token_bytes() as u64,
        longest,
        slots: options.slots,
        capacity: options.capacity,
    };
    let budget = options
        .memory_budget
        .unwrap_or_else(|| options.free_memory());
    let size = demand.fit(budget).map_err(|sum| LoadError::DoesNotFit {
        model: name.to_owned(),
        sum,
    })?;
    tracing::info!(
        model = name,
        slots = size.slots,
        capacity = size.capacity,
        "memory: {} of {}",
        demand.sum(size),
        Bytes(budget)
    );
    Ok(size)
}

fn arena_shape(layout: &Layout, size: Size) -> ArenaShape {
    ArenaShape {
        layers: layout.layers.len(),
        slots: size.slots as usize,
        kv_heads: layout.kv_heads,
        capacity: size.capacity as usize,
        head_size: layout.head_size,
        float: layout.kv,
    }
}

/// What the factory carries to the device thread.
struct Load {
    name: String,
    dir: std::path::PathBuf,
    options: OnnxOptions,
    model: Vec<u8>,
    layout: Layout,
    size: Size,
    probe: Option<Probe>,
}

impl Load {
    /// Everything that needs no device.
    fn prepare(dir: &Path, name: &str, options: &OnnxOptions) -> Result<Self, LoadError> {
        let folder = ModelFolder::open(dir)?;
        let ModelKind::Generative(config) = folder.kind else {
            return Err(wrong(
                dir,
                "this is no language model: there is no genai_config.json",
            ));
        };
        let info = init_runtime(None)?;
        runtime::check_provider(options.provider, &info)?;
        let ragged = options.ragged
            && options.provider == Provider::Cpu
            && info.minor() >= QUERY_SEQLENS_SINCE;
        let probe = Probe::read(dir)?;
        let bytes = std::fs::read(&config.model)
            .map_err(|error| wrong(&config.model, &format!("cannot be read: {error}")))?;
        let (model, layout) = graph::edit(&bytes, dir, &config, ragged)
            .map_err(|error| graph_error(error, name, &config))?;
        drop(bytes);
        check_window(&layout, probe.as_ref(), name)?;
        let size = size(&layout, &config, name, options)?;
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_path_buf(),
            options: options.clone(),
            model,
            layout,
            size,
            probe,
        })
    }

    fn run(self) -> Result<OnnxLm, LoadError> {
        let options = &self.options;
        let device = self.open_device()?;
        let session = OnnxSession::open(
            &self.name,
            ModelSource::Bytes {
                model: &self.model,
                folder: Some(&self.dir),
            },
            &SessionOptions {
                provider: options.provider,
                threads: options.threads,
                spin: options.spin,
                gpu: self.gpu_options(device.as_ref()),
            },
        )?;
        let shape = arena_shape(&self.layout, self.size);
        let kv_bytes = (shape.token_bytes() * shape.slots * shape.capacity) as u64;
        let (store, captured) = match device {
            None => (self.on_host(shape)?, None),
            Some(device) => self.on_device(device, shape)?,
        };
        let capabilities = Capabilities {
            slots: self.size.slots,
            capacity: self.size.capacity,
            vocab: u32::try_from(self.layout.vocab).unwrap_or(u32::MAX),
            ragged: false,
            kv_bytes,
            weight_bytes: self.layout.weight_bytes,
            provider: options.provider.to_string(),
        };
        let unusable = |error: BackendError| LoadError::Unsupported {
            model: self.name.clone(),
            reason: format!("the graph cannot be run over slots: {error}"),
        };
        let ends = (captured, self.run_ends()?);
        let lm = OnnxLm::new(session, self.layout, store, ends, capabilities);
        let mut lm = lm.map_err(unusable)?;
        // First, so that the probe sees the runs that will be chosen.
        lm.calibrate().map_err(unusable)?;
        if options.probe {
            probe::run(&mut lm, self.probe.as_ref(), &self.name)?;
        }
        let costs = lm.costs();
        tracing::info!(
            model = self.name,
            provider = %options.provider,
            ragged = lm.capabilities().ragged,
            joined_gain = costs.joined_gain,
            bridge = costs.bridge,
            "loaded"
        );
        Ok(lm)
    }
}

#[cfg(test)]
mod tests;
