//! `[deployment.cuda]` and `[deployment.tensorrt]`: how a model runs on a GPU.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_engine::backend::onnx::{GpuOptions, ShapeProfile, TensorRtOptions};

use super::human;
use super::problem::Below;
use super::{DeploymentConfig, ProviderConfig};

/// How ONNX Runtime's CUDA provider runs a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaConfig {
    /// What ONNX Runtime may take on the device, for weights and activations; K/V and
    /// logits are not among them. No limit when absent.
    #[serde(with = "human::optional_size", skip_serializing_if = "Option::is_none")]
    pub arena_limit: Option<usize>,
    /// Capture decoding steps of language models as CUDA graphs; other models ignore it.
    pub graphs: bool,
    /// Compute products of single precision by TensorFloat-32.
    pub tf32: bool,
}

/// How TensorRT builds engines, for ONNX Runtime or alone, and keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRtConfig {
    /// Layers may compute in half precision. Alone, TensorRT computes in the types that
    /// the graph states; so these three are for `provider = "tensorrt"`.
    pub fp16: bool,
    /// Layers may compute in bfloat16.
    pub bf16: bool,
    /// Layers may compute in 8-bit integers, as the graph's quantisation says.
    pub int8: bool,
    /// Scratch memory of a layer; TensorRT's own choice when absent.
    #[serde(with = "human::optional_size", skip_serializing_if = "Option::is_none")]
    pub workspace: Option<usize>,
    /// 0 builds fast, 5 searches longest; TensorRT's own choice (3) when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimization_level: Option<u8>,
    /// Folder of built engines; `tensorrt` in the data folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Models whose engines are kept in that folder.
    pub keep: usize,
    /// Shapes that engines are built for, one entry an input. An encoder's are made from its
    /// graph when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileConfig>,
}

impl Default for TensorRtConfig {
    fn default() -> Self {
        Self {
            fp16: false,
            bf16: false,
            int8: false,
            workspace: None,
            optimization_level: None,
            cache: None,
            keep: TensorRtOptions::default().keep,
            profiles: Vec::new(),
        }
    }
}

/// Shapes of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileConfig {
    /// Name in the graph.
    pub input: String,
    /// Least size of each dimension.
    pub min: Vec<i64>,
    /// Usual size of each dimension.
    pub opt: Vec<i64>,
    /// Greatest size of each dimension.
    pub max: Vec<i64>,
}

impl From<ProfileConfig> for ShapeProfile {
    fn from(profile: ProfileConfig) -> Self {
        Self {
            input: profile.input,
            min: profile.min,
            opt: profile.opt,
            max: profile.max,
        }
    }
}

/// What the engine is told; engines are kept in `data` where no folder is configured.
#[must_use]
pub fn options(deployment: &DeploymentConfig, data: &Path) -> GpuOptions {
    let cuda = deployment.cuda.clone().unwrap_or_default();
    let trt = deployment.tensorrt.clone().unwrap_or_default();
    let bytes = |size: Option<usize>| size.map(|size| size as u64);
    GpuOptions {
        arena_limit: bytes(cuda.arena_limit),
        cuda_graphs: cuda.graphs,
        tf32: cuda.tf32,
        tensorrt: TensorRtOptions {
            fp16: trt.fp16,
            bf16: trt.bf16,
            int8: trt.int8,
            workspace: bytes(trt.workspace),
            optimization_level: trt.optimization_level,
            cache: Some(trt.cache.unwrap_or_else(|| data.join("tensorrt/engines"))),
            keep: trt.keep,
            profiles: trt.profiles.into_iter().map(ShapeProfile::from).collect(),
        },
        stream: None,
    }
}

pub(super) fn check(deployment: &DeploymentConfig, here: &mut Below<'_>) {
    let provider = deployment.provider;
    let with_cuda = matches!(provider, ProviderConfig::Cuda | ProviderConfig::Tensorrt);
    let at_least_1 = "must be at least 1; leave it out for no limit";
    if let Some(cuda) = &deployment.cuda {
        let right = "is for `provider = \"cuda\"` and \"tensorrt\" only";
        here.expect(with_cuda, "cuda", right);
        here.expect(cuda.arena_limit != Some(0), "cuda.arena_limit", at_least_1);
    }
    let Some(tensorrt) = &deployment.tensorrt else {
        return;
    };
    let native = provider == ProviderConfig::TensorrtNative;
    if provider != ProviderConfig::Tensorrt && !native {
        let right = "is for `provider = \"tensorrt\"` and \"tensorrt-native\" only";
        return here.add("tensorrt", right);
    }
    for (field, asked) in [
        ("tensorrt.fp16", tensorrt.fp16),
        ("tensorrt.bf16", tensorrt.bf16),
        ("tensorrt.int8", tensorrt.int8),
    ] {
        let right = "is for `provider = \"tensorrt\"`; \"tensorrt-native\" computes in the types \
                     that the graph states: convert the graph";
        here.expect(!(native && asked), field, right);
    }
    let level = tensorrt.optimization_level.is_none_or(|level| level <= 5);
    here.expect(level, "tensorrt.optimization_level", "must be 0 to 5");
    here.expect(tensorrt.keep > 0, "tensorrt.keep", "must be at least 1");
    let workspace = tensorrt.workspace != Some(0);
    here.expect(workspace, "tensorrt.workspace", at_least_1);
    if let Err(message) = validate_profiles(&tensorrt.profiles) {
        here.add("tensorrt.profiles", message);
    }
}

fn validate_profiles(profiles: &[ProfileConfig]) -> Result<(), String> {
    for (index, profile) in profiles.iter().enumerate() {
        let input = &profile.input;
        if input.is_empty() {
            return Err("must each name an input of the graph".to_owned());
        }
        if profiles[..index].iter().any(|other| other.input == *input) {
            return Err(format!("name `{input}` twice; write one entry an input"));
        }
        if !ShapeProfile::from(profile.clone()).rises() {
            return Err(format!(
                "of `{input}` must have min, opt and max of as many dimensions, 1 <= min <= opt <= max in each"
            ));
        }
    }
    Ok(())
}
