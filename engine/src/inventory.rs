//! What there is to run models on, what is missing for the rest, and what to install:
//! the facts behind `sluice doctor`.

use std::fs;
use std::path::Path;

use serde::Serialize;
use sluice_tensorrt::OpenError;

use crate::backend::onnx::{Provider, RuntimeInfo, has_provider, init_runtime};
use crate::cuda::{
    self, Absent, Gpu, NvidiaLibrary, WANTED_DRIVER, discover, driver_version, open_provider,
};

/// How a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    Found,
    /// It is not there.
    Missing,
    /// It is there and cannot be used.
    Unusable,
}

/// One part of what serving needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// For example `cuDNN`.
    pub part: &'static str,
    /// How it stands.
    pub state: State,
    /// Version and file, or what is wrong.
    pub detail: String,
    /// What to do about it; `None` where nothing is amiss, or nothing can be done.
    pub remedy: Option<String>,
}

/// Whether a deployment with this `provider` can be served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// As in the configuration: `cpu`, `cuda`, `tensorrt`, `tensorrt-native`.
    pub provider: &'static str,
    /// Whether it can.
    pub ready: bool,
    /// The first thing that stands in the way.
    pub reason: Option<String>,
}

/// A GPU in the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuEntry {
    /// CUDA's number of it.
    pub ordinal: u32,
    /// For example `NVIDIA H200`.
    pub name: String,
    /// Compute capability, for example `9.0`.
    pub capability: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// By provider, the simplest first.
    pub providers: Vec<Readiness>,
    /// By part, in the order in which they need each other.
    pub findings: Vec<Finding>,
    /// The GPUs that this process may use.
    pub gpus: Vec<GpuEntry>,
}

/// What each provider needs, by part.
const NEEDS: [(&str, &[&str]); 4] = [
    ("cpu", &["ONNX Runtime"]),
    (
        "cuda",
        &["ONNX Runtime", "driver", "GPU", "kernels", "CUDA provider"],
    ),
    (
        "tensorrt",
        &[
            "ONNX Runtime",
            "driver",
            "GPU",
            "kernels",
            "CUDA provider",
            "TensorRT",
            "TensorRT provider",
        ],
    ),
    (
        "tensorrt-native",
        &["driver", "GPU", "kernels", "native TensorRT"],
    ),
];

impl Inventory {
    /// Looks at this machine. `library` is ONNX Runtime's file, as [`init_runtime`]
    /// takes it.
    #[must_use]
    pub fn take(library: Option<&Path>) -> Self {
        let devices = discover();
        let runtime = init_runtime(library).map_err(|error| error.to_string());
        let mut findings = vec![gpu(&devices), driver(&devices)];
        findings.push(kernels());
        findings.extend(LIBRARIES.iter().map(nvidia_library));
        findings.push(runtime_library(&runtime));
        findings.push(provider(&runtime, &CUDA_PROVIDER));
        findings.push(provider(&runtime, &TENSORRT_PROVIDER));
        findings.push(native_tensorrt());
        let providers = NEEDS.map(|(provider, needs)| readiness(provider, needs, &findings));
        Self {
            providers: providers.into(),
            findings,
            gpus: devices.into_iter().flatten().map(GpuEntry::from).collect(),
        }
    }
}

impl From<Gpu> for GpuEntry {
    fn from(gpu: Gpu) -> Self {
        Self {
            ordinal: gpu.ordinal,
            name: gpu.name,
            capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
            memory: gpu.memory,
        }
    }
}

/// The first of the parts that a provider needs and that is not found.
fn readiness(provider: &'static str, needs: &[&str], findings: &[Finding]) -> Readiness {
    let lacks = needs.iter().find_map(|need| {
        let finding = findings.iter().find(|finding| finding.part == *need)?;
        (finding.state != State::Found).then(|| format!("{need}: {}", finding.detail))
    });
    Readiness {
        provider,
        ready: lacks.is_none(),
        reason: lacks,
    }
}

fn finding(part: &'static str, state: State, detail: String, remedy: Option<&str>) -> Finding {
    Finding {
        part,
        state,
        detail,
        remedy: remedy.map(str::to_owned),
    }
}

