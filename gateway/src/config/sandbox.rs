//! `[sandbox]`: the processes that hold what nobody has approved.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{places, times};
use super::{Problems, human};

/// Limits of one child process, which holds one model on trial: its graph, its tokenizer and its templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// Memory of its own, weights included; it is killed when it uses more. Absent: 4 GiB, or a quarter of the
    /// machine's memory where that is more.
    #[serde(with = "human::optional_size", skip_serializing_if = "Option::is_none")]
    pub memory: Option<usize>,
    /// Time to load and warm up; it is killed when it takes longer.
    #[serde(with = "human::duration")]
    pub load_timeout: Duration,
    /// Time for one request; it is killed when one takes longer.
    #[serde(with = "human::duration")]
    pub request_timeout: Duration,
    /// Such processes at once; what comes then waits.
    pub max_processes: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            memory: None,
            load_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(300),
            max_processes: 2,
        }
    }
}

/// What a child may use where nothing is configured and the machine's memory is not more than four times it.
const LEAST: u64 = 4 << 30;

impl SandboxConfig {
    /// Bytes that one process may use on a machine of so much memory.
    #[must_use]
    pub fn memory_on(&self, machine: Option<u64>) -> u64 {
        match self.memory {
            Some(bytes) => bytes as u64,
            None => machine.map_or(LEAST, |bytes| (bytes / 4).max(LEAST)),
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        const SMALLEST: usize = 64 << 20;
        problems.expect(
            self.memory.is_none_or(|bytes| bytes >= SMALLEST),
            "sandbox.memory",
            "must be at least 64MiB",
        );
        times(
            problems,
            &[
                ("sandbox.load_timeout", self.load_timeout),
                ("sandbox.request_timeout", self.request_timeout),
            ],
        );
        places(problems, &[("sandbox.max_processes", self.max_processes)]);
    }
}
