//! How ONNX Runtime uses a GPU: the options of its CUDA and TensorRT providers.

pub(super) mod engines;
mod progress;

use std::collections::HashSet;
use std::ffi::c_void;
use std::fmt;
use std::path::{Path, PathBuf};

use ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};

use super::proto::Model;
use super::runtime::Provider;
use crate::cuda::Device;
use crate::error::LoadError;
use crate::folder::wrong;
use engines::EngineFolder;
pub(super) use progress::Building;

/// How a model runs on a GPU. The default suits a model that is served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuOptions {
    /// Bytes that ONNX Runtime may take on the device, for weights and activations; K/V
    /// and logits are not among them. No limit by default.
    pub arena_limit: Option<u64>,
    /// Decoding steps of language models are captured as CUDA graphs. Off by default;
    /// encoders and tensor models never are.
    pub cuda_graphs: bool,
    /// Products of single precision by TensorFloat-32: faster, 10 bits of mantissa. Off
    /// by default, so that fp32 means fp32.
    pub tf32: bool,
    /// For `tensorrt`.
    pub tensorrt: TensorRtOptions,
    /// The stream that the session works on; its own by default.
    pub stream: Option<ComputeStream>,
}

impl GpuOptions {
    /// The same for a session whose shapes and addresses change from run to run. A captured
    /// graph would be replayed whatever the inputs are.
    pub(crate) fn without_graphs(&self) -> Self {
        Self {
            cuda_graphs: false,
            ..self.clone()
        }
    }
}

/// How ONNX Runtime's TensorRT provider builds engines and keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRtOptions {
    /// Layers may compute in half precision.
    pub fp16: bool,
    /// Layers may compute in bfloat16.
    pub bf16: bool,
    /// Layers may compute in 8-bit integers, as the graph's quantisation says.
    pub int8: bool,
    /// Bytes that a layer may use for scratch while it runs; TensorRT's default is all.
    pub workspace: Option<u64>,
    /// 0 builds fast, 5 searches longest; TensorRT's default is 3.
    pub optimization_level: Option<u8>,
    /// Folder of built engines, each model's under a key of its own; none keeps nothing.
    pub cache: Option<PathBuf>,
    /// Models whose engines are kept; those unused longest go first.
    pub keep: usize,
    /// Shapes that engines are made for. Without, TensorRT builds again whenever a shape
    /// comes that is outside of what it has seen.
    pub profiles: Vec<ShapeProfile>,
}

impl Default for TensorRtOptions {
    fn default() -> Self {
        Self {
            fp16: false,
            bf16: false,
            int8: false,
            workspace: None,
            optimization_level: None,
            cache: None,
            keep: 8,
            profiles: Vec::new(),
        }
    }
}

/// Shapes of one input: the least, the one to be fastest at, and the greatest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeProfile {
    /// Name in the graph.
    pub input: String,
    /// Least size of each dimension.
    pub min: Vec<i64>,
    /// Usual size of each dimension.
    pub opt: Vec<i64>,
    /// Greatest size of each dimension.
    pub max: Vec<i64>,
}

impl ShapeProfile {
    /// Whether min, opt and max have as many dimensions, and at least one, with
    /// 1 <= min <= opt <= max in each.
    #[must_use]
    pub fn rises(&self) -> bool {
        let Self { min, opt, max, .. } = self;
        let mut sizes = min.iter().zip(opt).zip(max);
        !min.is_empty()
            && min.len() == opt.len()
            && opt.len() == max.len()
            && sizes.all(|((min, opt), max)| 1 <= *min && min <= opt && opt <= max)
    }
}

/// A device's stream, lent to a session. The device outlives the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ComputeStream(usize);

impl ComputeStream {
    /// The stream that `device` works on.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        Self(device.raw_stream().expose_provenance())
    }

    fn pointer(self) -> *mut () {
        std::ptr::with_exposed_provenance_mut::<c_void>(self.0).cast()
    }
}

impl fmt::Debug for ComputeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ComputeStream")
    }
}

/// The providers of a session, best first; what the first declines runs on the next, and
/// last on the host. `engines` is where TensorRT keeps what it builds.
pub(super) fn providers(
    provider: Provider,
    options: &GpuOptions,
    engines: Option<&EngineFolder>,
) -> Vec<ExecutionProviderDispatch> {
    match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda { device } => vec![cuda(device, options)],
        Provider::TensorRt { device } => {
            vec![tensorrt(device, options, engines), cuda(device, options)]
        }
    }
}

fn id(device: u32) -> i32 {
    i32::try_from(device).unwrap_or(i32::MAX)
}

