//! `[[deployment]]`: a model under a name.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::gpu::{CudaConfig, TensorRtConfig};
use super::human;
use crate::access::{Audience, Clearance};

/// One model as clients see it: a folder to load, or servers elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentConfig {
    /// What clients send as `model`.
    pub name: String,
    /// Name of the department that it is for; without one it is open to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<String>,
    /// The least clearance that a key needs to use it.
    #[serde(default)]
    pub clearance: Clearance,
    /// Folder (or `.onnx` file) to load into this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Base URLs of OpenAI-compatible servers, `http://host:port/v1`: one or a list.
    #[serde(
        default,
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub upstream: Vec<String>,
    /// Name under which the upstreams know the model; the deployment's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Answers carry the upstreams' name of the model, not the one that was asked for.
    #[serde(default)]
    pub keep_model_name: bool,
    /// Environment variable that holds the upstreams' API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Label of the version, for `x-sluice-revision` and metrics. Without it a
    /// folder's digest, or `remote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Sequences that are generated at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Tokens that one sequence may hold, prompt and answer; the model's own limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Memory for weights and K/V together; a model that needs more is refused.
    #[serde(
        default,
        with = "human::optional_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub memory: Option<usize>,
    /// CPU threads for a generative model; worker threads for an encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Requests that may wait for a slot; more is answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<usize>,
    /// Prompt tokens of one sequence that a step computes at most; the rest waits
    /// for the next step, so that long prompts do not hold up the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk: Option<usize>,
    /// Where it is computed.
    #[serde(default)]
    pub provider: ProviderConfig,
    /// GPUs to load it on, by CUDA's numbers: one replica on each. The first when none is
    /// named; for a provider that computes on GPUs only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<u32>,
    /// How ONNX Runtime uses the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaConfig>,
    /// How TensorRT builds engines and keeps them, for `provider = "tensorrt"` and
    /// `"tensorrt-native"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorrt: Option<TensorRtConfig>,
}

impl DeploymentConfig {
    /// A folder under a name, all else by default.
    #[must_use]
    pub fn of_folder(name: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(folder.into()),
            ..Self::named(name.into())
        }
    }

    /// An upstream under a name, all else by default.
    #[must_use]
    pub fn of_upstream(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            upstream: vec![url.into()],
            ..Self::named(name.into())
        }
    }

    /// Who may use it.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match &self.department {
            Some(department) => Audience::of_department(department.as_str(), self.clearance),
            None => Audience::to_all(self.clearance),
        }
    }

    /// Whether both load the same in the same way; who may use it is another question.
    #[must_use]
    pub fn loads_as(&self, other: &Self) -> bool {
        let other = Self {
            department: self.department.clone(),
            clearance: self.clearance,
            ..other.clone()
        };
        *self == other
    }

    /// Where its replicas run: GPUs by CUDA's numbers, or once on the CPU (`None`).
    #[must_use]
    pub fn places(&self) -> Vec<Option<u32>> {
        match (self.provider, self.devices.as_slice()) {
            (ProviderConfig::Cpu, _) => vec![None],
            (_, []) => vec![Some(0)],
            (_, devices) => devices.iter().copied().map(Some).collect(),
        }
    }

    fn named(name: String) -> Self {
        Self {
            name,
            department: None,
            clearance: Clearance::Public,
            path: None,
            upstream: Vec::new(),
            model: None,
            keep_model_name: false,
            api_key_env: None,
            revision: None,
            slots: None,
            context: None,
            memory: None,
            threads: None,
            max_waiting: None,
            prefill_chunk: None,
            provider: ProviderConfig::Cpu,
            devices: Vec::new(),
            cuda: None,
            tensorrt: None,
        }
    }
}

/// What computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderConfig {
    /// ONNX Runtime on the CPU.
    #[default]
    Cpu,
    /// ONNX Runtime on GPUs, by CUDA.
    Cuda,
    /// ONNX Runtime on GPUs, by TensorRT where it can and by CUDA where not.
    Tensorrt,
    /// TensorRT itself, for encoders and tensor models.
    #[serde(rename = "tensorrt-native")]
    TensorrtNative,
}

/// `"a"` or `["a", "b"]`.
fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;
    impl<'de> serde::de::Visitor<'de> for OneOrMany {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a URL or a list of URLs")
        }
        fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut many: A,
        ) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = many.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }
    input.deserialize_any(OneOrMany)
}
