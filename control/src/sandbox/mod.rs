//! What nobody has approved is held by child processes.
//!
//! A model that a developer registered is a program of strangers: its graph may ask for any memory, its templates and
//! its tokenizer may never come to an end. So it is loaded, warmed up and asked in a process of its own, with limits
//! of memory and time and without a network, files or secrets ([`host`], for the side of the child). The serving
//! process asks it as it asks an upstream, over a Unix socket, and fails only the run that wanted it.

mod child;
pub mod host;
#[cfg(test)]
pub(crate) mod in_process;
mod process;
pub mod render;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sluice_gateway::config::DeploymentConfig;
use sluice_gateway::metrics::ProcessEnd;
use sluice_gateway::router::Target;
use tokio::sync::watch;

pub use child::ChildHosts;
use render::SharedRenderer;

/// Where models on trial are held.
pub trait Hosts: std::fmt::Debug + Send + Sync {
    /// Loads a folder and waits until it answers. Given up, what was begun ends.
    fn start<'a>(&'a self, config: DeploymentConfig) -> BoxFuture<'a, Result<Hosted, Ended>>;

    /// Something that renders prompts, for as long as it is held.
    fn renderer(&self) -> BoxFuture<'_, Result<SharedRenderer, Ended>>;
}

/// A model that is held; dropped, it ends.
#[derive(Debug)]
pub struct Hosted {
    /// Where requests go; nowhere where it holds no model.
    pub target: Option<Target>,
    ended: watch::Receiver<Option<Ended>>,
    _held: Box<dyn Held>,
}

/// How long after the last word of a child its end is seen.
const SOON: Duration = Duration::from_secs(1);

/// What holds a model; dropped, it lets go.
pub(crate) trait Held: std::fmt::Debug + Send + Sync {}

impl Hosted {
    /// Its end, if that comes soon: connections break a moment before it is seen. Otherwise `why`.
    pub(crate) async fn ended_or(&self, why: &str) -> Ended {
        let soon = tokio::time::timeout(SOON, self.ended()).await;
        soon.unwrap_or_else(|_| Ended {
            end: End::Crashed,
            why: why.to_owned(),
        })
    }

    /// Waits until it ends by itself, or is killed: why. Never returns while it answers.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let found = ended.wait_for(Option::is_some).await.ok();
        let found = found.and_then(|it| it.clone());
        match found {
            Some(ended) => ended,
            // Whoever watched it is gone, which it is not while it is held.
            None => std::future::pending().await,
        }
    }
}

/// Why a model's process is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Ended {
    pub end: End,
    /// For people: `the model's process exceeded 4.0 GiB of memory`.
    pub why: String,
}

/// The kinds of its ends, as metrics count them.
pub type End = ProcessEnd;

/// Where the program lies that becomes a child.
#[derive(Debug, Clone)]
pub struct HostProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl Default for HostProgram {
    /// This program itself, even if its file was replaced.
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["model-host".into()],
        }
    }
}

/// Shared by those who ask a model on trial at the same time.
pub type Shared = Arc<Hosted>;
