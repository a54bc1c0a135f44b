//! Engines that TensorRT builds now, in whichever way. A build takes minutes, and whoever
//! waits for it wants to know how far it is: a line is written every few seconds, and
//! [`builds`] tells the server at any time.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

/// How often a line is written.
pub(super) const RHYTHM: Duration = Duration::from_secs(5);

type Told = Arc<dyn Fn() -> Build + Send + Sync>;

/// Builds that go on in this process; as many as there are models being loaded.
static BUILDS: Mutex<Vec<Told>> = Mutex::new(Vec::new());

/// An engine that is being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The model.
    pub model: String,
    /// What is done of it.
    pub done: Done,
    /// Since the start.
    pub elapsed: Duration,
}

/// What is done of a build, as far as its builder tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// A share of the whole, in percent; never falls.
    Percent(u8),
    /// Engines of a model that is made of an unknown number.
    Engines {
        /// That lay there from an earlier build.
        before: usize,
        /// That were built now.
        built: usize,
    },
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.done {
            Done::Percent(percent) => write!(f, "TensorRT builds the engine: {percent} %")?,
            Done::Engines {
                before: 0,
                built: 0,
            } => f.write_str("TensorRT builds the first engine")?,
            Done::Engines { before, built: 0 } => {
                write!(f, "TensorRT loads {before} engines from the cache")?;
            }
            Done::Engines { built, .. } => {
                write!(f, "TensorRT has built {built} engines, and goes on")?
            }
        }
        write!(f, ", {} s so far", self.elapsed.as_secs())
    }
}

/// The builds that go on now, the oldest first.
#[must_use]
pub fn builds() -> Vec<Build> {
    let told = BUILDS.lock().clone();
    told.iter().map(|told| told()).collect()
}

/// A build that is told of until this is dropped.
pub(super) struct Telling {
    told: Told,
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Telling {
    /// Begins to tell what `now` says: to who asks, and every so often to `tell`.
    pub(super) fn begin(
        rhythm: Duration,
        now: impl Fn() -> Build + Send + Sync + 'static,
        tell: impl Fn(&Build) + Send + 'static,
    ) -> Self {
        let told: Told = Arc::new(now);
        BUILDS.lock().push(Arc::clone(&told));
        let (done, wait) = channel::<()>();
        let thread = std::thread::Builder::new().name("sluice builds".to_owned());
        let thread = thread.spawn({
            let told = Arc::clone(&told);
            move || {
                while wait.recv_timeout(rhythm) == Err(RecvTimeoutError::Timeout) {
                    tell(&told());
                }
            }
        });
        Self {
            told,
            done: Some(done),
            thread: thread.ok(),
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        BUILDS
            .lock()
            .retain(|other| !Arc::ptr_eq(other, &self.told));
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to do but to end.
            _ = thread.join();
        }
    }
}

/// As a line of the log.
pub(super) fn log(build: &Build) {
    tracing::info!(model = build.model, "{build}");
}

#[cfg(test)]
mod tests;
