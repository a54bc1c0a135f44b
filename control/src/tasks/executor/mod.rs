//! Where a task's programs run: on this machine for now. Others, such as a Ray or Kubernetes cluster,
//! fill the same trait.

mod environment;
mod lines;
mod local;
pub mod processes;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use environment::Environment;
pub use local::LocalExecutor;

/// A program to run.
#[derive(Debug, Clone)]
pub struct Command {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// Added to what `environment` lets through.
    pub variables: Vec<(String, OsString)>,
    pub environment: Environment,
    /// Its working directory.
    pub folder: PathBuf,
    pub limits: Limits,
}

impl Command {
    pub fn new(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            environment: Environment::Plain,
            folder: folder.into(),
            limits: Limits::default(),
        }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

/// What a program and all that it starts may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory of all its processes together, without mapped files. Looked at several times a second.
    pub memory: Option<u64>,
    /// Bytes of address space of each of its processes, kept by the kernel.
    pub address_space: Option<u64>,
    /// Processor time of each of its processes, in whole seconds, kept by the kernel.
    pub cpu: Option<Duration>,
    pub wall: Option<Duration>,
    /// Between being asked to stop and being killed.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            address_space: None,
            cpu: None,
            wall: None,
            grace: Duration::from_secs(10),
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status; 0 is success.
    Code(i32),
    /// By a signal that was not the executor's.
    Signal(i32),
    /// It used more memory than its limit, this many bytes, and was killed.
    OutOfMemory(u64),
    /// It used up its processor time.
    CpuTime,
    /// It took longer than its limit.
    WallTime,
    /// It was asked to stop.
    Stopped,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with status {code}"),
            // What the kernel sends when the machine, not the limit, runs out.
            Self::Signal(9) => f.write_str(
                "was killed (signal 9) by somebody else: the machine may have run out of memory",
            ),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::OutOfMemory(bytes) => {
                write!(f, "used {bytes} bytes of memory, more than its limit")
            }
            Self::CpuTime => f.write_str("used up its processor time"),
            Self::WallTime => f.write_str("took longer than its limit"),
            Self::Stopped => f.write_str("was stopped"),
        }
    }
}

/// What a running program says.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// A line of standard output or error.
    Line(&'a str),
    /// A line on the descriptor that `SLUICE_EVENTS_FD` names.
    Event(&'a str),
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("{program} cannot be started: {source}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} cannot be followed: {source}")]
    Follow {
        program: String,
        #[source]
        source: std::io::Error,
    },
}

/// Somewhere to run programs.
pub trait Executor: Send + Sync {
    /// Runs a program to its end. None of its processes is left when this returns or is dropped.
    ///
    /// `mark` tells this run from all others. After `stop` the program is asked to end, and killed after its grace.
    fn run<'a>(
        &'a self,
        command: Command,
        mark: &'a str,
        sink: &'a (dyn Fn(Output<'_>) + Send + Sync),
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Exit, ExecutorError>>;
}

#[cfg(test)]
mod tests;
