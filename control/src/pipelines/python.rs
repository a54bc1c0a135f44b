//! The virtual environment of a pipeline: exactly what its lock file lists, made on first use.
//!
//! Layout and locking are those of `use_venv` in `scripts/lib.sh`: a folder `ENVIRONMENT-DIGEST` after the lock file's
//! SHA-256, complete once it holds `.complete`, made under an exclusive lock on `.ENVIRONMENT.lock` beside it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::Pipeline;
use crate::tasks::executor::{Command, Environment, Exit};
use crate::tasks::{TaskContext, TaskFailure};

/// A Python version's first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            major: 3,
            minor: 11,
        }
    }
}

impl FromStr for Version {
    type Err = String;
    /// `>=3.11`, the one form that a pipeline may ask in.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .strip_prefix(">=")
            .and_then(|rest| rest.trim().split_once('.'));
        let version = numbers.and_then(|(major, minor)| {
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        version.ok_or_else(|| format!("\"{text}\" should be like >=3.11"))
    }
}

const MARKER: &str = ".complete";
/// Environments of older lock files go when nobody has used them for this long.
const UNUSED: Duration = Duration::from_secs(24 * 3600);
/// Between two tries to get the lock: others may be installing for minutes.
const RETRY: Duration = Duration::from_millis(500);

/// The Python of a pipeline's environment, in `parent`; makes it if need be.
pub(super) async fn environment(
    context: &TaskContext,
    pipeline: &Pipeline,
    parent: &Path,
) -> Result<PathBuf, TaskFailure> {
    let lock_file = pipeline.folder.join(&pipeline.requirements);
    let digest = digest16(&tokio::fs::read(&lock_file).await?);
    let venv = parent.join(format!("{}-{digest}", pipeline.environment));
    let python = venv.join("bin/python");
    if !works(context, &venv).await? {
        tokio::fs::create_dir_all(parent).await?;
        let _locked = lock(
            context,
            &parent.join(format!(".{}.lock", pipeline.environment)),
        )
        .await?;
        // Somebody else may have made it while we waited.
        if !works(context, &venv).await? {
            make(context, pipeline, &venv, &lock_file).await?;
            forget_unused(parent, &pipeline.environment, &venv);
        }
    }
    // Says that it is in use.
    if let Ok(marker) = File::options().write(true).open(venv.join(MARKER)) {
        _ = marker.set_modified(SystemTime::now());
    }
    Ok(python)
}

pub(super) fn digest16(lock: &[u8]) -> String {
    let digest = Sha256::digest(lock);
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether it is complete, and its Python still there: an update of the system may have taken it away.
async fn works(context: &TaskContext, venv: &Path) -> Result<bool, TaskFailure> {
    if !venv.join(MARKER).exists() {
        return Ok(false);
    }
    let probe = Command::new(venv.join("bin/python"), context.scratch())
        .arg("-c")
        .arg("");
    Ok(context.execute(probe).await? == Exit::Code(0))
}

async fn lock(context: &TaskContext, path: &Path) -> Result<File, TaskFailure> {
    let file = File::create(path)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    context.progress(
                        0.0,
                        "waiting for another process that makes the environment",
                    );
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

async fn make(
    context: &TaskContext,
    pipeline: &Pipeline,
    venv: &Path,
    lock_file: &Path,
) -> Result<(), TaskFailure> {
    context.progress(
        0.0,
        format!("making the Python environment of {}", pipeline.name),
    );
    if venv.exists() {
        tokio::fs::remove_dir_all(venv).await?;
    }
    let python = host_python(context, pipeline.python).await?;
    let create = Command::new(python, context.scratch())
        .arg("-m")
        .arg("venv")
        .arg(venv);
    done(
        context,
        create,
        "venv_failed",
        "the virtual environment could not be made",
    )
    .await?;
    let mut install = Command::new(venv.join("bin/python"), context.scratch());
    install.environment = Environment::Installer;
    install
        .variables
        .push(("PIP_DISABLE_PIP_VERSION_CHECK".into(), "1".into()));
    let options = "-m pip install --no-input --progress-bar off --require-hashes --only-binary :all: --no-deps -r";
    for option in options.split(' ') {
        install = install.arg(option);
    }
    context.progress(0.0, format!("installing the packages of {}", pipeline.name));
    done(
        context,
        install.arg(lock_file),
        "install_failed",
        "the packages could not be installed",
    )
    .await?;
    File::create(venv.join(MARKER))?;
    Ok(())
}

/// Both may be a matter of the network, so another attempt may help.
async fn done(
    context: &TaskContext,
    command: Command,
    code: &str,
    what: &str,
) -> Result<(), TaskFailure> {
    match context.execute(command).await? {
        Exit::Code(0) => Ok(()),
        exit => Err(TaskFailure::passing(
            code,
            format!("{what}: the program {exit}; its words are in the log"),
        )),
    }
}

/// A Python of this machine that is new enough and can make environments.
async fn host_python(context: &TaskContext, least: Version) -> Result<PathBuf, TaskFailure> {
    let named = std::env::var("PYTHON").ok();
    let versions = (least.minor..least.minor + 10).rev();
    let candidates = named
        .into_iter()
        .chain(["python3".to_owned()])
        .chain(versions.map(|minor| format!("python{}.{minor}", least.major)));
    let check = format!(
        "import sys, venv, ensurepip; sys.exit(sys.version_info < ({}, {}))",
        least.major, least.minor
    );
    for candidate in candidates {
        // Asked quietly: which ones are missing is nobody's business.
        let quiet = "command -v \"$1\" >/dev/null && exec \"$1\" -c \"$2\" 2>/dev/null";
        let probe = ["-c", quiet, "sh", &candidate, &check].iter().fold(
            Command::new("/bin/sh", context.scratch()),
            |probe, argument| probe.arg(argument),
        );
        if context.execute(probe).await? == Exit::Code(0) {
            return Ok(candidate.into());
        }
    }
    Err(TaskFailure::lasting(
        "no_python",
        format!(
            "Python {}.{} or newer with its venv module is needed; install it, or set PYTHON to one",
            least.major, least.minor
        ),
    ))
}

fn forget_unused(parent: &Path, name: &str, current: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != current)
    {
        let digest = path
            .file_name()
            .and_then(|file| file.to_str()?.strip_prefix(name)?.strip_prefix('-'));
        let ours = digest.is_some_and(|digest| {
            digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let used = std::fs::metadata(path.join(MARKER)).and_then(|marker| marker.modified());
        let unused = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > UNUSED));
        if ours && unused {
            _ = std::fs::remove_dir_all(path);
        }
    }
}
