//! What the serving process and a model's process say to each other beside the requests: one line in, which is the
//! order, and one line out, which says what came of it. The child's input stays open for as long as it is wanted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_gateway::config::{DeploymentConfig, DevicesConfig, GrammarConfig, TemplatesConfig};

/// What a child is to hold, and within which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The folder, and how it is loaded; none renders prompts.
    pub config: Option<DeploymentConfig>,
    /// The data folder, where ONNX Runtime lies. Absolute.
    pub data: PathBuf,
    pub devices: DevicesConfig,
    pub grammar: GrammarConfig,
    pub templates: TemplatesConfig,
    /// Where the child listens.
    pub socket: PathBuf,
    /// A folder of its own, which only builds for GPUs may write to.
    pub scratch: PathBuf,
    /// Bytes that it may use.
    pub memory: u64,
    /// Milliseconds that one request may take.
    pub request_ms: u64,
    /// The process that asks: without it the child ends.
    pub parent: i32,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It answers on its socket.
    Loaded {
        /// The engine's digest of the folder, cut short.
        digest: String,
        /// Which kinds of isolation hold: `files, network, …`.
        isolation: String,
    },
    /// Why not.
    NotLoaded {
        /// In the engine's words.
        why: String,
    },
}

/// How the last line of a child ends that ended because a request took longer than it may.
pub const REQUEST_TOO_LONG: &str = "(sandbox.request_timeout)";
