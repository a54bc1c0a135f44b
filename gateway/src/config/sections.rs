//! The sections of `sluice.toml`, with their defaults. `sluice.example.toml`
//! documents each; a test keeps the two equal.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AllowConfig, human};

/// Who is told by `x-sluice-revision` which revision has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevisionHeader {
    /// Everyone.
    All,
    /// Keys of people and programs who operate deployments.
    Operators,
    /// Nobody.
    None,
}

/// `[server]`: the listener and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Threads that serve connections; 0 is one per CPU.
    pub threads: usize,
    /// PEM file with the certificate chain; with `tls_key` turns TLS on.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub tls_key: Option<PathBuf>,
    /// Web pages that may read the answers: origins such as `https://app.example.com`,
    /// or `*` for any. None by default.
    pub cors_origins: Vec<String>,
    /// Who is told by `x-sluice-revision` which revision has answered.
    pub revision_header: RevisionHeader,
    /// Names beside those of loopback under which the server may be asked while authentication
    /// is off: `host`, or `host:port`. Others are answered 403, since a web page could have
    /// pointed its own name here (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// Largest request body; more is answered 413.
    #[serde(with = "human::size")]
    pub max_body: usize,
    /// Largest request head; more is answered 431.
    #[serde(with = "human::size")]
    pub max_head: usize,
    /// Connections open at once; further ones wait in the system's backlog.
    pub max_connections: usize,
    /// Connections open at once from one address; further ones are closed at once. 0 is any
    /// number, which a server behind a proxy needs.
    pub max_connections_per_peer: usize,
    /// Requests open at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Time to send a request's head, from its first byte (or from connecting).
    #[serde(with = "human::duration")]
    pub head_timeout: Duration,
    /// Time to send a request's body.
    #[serde(with = "human::duration")]
    pub body_timeout: Duration,
    /// Bytes a second at which a body must come on average, after `head_timeout` of waiting for
    /// it; slower ones are answered 408. 0 is any rate.
    #[serde(with = "human::size")]
    pub min_body_rate: usize,
    /// How long a body that nobody wants is still read behind its answer.
    #[serde(with = "human::duration")]
    pub linger_timeout: Duration,
    /// A connection without a request is closed after this.
    #[serde(with = "human::duration")]
    pub idle_timeout: Duration,
    /// A client that reads nothing of its answer for this long is dropped.
    #[serde(with = "human::duration")]
    pub write_timeout: Duration,
    /// After SIGTERM: how long to go on accepting while `/health/ready` already
    /// says no, so that load balancers notice.
    #[serde(with = "human::duration")]
    pub drain_grace: Duration,
    /// After that: how long requests in flight may take to finish.
    #[serde(with = "human::duration")]
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            tls_cert: None,
            tls_key: None,
            cors_origins: Vec::new(),
            revision_header: RevisionHeader::All,
            allowed_hosts: Vec::new(),
            max_body: 8 << 20,
            max_head: 64 << 10,
            max_connections: 10_000,
            max_connections_per_peer: 0,
            max_streams: 256,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            min_body_rate: 1 << 10,
            linger_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            drain_grace: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(60),
        }
    }
}

/// Who may reuse the K/V of whose prompts. Reuse shows in `cached_tokens` and in the time to the
/// first token, and so tells who may reuse whether somebody sent a text before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixSharing {
    /// Keys of one department; a key without a department its own only.
    Department,
    /// Each key its own only.
    Key,
    /// Everybody everybody's.
    All,
}

/// `[auth]`: who may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Require an API key. Must be on to listen beyond loopback.
    pub required: bool,
    /// TOML file with `[[key]]` tables; read again on SIGHUP.
    pub keys_file: Option<PathBuf>,
    /// Serve `/metrics` and `/api/v1/stats` without a key. `/health/*` never needs one.
    pub open_metrics: bool,
    /// Who may reuse the K/V of whose prompts: `department`, `key` or `all`.
    pub prefix_sharing: PrefixSharing,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            required: false,
            keys_file: None,
            open_metrics: true,
            prefix_sharing: PrefixSharing::Department,
        }
    }
}

