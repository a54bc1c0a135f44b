//! `[devices]` and `[replicas]`: what models in this process may hold, and what becomes
//! of them when their executor is lost.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::times;
use super::problem::Below;
use super::{DeploymentConfig, Problems, ProviderConfig, human};
use crate::replicas::MAX_REPLICAS;

/// `[devices]`: the memory of the GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DevicesConfig {
    /// What all models together may hold of each GPU.
    pub memory: MemoryLimit,
    /// What each model is counted with beside its weights and K/V: activations and what
    /// the runtime keeps for itself.
    #[serde(with = "human::size")]
    pub workspace: usize,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self {
            memory: MemoryLimit::Percent(90),
            workspace: 1 << 30,
        }
    }
}

/// A share of a GPU's memory (`"90%"`), or so many bytes of it (`"70GiB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// 1 to 100.
    Percent(u8),
    /// Bytes; never more than there are.
    Bytes(u64),
}

impl MemoryLimit {
    /// # Errors
    /// The text is neither; the message says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no share and no size; write for example \"90%\" or \"70GiB\"");
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => human::parse_size(text)
                .map(Self::Bytes)
                .map_err(|_| wrong()),
        }
    }

    /// Bytes of a device that has `total`.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Percent(percent) => total / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes.min(total),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Percent(percent) => output.collect_str(&format_args!("{percent}%")),
            Self::Bytes(bytes) => output.serialize_str(&human::format_size(*bytes)),
        }
    }
}

/// `[replicas]`: models in this process whose executor is lost to an error of the
/// device or a crash of the runtime are loaded again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicasConfig {
    /// Runs that fail in a row after which an executor counts as lost; 0 is never.
    pub failed_runs: u32,
    /// Restarts of one replica within the window; when it is lost once more, it is given up.
    pub max_restarts: u32,
    /// In which they are counted.
    #[serde(with = "human::duration")]
    pub restart_window: Duration,
    /// Before the second restart in the window; each further one doubles it. The first is
    /// made at once.
    #[serde(with = "human::duration")]
    pub restart_pause: Duration,
    /// No pause is longer.
    #[serde(with = "human::duration")]
    pub restart_pause_max: Duration,
}

impl Default for ReplicasConfig {
    fn default() -> Self {
        Self {
            failed_runs: sluice_engine::backend::FAILED_RUNS,
            max_restarts: 10,
            restart_window: Duration::from_secs(30 * 60),
            restart_pause: Duration::from_secs(1),
            restart_pause_max: Duration::from_secs(5 * 60),
        }
    }
}

impl ReplicasConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        times(
            problems,
            &[("replicas.restart_window", self.restart_window)],
        );
        problems.expect(
            self.restart_pause <= self.restart_pause_max,
            "replicas.restart_pause",
            "must not exceed `replicas.restart_pause_max`",
        );
    }
}

/// The `devices` of one deployment.
pub(super) fn check_devices(deployment: &DeploymentConfig, here: &mut Below<'_>) {
    let devices = &deployment.devices;
    if devices.is_empty() {
        return;
    }
    if deployment.path.is_none() || deployment.provider == ProviderConfig::Cpu {
        let right = "is for `provider = \"cuda\"` and \"tensorrt\" only";
        return here.add("devices", right);
    }
    if devices.len() > MAX_REPLICAS {
        here.add("devices", format!("holds at most {MAX_REPLICAS} numbers"));
    }
    let mut places = devices.iter().enumerate();
    if let Some((_, twice)) = places.find(|(place, device)| devices[..*place].contains(device)) {
        here.add("devices", format!("names GPU {twice} twice"));
    }
}
