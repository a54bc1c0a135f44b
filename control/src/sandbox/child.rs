//! Models on trial, each in a child of this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_gateway::Gateway;
use sluice_gateway::config::{DeploymentConfig, ProviderConfig, SandboxConfig, UpstreamConfig};
use sluice_gateway::host::FIRST_TOKEN;
use sluice_gateway::metrics::RunningProcess;
use sluice_gateway::remote::RemotePool;
use sluice_gateway::router::Target;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::host::{Order, Said};
use super::process::{self, Process, Start};
use super::render::{ChildRenderer, SharedRenderer};
use super::{End, Ended, Held, HostProgram, Hosted, Hosts};

/// Starts children of this program.
#[derive(Debug)]
pub struct ChildHosts {
    gateway: Arc<Gateway>,
    program: HostProgram,
    limits: SandboxConfig,
    /// Bytes of one.
    memory: u64,
    models: Arc<Semaphore>,
    /// Apart: a run has one, and waits for its model with it.
    renderers: Arc<Semaphore>,
}

/// What is to begin.
struct Begin<'a> {
    name: &'static str,
    config: Option<DeploymentConfig>,
    memory: u64,
    places: &'a Arc<Semaphore>,
}

/// Memory of a child that only renders.
const PROMPTS_MEMORY: u64 = 1 << 30;

/// How much longer than its request the child is waited for: it tells of the reason itself.
const GRACE: Duration = Duration::from_secs(5);
/// Longest path of a Unix socket.
const SOCKET_PATH: usize = 100;

/// What holds a child.
#[derive(Debug)]
struct HeldChild {
    // Killed before its folder goes.
    _process: Process,
    _counted: RunningProcess,
    _folder: tempfile::TempDir,
    _place: OwnedSemaphorePermit,
}

impl Held for HeldChild {}

impl ChildHosts {
    /// `[sandbox]` of the gateway's configuration says within which limits.
    pub fn new(gateway: Arc<Gateway>, program: HostProgram) -> Self {
        let limits = gateway.config().sandbox.clone();
        Self {
            memory: limits.memory_on(machine_memory()),
            models: Arc::new(Semaphore::new(limits.max_processes)),
            renderers: Arc::new(Semaphore::new(limits.max_processes)),
            gateway,
            program,
            limits,
        }
    }

    /// A model of a folder.
    async fn model(&self, config: DeploymentConfig) -> Result<Hosted, Ended> {
        let begin = Begin {
            name: "the model's process",
            config: Some(config),
            memory: self.memory,
            places: &self.models,
        };
        let (hosted, socket) = self.begin(begin).await?;
        let pool = RemotePool::local(&socket, &self.upstream());
        Ok(Hosted {
            target: Some(Target::Remote(pool)),
            ..hosted
        })
    }

    /// One that renders prompts.
    async fn prompts(&self) -> Result<SharedRenderer, Ended> {
        let begin = Begin {
            name: "the process that renders the prompts",
            config: None,
            memory: self.memory.min(PROMPTS_MEMORY),
            places: &self.renderers,
        };
        let (hosted, socket) = self.begin(begin).await?;
        let renderer = ChildRenderer::new(&socket, Arc::new(hosted));
        Ok(Arc::new(renderer))
    }

    async fn begin(&self, begin: Begin<'_>) -> Result<(Hosted, PathBuf), Ended> {
        let name = begin.name;
        let cannot = |what: &str, error: &dyn std::fmt::Display| Ended {
            end: End::NotLoaded,
            why: format!("{name} cannot be started: {what}: {error}"),
        };
        let place = Arc::clone(begin.places).acquire_owned().await;
        let place = place.map_err(|error| cannot("its place", &error))?;
        let folder = folder().map_err(|error| cannot("its folder", &error))?;
        let socket = folder.path().join("socket");
        let order = self
            .order(begin, &socket, folder.path())
            .map_err(|error| cannot("its files", &error))?;
        let gateway = Arc::clone(&self.gateway);
        let start = Start {
            program: self.program.clone(),
            name,
            order,
            load_timeout: self.limits.load_timeout,
            until_its_end: Box::new(move |end| gateway.metrics().process_ended(end)),
        };
        let (process, said) =
            process::start(start).map_err(|error| cannot("its thread", &error))?;
        let mut ended = process.ended.clone();
        let held = HeldChild {
            _process: process,
            _counted: self.gateway.metrics().process(),
            _folder: folder,
            _place: place,
        };
        let Ok(Said::Loaded { digest, isolation }) = said.await else {
            let found = ended.wait_for(Option::is_some).await;
            let found = found.map(|it| it.clone());
            return Err(found.ok().flatten().unwrap_or_else(|| Ended {
                end: End::Crashed,
                why: format!("{name} ended without a word"),
            }));
        };
        tracing::debug!(name, digest, isolation, "answers");
        let hosted = Hosted {
            target: None,
            ended,
            _held: Box::new(held),
        };
        Ok((hosted, socket))
    }

    fn order(&self, begin: Begin<'_>, socket: &Path, scratch: &Path) -> std::io::Result<Order> {
        let config = begin.config.map(|config| self.within(config, scratch));
        let time = self.limits.request_timeout.as_millis();
        Ok(Order {
            config: config.transpose()?,
            data: std::path::absolute(&self.gateway.config().data)?,
            devices: self.gateway.config().devices.clone(),
            grammar: self.gateway.config().grammar.clone(),
            templates: self.gateway.config().templates.clone(),
            socket: socket.to_owned(),
            scratch: scratch.to_owned(),
            memory: begin.memory,
            request_ms: u64::try_from(time).unwrap_or(u64::MAX),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
        })
    }

    /// A model's settings within the limits of a child.
    fn within(
        &self,
        mut config: DeploymentConfig,
        scratch: &Path,
    ) -> std::io::Result<DeploymentConfig> {
        // The child is somewhere else.
        config.path = config.path.map(|path| path.canonicalize()).transpose()?;
        if config.provider == ProviderConfig::Cpu {
            // Weights and K/V; the rest is for what computes.
            let most = usize::try_from(self.memory / 4 * 3).unwrap_or(usize::MAX);
            config.memory = Some(config.memory.map_or(most, |asked| asked.min(most)));
        }
        if let Some(tensorrt) = &mut config.tensorrt {
            // What is built of strangers' graphs is not kept beside that of others.
            tensorrt.cache = Some(scratch.join("engines"));
        }
        Ok(config)
    }

    /// The child itself says when a request takes too long.
    fn upstream(&self) -> UpstreamConfig {
        let patience = self.limits.request_timeout + GRACE;
        UpstreamConfig {
            first_byte_timeout: patience,
            idle_timeout: patience,
            pass_headers: vec![FIRST_TOKEN.to_owned()],
            ..self.gateway.config().upstream.clone()
        }
    }
}

impl Hosts for ChildHosts {
    fn start<'a>(&'a self, config: DeploymentConfig) -> BoxFuture<'a, Result<Hosted, Ended>> {
        self.model(config).boxed()
    }

    fn renderer(&self) -> BoxFuture<'_, Result<SharedRenderer, Ended>> {
        self.prompts().boxed()
    }
}

/// A folder that only this user can look into, with a path that is short enough for a socket.
fn folder() -> std::io::Result<tempfile::TempDir> {
    let usual = std::env::temp_dir();
    let folder = match usual.as_os_str().len() < SOCKET_PATH / 2 {
        true => usual,
        false => PathBuf::from("/tmp"),
    };
    tempfile::Builder::new()
        .prefix("sluice-host-")
        .tempdir_in(folder)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
