//! `sluice.toml` → [`Config`]: read, checked, and with errors that name the
//! file, the line, the field and what would be right.

mod allow;
pub mod deployment;
mod gpu;
pub mod human;
mod replicas;
mod sandbox;
mod sections;
mod server;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use allow::{AllowConfig, NotAllowed};
pub use deployment::{DeploymentConfig, ProviderConfig};
pub use gpu::{CudaConfig, ProfileConfig, TensorRtConfig, options as gpu_options};
pub use replicas::{DevicesConfig, MemoryLimit, ReplicasConfig};
pub use sandbox::SandboxConfig;
pub use sections::{
    AuthConfig, ControlConfig, LimitsConfig, LogConfig, LogFormat, MetricsConfig, PrefixSharing,
    ReleaseConfig, ReleasesConfig, RevisionHeader, ServerConfig, TasksConfig, WebhookConfig,
};
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
    /// Not TOML, an unknown field, or a value of the wrong kind.
    #[error("{path}:{line}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line of the first offending character, from 1.
        line: usize,
        /// The parser's message, which names the field and what it expected.
        message: String,
    },
    /// A value that cannot work.
    #[error("{path}:{line}: `{field}` {message}")]
    Invalid {
        /// The file, or the environment variable that set the value.
        path: PathBuf,
        /// Line of the field, from 1; that of its section when it is missing.
        line: usize,
        /// Path of the field, such as `deployment.1.upstream`.
        field: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A value from the environment or the command line that cannot work.
    #[error("{name}: {message}")]
    Override {
        /// Name of the variable or option.
        name: String,
        /// What is wrong and what would be right.
        message: String,
    },
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
        let config: Self = toml::from_str(source).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(source, span.start)),
            message: plain(source, &error),
        })?;
        config
            .validate()
            .map_err(|(field, message)| ConfigError::Invalid {
                path: path.to_owned(),
                line: line_of(source, &field),
                field,
                message,
            })?;
        Ok(config)
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

    /// Checks what types cannot. The error is the field's path and what would be right.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), (String, String)> {
        self.validate_server()?;
        self.validate_limits()?;
        self.replicas.validate()?;
        validate_releases(&self.control.releases)?;
        self.control.allow.validate()?;
        self.sandbox.validate()?;
        for (index, deployment) in self.deployments.iter().enumerate() {
            validate_deployment(deployment)
                .map_err(|(field, message)| (format!("deployment.{index}.{field}"), message))?;
            if self.deployments[..index]
                .iter()
                .any(|other| other.name == deployment.name)
            {
                return Err((
                    format!("deployment.{index}.name"),
                    format!(
                        "`{}` is taken by an earlier deployment; names must be unique",
                        deployment.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), (String, String)> {
        self.upstream.validate()?;
        if self.limits.default_deadline > self.limits.max_deadline {
            return Err((
                "limits.default_deadline".to_owned(),
                "must not exceed `limits.max_deadline`".to_owned(),
            ));
        }
        for (field, share) in [
            ("upstream.retry_budget", self.upstream.retry_budget),
            ("upstream.max_ejected", self.upstream.max_ejected),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err((field.to_owned(), "must lie between 0 and 1".to_owned()));
            }
        }
        for (field, bounds) in [
            ("metrics.buckets", &self.metrics.buckets),
            ("metrics.token_buckets", &self.metrics.token_buckets),
        ] {
            let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
            if bounds.is_empty() || !ascending || bounds.iter().any(|b| !b.is_finite() || *b <= 0.0)
            {
                return Err((
                    field.to_owned(),
                    "must be positive numbers in ascending order".to_owned(),
                ));
            }
        }
        if self.metrics.native_schema > 8 {
            return Err((
                "metrics.native_schema".to_owned(),
                "must lie between 0 and 8".to_owned(),
            ));
        }
        Ok(())
    }
}

/// The names of events are the control plane's.
fn validate_releases(releases: &ReleasesConfig) -> Result<(), (String, String)> {
    if releases.pairs > MAX_PAIRS {
        let message = format!("must be at most {MAX_PAIRS}; 0 keeps none");
        return Err(("control.releases.pairs".to_owned(), message));
    }
    for (index, hook) in releases.webhooks.iter().enumerate() {
        let wrong = |field: &str, message: &str| {
            let field = format!("control.releases.webhooks.{index}.{field}");
            Err((field, message.to_owned()))
        };
        let uri = hook.url.parse::<http::Uri>().ok();
        let authority = uri.as_ref().and_then(|uri| {
            let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
            uri.authority()
                .filter(|it| is_http && !it.host().is_empty())
        });
        // The URL itself may hold a secret, and this message goes into logs.
        let Some(authority) = authority else {
            return wrong("url", "must look like https://host/path");
        };
        if authority.as_str().contains('@') {
            return wrong(
                "url",
                "must not hold a user or password: the signature tells who sends",
            );
        }
        if releases.webhooks[..index]
            .iter()
            .any(|other| other.url == hook.url)
        {
            return wrong(
                "url",
                "is that of an earlier webhook; name all events in one",
            );
        }
        match (&hook.secret_file, &hook.secret_env) {
            (Some(_), Some(_)) => {
                return wrong("secret_env", "and `secret_file` exclude each other");
            }
            (None, None) => {
                return wrong(
                    "secret_file",
                    "or `secret_env` must be given: events are signed",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Pairs of one release at most: all of them are looked at when one is added.
const MAX_PAIRS: usize = 10_000;

fn validate_deployment(deployment: &DeploymentConfig) -> Result<(), (&'static str, String)> {
    if deployment.name.is_empty() || deployment.name.len() > 256 {
        return Err(("name", "must have 1 to 256 characters".to_owned()));
    }
    match (&deployment.path, deployment.upstream.is_empty()) {
        (Some(_), false) => return Err(("upstream", "and `path` exclude each other".to_owned())),
        (None, true) => return Err(("path", "or `upstream` must be given".to_owned())),
        _ => {}
    }
    if deployment.upstream.len() > crate::remote::pool::MAX_UPSTREAMS {
        return Err((
            "upstream",
            format!("holds at most {} URLs", crate::remote::pool::MAX_UPSTREAMS),
        ));
    }
    for url in &deployment.upstream {
        let uri: http::Uri = url
            .parse()
            .map_err(|error| ("upstream", format!("`{url}` is no URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err((
                "upstream",
                format!("`{url}` must look like http://host:port/v1"),
            ));
        }
        if uri.query().is_some() {
            return Err(("upstream", format!("`{url}` must not have a query")));
        }
    }
    if deployment.path.is_some() {
        for (field, set) in [
            ("model", deployment.model.is_some()),
            ("keep_model_name", deployment.keep_model_name),
            ("api_key_env", deployment.api_key_env.is_some()),
        ] {
            if set {
                return Err((field, "is for `upstream` only".to_owned()));
            }
        }
    }
    gpu::validate(deployment)?;
    replicas::validate_devices(deployment)?;
    for (field, zero) in [
        ("slots", deployment.slots == Some(0)),
        ("context", deployment.context == Some(0)),
        ("threads", deployment.threads == Some(0)),
        ("max_waiting", deployment.max_waiting == Some(0)),
        ("prefill_chunk", deployment.prefill_chunk == Some(0)),
    ] {
        if zero {
            return Err((field, "must be at least 1".to_owned()));
        }
    }
    Ok(())
}

/// The parser's message in words that are not Rust's, after the field at fault.
fn plain(source: &str, error: &toml::de::Error) -> String {
    let mut message = error.message().to_owned();
    let kinds = [
        ("a whole number", &["usize", "u32", "u64"][..]),
        ("a number", &["f64"]),
    ];
    for (words, types) in kinds {
        for name in types {
            message = message.replace(&format!("expected {name}"), &format!("expected {words}"));
        }
    }
    match error.span().and_then(|span| key_before(source, span.start)) {
        Some(key) => format!("`{key}`: {message}"),
        None => message,
    }
}

/// The key whose value begins at a byte offset, if one does.
fn key_before(source: &str, offset: usize) -> Option<&str> {
    let before = source.get(..offset)?;
    let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
    let key = line.trim_end().strip_suffix('=')?.trim();
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!key.is_empty() && key.chars().all(is_key)).then_some(key)
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