/// `[limits]`: how much, unless a key says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests of one key a minute; 0 is unlimited. More is answered 429.
    pub requests_per_minute: u32,
    /// Prompt and completion tokens of one key a minute; 0 is unlimited.
    pub tokens_per_minute: u32,
    /// Requests of one key a minute that are no inference: the control plane, lists of models; 0 is unlimited. They use
    /// up nothing of the limits above, nor of quotas, and taking back is never refused.
    pub control_requests_per_minute: u32,
    /// Requests in flight, over all keys; more is answered 503 at once.
    pub max_in_flight: usize,
    /// Requests to the control plane in flight, over all keys, until their answers begin; more
    /// is answered 503 at once, except what takes a revision back.
    pub max_control_in_flight: usize,
    /// Bodies of one key that are under way at once; more is answered 429. Bodies that come with
    /// their heads do not count.
    pub max_bodies_per_key: usize,
    /// Tokens that `/tokenize` and `/detokenize` take at once, at least: a longer context counts
    /// if the model has one.
    pub max_tokenize: usize,
    /// Deadline of a request that brings no `x-request-timeout-ms`.
    #[serde(with = "human::duration")]
    pub default_deadline: Duration,
    /// Longest deadline that a request may ask for.
    #[serde(with = "human::duration")]
    pub max_deadline: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            requests_per_minute: 0,
            tokens_per_minute: 0,
            control_requests_per_minute: 12_000,
            max_in_flight: 1024,
            max_control_in_flight: 512,
            max_bodies_per_key: 128,
            max_tokenize: 128 << 10,
            default_deadline: Duration::from_secs(600),
            max_deadline: Duration::from_secs(3600),
        }
    }
}

/// `[metrics]`: what `/metrics` and the in-process quantiles hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Upper bounds of the latency histograms' buckets, seconds, ascending.
    pub buckets: Vec<f64>,
    /// Upper bounds of the token-count histograms' buckets, ascending.
    pub token_buckets: Vec<f64>,
    /// Resolution of native histograms, 0 to 8: each power of two has 2 to this many buckets.
    pub native_schema: u8,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            buckets: vec![
                0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075,
                0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0,
                5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0,
            ],
            token_buckets: vec![
                1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0,
                10_000.0, 20_000.0, 50_000.0, 100_000.0,
            ],
            native_schema: 7,
        }
    }
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `json` unless standard output is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// Columns for people.
    Pretty,
    /// No access log.
    Off,
}

/// `[log]`: the access log. Prompts and answers are never in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Format of the access log.
    pub format: LogFormat,
    /// File to append to; standard output when absent.
    pub file: Option<PathBuf>,
    /// Requests that may wait to be logged; beyond that lines are dropped and counted.
    pub buffer: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            file: None,
            buffer: 16_384,
        }
    }
}

/// `[release]`: what two revisions of one deployment cost while they are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseConfig {
    /// Copies of requests that candidates answer at once; 0 is none.
    pub shadow_concurrency: usize,
    /// Copies that may wait for that; beyond it they are dropped and counted.
    pub shadow_waiting: usize,
    /// Larger requests are not copied.
    #[serde(with = "human::size")]
    pub shadow_max_body: usize,
    /// Time that a candidate has for a copy.
    #[serde(with = "human::duration")]
    pub shadow_timeout: Duration,
    /// Bytes of an answer that are read to compare or check it.
    #[serde(with = "human::size")]
    pub max_answer: usize,
}

impl Default for ReleaseConfig {
    fn default() -> Self {
        Self {
            shadow_concurrency: 4,
            shadow_waiting: 64,
            shadow_max_body: 256 << 10,
            shadow_timeout: Duration::from_secs(120),
            max_answer: 64 << 10,
        }
    }
}

