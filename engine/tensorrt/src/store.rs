//! A folder of built engines, so that a build that took minutes is done once.
//!
//! Each engine lies under the digest of its origin, and is still compared with it when it is read: a folder that was
//! copied from elsewhere, or a file that was cut short, costs a build and never a wrong answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::builder::{BuildError, BuildOptions, Specification, build};
use crate::library::Library;
use crate::plan::{Origin, Plan, PlanError, digest};

/// Engines, and what was measured while they were built.
#[derive(Debug, Clone)]
pub struct EngineStore {
    folder: PathBuf,
    keep: usize,
}

/// The engine that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The ONNX model.
    pub model: &'a [u8],
    /// SHA-256 of all that the model is, in hexadecimal: weights that lie beside it included.
    pub digest: &'a str,
    /// How to build it.
    pub specification: &'a Specification,
    /// The device, as the driver names it, with its compute capability.
    pub device: &'a str,
}

/// An engine from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// TensorRT's bytes.
    pub engine: Vec<u8>,
    /// Whether it was built just now.
    pub built: bool,
}

/// Why the store has no engine to give.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("{} cannot be {doing}: {source}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Read or written.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An origin that cannot be stored.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl EngineStore {
    /// A store in this folder, which is made when something is kept. Nothing is ever removed from it.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self::keeping(folder, usize::MAX)
    }

    /// A store of at most so many engines; those that were used longest ago go.
    #[must_use]
    pub fn keeping(folder: &Path, engines: usize) -> Self {
        Self {
            folder: folder.to_path_buf(),
            keep: engines.max(1),
        }
    }

    /// The engine that is wanted, built if there is none that can be used. `options.timing` gives way to what this
    /// store has measured on the same device.
    ///
    /// # Errors
    /// The build failed, or its outcome cannot be kept.
    pub fn engine(
        &self,
        library: &Library,
        wanted: &Wanted<'_>,
        options: &BuildOptions<'_>,
    ) -> Result<Stored, StoreError> {
        let origin = Origin {
            tensorrt: library.version(),
            model: wanted.digest.to_owned(),
            specification: wanted.specification.digest(),
            device: wanted.device.to_owned(),
        };
        let path = self.plan(&origin);
        if let Some(engine) = read(&path, &origin)? {
            used(&path);
            self.prune(&path);
            return Ok(Stored {
                engine,
                built: false,
            });
        }
        let measured = self.timing(&origin);
        // Without it the build takes longer and is no worse.
        let timing = fs::read(&measured).unwrap_or_default();
        let options = BuildOptions {
            timing: if timing.is_empty() {
                options.timing
            } else {
                &timing
            },
            ..options.clone()
        };
        let made = build(library, wanted.model, wanted.specification, &options)?;
        let plan = Plan {
            origin,
            engine: made.engine,
        };
        self.write(&path, &plan.to_bytes()?)?;
        self.write(&measured, &made.timing)?;
        self.prune(&path);
        Ok(Stored {
            engine: plan.engine,
            built: true,
        })
    }

    /// Removes what was used longest ago. What cannot be removed stays: another process may remove the same, and that
    /// is no reason not to use the engine that is there.
    fn prune(&self, current: &Path) {
        let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_plan = path.extension().is_some_and(|end| end == "plan");
            match entry.metadata().and_then(|file| file.modified()) {
                Ok(used) if is_plan && path != current => others.push((used, path)),
                _ => {}
            }
        }
        others.sort_unstable_by(|a, b| b.cmp(a));
        for (_, old) in others.into_iter().skip(self.keep - 1) {
            match fs::remove_file(&old) {
                Ok(()) => {
                    tracing::info!(path = %old.display(), "an engine that was not used for long is removed")
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %old.display(), %error, "an old engine cannot be removed")
                }
            }
        }
    }

    fn plan(&self, origin: &Origin) -> PathBuf {
        let all = [
            origin.tensorrt.to_string().as_str(),
            &origin.model,
            &origin.specification,
            &origin.device,
        ]
        .join("\n");
        self.folder.join(format!("{}.plan", digest(all.as_bytes())))
    }

    /// Kernels' times are those of a device and a version, whatever the model.
    fn timing(&self, origin: &Origin) -> PathBuf {
        let device = digest(origin.device.as_bytes());
        self.folder
            .join(format!("{}-{}.timing", origin.tensorrt, &device[..16]))
    }

    /// Whole or not at all, also beside another process that writes the same.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("{}-{number}.partial", std::process::id()));
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&partial, bytes))
            .and_then(|()| fs::rename(&partial, path));
        written.map_err(|source| {
            // Whatever of it is there is of no use; that it stays is the lesser trouble.
            let _ = fs::remove_file(&partial);
            StoreError::Disk {
                path: path.to_path_buf(),
                doing: "written",
                source,
            }
        })
    }
}

/// Its time says when it was last used. In a folder that is only read, nothing is removed either.
fn used(path: &Path) {
    let now = SystemTime::now();
    let marked = fs::File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(now));
    if let Err(error) = marked {
        tracing::debug!(path = %path.display(), %error, "an engine's time of use cannot be written");
    }
}

fn read(path: &Path, origin: &Origin) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => match Plan::expect(&bytes, origin) {
            Ok(plan) => Ok(Some(plan.engine)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a stored engine is built again");
                Ok(None)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Disk {
            path: path.to_path_buf(),
            doing: "read",
            source,
        }),
    }
}