fn gpu(devices: &Result<Vec<Gpu>, Absent>) -> Finding {
    match devices {
        Ok(gpus) => {
            let names: Vec<String> = gpus
                .iter()
                .map(|gpu| {
                    format!(
                        "{} ({:.1} GiB)",
                        gpu.name,
                        gpu.memory as f64 / f64::from(1 << 30)
                    )
                })
                .collect();
            finding("GPU", State::Found, names.join(", "), None)
        }
        Err(Absent::NoDevice) => finding(
            "GPU",
            State::Missing,
            Absent::NoDevice.to_string(),
            Some("in a container: start it with --gpus all; else see what nvidia-smi says"),
        ),
        Err(_) if on_the_bus(Path::new("/sys/bus/pci/devices")) => finding(
            "GPU",
            State::Unusable,
            "an NVIDIA GPU is in this machine, and no driver answers for it".to_owned(),
            Some(DRIVER_REMEDY),
        ),
        Err(_) => finding(
            "GPU",
            State::Missing,
            "no NVIDIA GPU is in this machine".to_owned(),
            None,
        ),
    }
}

/// Whether a display controller or accelerator of NVIDIA's is on the PCI bus.
fn on_the_bus(devices: &Path) -> bool {
    let read =
        |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .any(|device| {
            let folder = device.path();
            read(&folder, "vendor").trim() == "0x10de" && read(&folder, "class").starts_with("0x03")
        })
}

const DRIVER_REMEDY: &str = "install NVIDIA's driver 580 or newer (CUDA 13)";

fn driver(devices: &Result<Vec<Gpu>, Absent>) -> Finding {
    let module = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let module = module.lines().next().and_then(|line| {
        let number =
            |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        line.split_whitespace().find(number)
    });
    match driver_version() {
        Ok(version) => {
            let cuda = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
            let detail = match module {
                Some(module) => format!("{module}, {cuda}"),
                None => cuda,
            };
            match devices {
                _ if version < WANTED_DRIVER => {
                    finding("driver", State::Unusable, detail, Some(DRIVER_REMEDY))
                }
                Err(Absent::Refused(reason)) => finding(
                    "driver",
                    State::Unusable,
                    format!("{detail}; it answers {reason}"),
                    Some("see what nvidia-smi says; a restart of the machine often helps"),
                ),
                _ => finding("driver", State::Found, detail, None),
            }
        }
        Err(absent) => {
            let (state, detail) = match absent {
                Absent::NoDriver => (State::Missing, "libcuda.so is not installed".to_owned()),
                other => (State::Unusable, other.to_string()),
            };
            finding("driver", state, detail, Some(DRIVER_REMEDY))
        }
    }
}

fn kernels() -> Finding {
    if cuda::compiled_ahead() {
        let detail = "compiled into this binary for sm_80 and sm_90".to_owned();
        return finding("kernels", State::Found, detail, None);
    }
    let source = "as source in this binary";
    if cuda::has_runtime_compiler() {
        let detail = format!("{source}; NVRTC compiles them at the start");
        return finding("kernels", State::Found, detail, None);
    }
    finding(
        "kernels",
        State::Unusable,
        format!("{source}, and NVRTC is not installed"),
        Some("install NVRTC (pip: nvidia-cuda-nvrtc), or build sluice where nvcc is"),
    )
}

struct Library {
    part: &'static str,
    library: NvidiaLibrary,
    remedy: Option<&'static str>,
}

const LIBRARIES: [Library; 5] = [
    Library {
        part: "NVRTC",
        library: NvidiaLibrary::Nvrtc,
        // The kernels say what to do.
        remedy: None,
    },
    Library {
        part: "CUDA runtime",
        library: NvidiaLibrary::Cudart,
        remedy: Some("install CUDA 13's runtime (pip: nvidia-cuda-runtime)"),
    },
    Library {
        part: "cuBLAS",
        library: NvidiaLibrary::Cublas,
        remedy: Some("install CUDA 13's cuBLAS (pip: nvidia-cublas)"),
    },
    Library {
        part: "cuDNN",
        library: NvidiaLibrary::Cudnn,
        remedy: Some("install cuDNN 9 for CUDA 13 (pip: nvidia-cudnn-cu13)"),
    },
    Library {
        part: "TensorRT",
        library: NvidiaLibrary::TensorRt,
        remedy: Some("install TensorRT's runtime (libnvinfer), for provider = \"tensorrt\" only"),
    },
];