/// `[control]`: the control plane, as far as the file says. The gateway itself knows no more of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Records, states and decisions under `/api/v1`.
    pub enabled: bool,
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`; absent is `sluice.db` in the data folder.
    pub database: Option<String>,
    /// Connections to the database at most.
    pub connections: u32,
    /// SQLite only: every commit is on the disk before it is reported.
    pub full_sync: bool,
    /// Largest JSON body under `/api/v1`; more is answered 413.
    #[serde(with = "human::size")]
    pub max_body: usize,
    /// How long the answer to a write with an `Idempotency-Key` is kept.
    #[serde(with = "human::duration")]
    pub idempotency_keep: Duration,
    /// How long a write with an `Idempotency-Key` holds its key without renewing it: after so long, a repeated
    /// request takes over from a process that died.
    #[serde(with = "human::duration")]
    pub idempotency_lease: Duration,
    /// Weights and K/V of all models that work orders and evaluations load; absent is 60 % of the memory that
    /// is there at the start.
    #[serde(with = "human::optional_size")]
    pub memory: Option<usize>,
    pub tasks: TasksConfig,
    pub releases: ReleasesConfig,
    pub allow: AllowConfig,
    /// Where content lies and what is taken; its words are the control plane's own.
    pub artifacts: serde_json::Map<String, serde_json::Value>,
}

/// `[control.tasks]`: what this process does of the long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// Tasks at once; 0 leaves conversions and imports to `sluice worker`, and runs no evaluations.
    pub slots: usize,
    /// Conversions at once, over all workers on the database.
    pub conversions: u32,
    /// Memory of one conversion with all its processes; it fails when it uses more.
    #[serde(with = "human::optional_size")]
    pub memory: Option<usize>,
    /// Where conversion pipelines lie.
    pub pipelines: PathBuf,
    /// Where their Python environments are made, each when it is first needed; absent is `venv` in the data folder.
    pub environments: Option<PathBuf>,
    /// How long running tasks may go on when the process stops; others are given back.
    #[serde(with = "human::duration")]
    pub drain: Duration,
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            slots: 2,
            conversions: 1,
            memory: None,
            pipelines: PathBuf::from("pipelines"),
            environments: None,
            drain: Duration::from_secs(20),
        }
    }
}

/// `[control.releases]`: what is kept of releases, and who hears of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleasesConfig {
    /// Pairs of answers that are kept of each release for reading side by side; 0 keeps none.
    pub pairs: usize,
    /// How long they are kept.
    #[serde(with = "human::duration")]
    pub pairs_keep: Duration,
    /// For so long after a release was taken back, a roll-back that names no revision is the same wish again, and moves
    /// nothing further.
    #[serde(with = "human::duration")]
    pub rollback_repeats: Duration,
    /// Who is told of decisions.
    pub webhooks: Vec<WebhookConfig>,
}

/// One receiver of events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where they are posted.
    pub url: String,
    /// File with the secrets that they are signed with, `whsec_…`, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Environment variable with them, between spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// Which events; all where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

impl std::fmt::Debug for WebhookConfig {
    /// Path and query of the URL are left out: receivers put secrets of their own there.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.parse::<http::Uri>().ok();
        let host = url
            .as_ref()
            .and_then(|url| url.authority())
            .map(ToString::to_string);
        f.debug_struct("WebhookConfig")
            .field("host", &host)
            .field("secret_file", &self.secret_file)
            .field("secret_env", &self.secret_env)
            .field("events", &self.events)
            .finish()
    }
}

impl Default for ReleasesConfig {
    fn default() -> Self {
        Self {
            pairs: 200,
            pairs_keep: Duration::from_secs(30 * 24 * 3600),
            rollback_repeats: Duration::from_secs(3600),
            webhooks: Vec::new(),
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            database: None,
            connections: 8,
            full_sync: false,
            max_body: 1 << 20,
            idempotency_keep: Duration::from_secs(24 * 3600),
            idempotency_lease: Duration::from_secs(5),
            memory: None,
            tasks: TasksConfig::default(),
            releases: ReleasesConfig::default(),
            allow: AllowConfig::default(),
            artifacts: serde_json::Map::new(),
        }
    }
}