fn cuda(device: u32, options: &GpuOptions) -> ExecutionProviderDispatch {
    let mut cuda = ep::CUDA::default()
        .with_device_id(id(device))
        // Doubling would take half of what is free for a model that needs little.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_tf32(options.tf32);
    if let Some(limit) = options.arena_limit {
        cuda = cuda.with_memory_limit(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    if options.cuda_graphs {
        cuda = cuda.with_cuda_graph(true);
    }
    if let Some(stream) = options.stream {
        #[expect(unsafe_code, reason = "the stream outlives the session")]
        // SAFETY: `ComputeStream` is a device's, which outlives the session by contract.
        let with_stream = unsafe { cuda.with_compute_stream(stream.pointer()) };
        cuda = with_stream;
    }
    cuda.build().error_on_failure()
}

fn tensorrt(
    device: u32,
    options: &GpuOptions,
    engines: Option<&EngineFolder>,
) -> ExecutionProviderDispatch {
    let TensorRtOptions {
        fp16,
        bf16,
        int8,
        workspace,
        optimization_level,
        profiles,
        ..
    } = &options.tensorrt;
    let mut trt = ep::TensorRT::default()
        .with_device_id(id(device))
        .with_fp16(*fp16)
        .with_bf16(*bf16)
        .with_int8(*int8);
    if let Some(bytes) = workspace {
        trt = trt.with_max_workspace_size(usize::try_from(*bytes).unwrap_or(usize::MAX));
    }
    if let Some(level) = optimization_level {
        trt = trt.with_builder_optimization_level(*level);
    }
    if !profiles.is_empty() {
        let [min, opt, max] = shapes(profiles);
        trt = trt
            .with_profile_min_shapes(min)
            .with_profile_opt_shapes(opt)
            .with_profile_max_shapes(max);
    }
    if let Some(folder) = engines {
        let path = folder.path().to_string_lossy();
        trt = trt
            .with_engine_cache(true)
            .with_engine_cache_path(&path)
            // What was measured, for the next engine of this model on this GPU.
            .with_timing_cache(true)
            .with_timing_cache_path(&path);
    }
    if let Some(stream) = options.stream {
        #[expect(unsafe_code, reason = "the stream outlives the session")]
        // SAFETY: `ComputeStream` is a device's, which outlives the session by contract.
        let with_stream = unsafe { trt.with_compute_stream(stream.pointer()) };
        trt = with_stream;
    }
    trt.build().error_on_failure()
}

/// Profiles for a graph whose inputs are all `[texts, tokens]`: from one token of one text
/// to `tokens` of `texts`.
///
/// # Errors
/// The graph cannot be read.
pub(crate) fn text_profiles(
    model: &Path,
    texts: usize,
    tokens: usize,
) -> Result<Vec<ShapeProfile>, LoadError> {
    /// Most texts are shorter than this.
    const USUAL_TOKENS: i64 = 128;
    const USUAL_TEXTS: i64 = 8;
    let bytes =
        std::fs::read(model).map_err(|error| wrong(model, &format!("cannot be read: {error}")))?;
    let graph = Model::read(&bytes).map_err(|error| wrong(model, &error.to_string()))?;
    let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX).max(1);
    let (texts, tokens) = (size(texts), size(tokens));
    let weights: HashSet<&str> = graph
        .initializers
        .iter()
        .map(|tensor| tensor.name)
        .collect();
    let fed = graph
        .inputs
        .iter()
        .filter(|input| !weights.contains(input.name));
    let profile = |name: &str| ShapeProfile {
        input: name.to_owned(),
        min: vec![1, 1],
        opt: vec![USUAL_TEXTS.min(texts), USUAL_TOKENS.min(tokens)],
        max: vec![texts, tokens],
    };
    Ok(fed.map(|input| profile(input.name)).collect())
}

/// Least, usual and greatest shapes as the provider reads them:
/// `input_ids:1x8,attention_mask:1x8`.
fn shapes(profiles: &[ShapeProfile]) -> [String; 3] {
    let of = |sizes: fn(&ShapeProfile) -> &[i64]| {
        let shape = |profile: &ShapeProfile| {
            let sizes: Vec<_> = sizes(profile).iter().map(ToString::to_string).collect();
            format!("{}:{}", profile.input, sizes.join("x"))
        };
        profiles.iter().map(shape).collect::<Vec<_>>().join(",")
    };
    [of(|p| &p.min), of(|p| &p.opt), of(|p| &p.max)]
}

#[cfg(test)]
mod tests;