fn nvidia_library(wanted: &Library) -> Finding {
    match wanted.library.open() {
        Ok(opened) => {
            let file = match &opened.path {
                Some(path) => path.display().to_string(),
                None => opened.name.to_owned(),
            };
            let detail = match opened.version {
                Some(version) => format!("{version}, {file}"),
                None => file,
            };
            finding(wanted.part, State::Found, detail, None)
        }
        Err(error) => finding(wanted.part, State::Missing, error, wanted.remedy),
    }
}

fn runtime_library(runtime: &Result<RuntimeInfo, String>) -> Finding {
    match runtime {
        Ok(found) => {
            let detail = format!("{}, {}", found.version, found.path.display());
            finding("ONNX Runtime", State::Found, detail, None)
        }
        Err(error) => finding(
            "ONNX Runtime",
            State::Missing,
            error.clone(),
            Some("`make models` fetches it; or set ORT_DYLIB_PATH to libonnxruntime.so"),
        ),
    }
}

struct Wanted {
    part: &'static str,
    provider: Provider,
    /// As in the provider's file name.
    name: &'static str,
}

const CUDA_PROVIDER: Wanted = Wanted {
    part: "CUDA provider",
    provider: Provider::Cuda { device: 0 },
    name: "cuda",
};

const TENSORRT_PROVIDER: Wanted = Wanted {
    part: "TensorRT provider",
    provider: Provider::TensorRt { device: 0 },
    name: "tensorrt",
};

fn provider(runtime: &Result<RuntimeInfo, String>, wanted: &Wanted) -> Finding {
    const REMEDY: &str = "use the library of onnxruntime-gpu 1.27 or newer (CUDA 13), with \
                          libonnxruntime_providers_*.so beside it";
    let Ok(found) = runtime else {
        let detail = "ONNX Runtime is not there".to_owned();
        return finding(wanted.part, State::Missing, detail, None);
    };
    if !has_provider(wanted.provider) {
        let detail = format!("not in {}", found.path.display());
        return finding(wanted.part, State::Missing, detail, Some(REMEDY));
    }
    let folder = found.path.parent().unwrap_or(Path::new("."));
    match open_provider(folder, wanted.name) {
        Ok(file) => finding(wanted.part, State::Found, file.display().to_string(), None),
        Err(error) => finding(
            wanted.part,
            State::Unusable,
            error,
            Some(
                "install what it names (see the lines above), or put its folder into LD_LIBRARY_PATH",
            ),
        ),
    }
}

/// What `provider = "tensorrt-native"` computes with; of another version than that which
/// ONNX Runtime wants.
fn native_tensorrt() -> Finding {
    const PART: &str = "native TensorRT";
    const INSTALL: &str = "install TensorRT 11 (libnvinfer, and libnvonnxparser to build engines), \
                           or name libnvinfer in SLUICE_TENSORRT; for provider = \
                           \"tensorrt-native\" only";
    match sluice_tensorrt::find(None) {
        Ok(found) => {
            let builds = match found.builder {
                true => "",
                false => "; it runs engines and builds none",
            };
            let detail = format!("{}, {}{builds}", found.version, found.path.display());
            finding(PART, State::Found, detail, None)
        }
        Err(error) => {
            let (state, remedy) = match error {
                OpenError::NotBuilt => (
                    State::Missing,
                    "run scripts/tensorrt.sh headers and build sluice again; for provider = \
                     \"tensorrt-native\" only",
                ),
                OpenError::NotFound { .. } => (State::Missing, INSTALL),
                _ => (State::Unusable, INSTALL),
            };
            finding(PART, state, error.to_string(), Some(remedy))
        }
    }
}

#[cfg(test)]
mod tests;
