//! `sluice.toml` → [`Config`]: read, checked, and with errors that name the
//! file, the line, the field and what would be right.

mod allow;
mod check;
pub mod deployment;
mod gpu;
mod grammar;
pub mod human;
mod problem;
mod read;
mod replicas;
mod sandbox;
mod sections;
mod server;
mod templates;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use allow::{AllowConfig, NotAllowed};
pub use deployment::{DeploymentConfig, ProviderConfig};
pub use gpu::{CudaConfig, ProfileConfig, TensorRtConfig, options as gpu_options};
pub use grammar::GrammarConfig;
pub use problem::{Problem, Problems};
pub use replicas::{DevicesConfig, MemoryLimit, ReplicasConfig};
pub use sandbox::SandboxConfig;
pub use sections::{
    AuthConfig, ControlConfig, LimitsConfig, LogConfig, LogFormat, MetricsConfig, PrefixSharing,
    ReleaseConfig, ReleasesConfig, RevisionHeader, ServerConfig, TasksConfig, WebhookConfig,
};
pub use templates::TemplatesConfig;
pub use upstream::UpstreamConfig;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder for models, the runtime library and state.
    pub data: PathBuf,
    /// `[server]`.
    pub server: ServerConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[grammar]`.
    pub grammar: GrammarConfig,
    /// `[templates]`.
    pub templates: TemplatesConfig,
    /// `[upstream]`.
    pub upstream: UpstreamConfig,
    /// `[devices]`.
    pub devices: DevicesConfig,
    /// `[replicas]`.
    pub replicas: ReplicasConfig,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[release]`.
    pub release: ReleaseConfig,
    /// `[sandbox]`.
    pub sandbox: SandboxConfig,
    /// `[control]`.
    pub control: ControlConfig,
    /// `[[deployment]]`, one a model.
    #[serde(rename = "deployment")]
    pub deployments: Vec<DeploymentConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("data"),
            server: ServerConfig::default(),
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            grammar: GrammarConfig::default(),
            templates: TemplatesConfig::default(),
            upstream: UpstreamConfig::default(),
            devices: DevicesConfig::default(),
            replicas: ReplicasConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            release: ReleaseConfig::default(),
            sandbox: SandboxConfig::default(),
            control: ControlConfig::default(),
            deployments: Vec::new(),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{path}:{line}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line of the first offending character, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// Unknown fields, and values that cannot be read or cannot work: all of them.
    #[error("{}", Placed::lines(.0))]
    Invalid(Vec<Placed>),
    /// A value from the environment or the command line that cannot work.
    #[error("{name}: {message}")]
    Override {
        /// Name of the variable or option.
        name: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// A problem and where in a file it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The file; empty where the value came with the command or the environment alone.
    pub file: PathBuf,
    /// Line of the field, from 1; that of its section when it is missing.
    pub line: usize,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

impl Placed {
    /// Problems of the configuration that stands in `source`.
    #[must_use]
    pub fn of(problems: Vec<Problem>, source: &str, file: &Path) -> Vec<Self> {
        let placed = problems.into_iter().map(|problem| Self {
            file: file.to_owned(),
            line: line_of(source, &problem.field),
            problem,
        });
        let mut placed: Vec<Self> = placed.collect();
        placed.sort_by_key(|it| it.line);
        placed
    }

    /// One a line.
    #[must_use]
    pub fn lines(all: &[Self]) -> String {
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

impl std::fmt::Display for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.file.as_os_str().is_empty() {
            return write!(f, "{}", self.problem);
        }
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.problem)
    }
}

impl Config {
    /// Reads a file and applies `SLUICE_LISTEN` and `SLUICE_DATA`.
    ///
    /// # Errors
    /// Anything that [`ConfigError`] names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&source, path)?.with_environment(|name| std::env::var(name).ok())
    }

    /// The same from a text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Parse`] and [`ConfigError::Invalid`].
    pub fn parse(source: &str, path: &Path) -> Result<Self, ConfigError> {
        let (config, problems) = Self::examine(source, path)?;
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::Invalid(Placed::of(problems, source, path))),
        }
    }

    /// The same with all that is wrong, and with what could be read of the rest.
    ///
    /// # Errors
    /// [`ConfigError::Parse`].
    pub fn examine(source: &str, path: &Path) -> Result<(Self, Vec<Problem>), ConfigError> {
        read::config(source).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: line_at(source, error.offset),
            message: error.message,
        })
    }

    /// `SLUICE_LISTEN` and `SLUICE_DATA` win over the file.
    ///
    /// # Errors
    /// `SLUICE_LISTEN` is no address.
    pub fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        if let Some(listen) = variable("SLUICE_LISTEN") {
            self.listen = listen.parse().map_err(|_| ConfigError::Override {
                name: "SLUICE_LISTEN".to_owned(),
                message: format!("`{listen}` is no address; write for example 127.0.0.1:8080"),
            })?;
        }
        if let Some(data) = variable("SLUICE_DATA") {
            self.data = PathBuf::from(data);
        }
        Ok(self)
    }
}

/// Line of a byte offset, from 1.
fn line_at(source: &str, offset: usize) -> usize {
    1 + source.as_bytes()[..offset.min(source.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// Line where the field `a.b` or `a.0.b` stands, or the nearest table around it.
fn line_of(source: &str, field: &str) -> usize {
    let Ok(document) = toml::de::DeTable::parse(source) else {
        return 1;
    };
    let mut line = 1;
    let mut here: Option<&toml::de::DeValue<'_>> = None;
    for part in field.split('.') {
        let next = match here {
            None => document.get_ref().get(part),
            Some(toml::de::DeValue::Table(table)) => table.get(part),
            Some(toml::de::DeValue::Array(array)) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| array.get(index)),
            Some(_) => None,
        };
        let Some(found) = next else { break };
        line = line_at(source, found.span().start);
        here = Some(found.get_ref());
    }
    line
}
