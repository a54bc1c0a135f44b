//! What is heard while TensorRT builds: it takes minutes, and ONNX Runtime's provider
//! says nothing until it is done.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::engines::EngineFolder;

/// How often a line is written.
const RHYTHM: Duration = Duration::from_secs(5);

/// A session that is being made; a line tells of it every few seconds until it is dropped.
pub(in super::super) struct Building {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is known of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) elapsed: Duration,
    /// Engines in the folder when it began, and now.
    pub(super) before: usize,
    pub(super) now: usize,
}

impl Stage {
    /// In words, while it goes on.
    pub(super) fn going_on(&self) -> String {
        let seconds = self.elapsed.as_secs();
        match self.now - self.before.min(self.now) {
            0 => format!("TensorRT is building the first engine, for {seconds} s so far"),
            built => format!("TensorRT has built {built}, and goes on; {seconds} s so far"),
        }
    }

    /// In words, at the end; none where it was over before anybody asked.
    pub(super) fn ended(&self) -> Option<String> {
        let seconds = self.elapsed.as_secs_f64();
        match self.now - self.before.min(self.now) {
            0 if self.before > 0 => Some(format!(
                "{} engines of TensorRT were loaded from the cache in {seconds:.1} s",
                self.before
            )),
            0 => (self.elapsed >= RHYTHM).then(|| format!("loaded after {seconds:.0} s")),
            built => Some(format!("TensorRT built {built} engines in {seconds:.1} s")),
        }
    }
}

impl Building {
    /// Begins to tell of the model `name`, whose engines go to `folder`.
    pub(in super::super) fn begin(name: &str, folder: EngineFolder) -> Self {
        Self::telling(folder, RHYTHM, {
            let name: Arc<str> = name.into();
            move |line| tracing::info!(model = &*name, "{line}")
        })
    }

    pub(super) fn telling(
        folder: EngineFolder,
        rhythm: Duration,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (done, wait) = channel::<()>();
        let (began, before) = (Instant::now(), folder.engines());
        let stage = move |folder: &EngineFolder| Stage {
            elapsed: began.elapsed(),
            before,
            now: folder.engines(),
        };
        let thread = std::thread::Builder::new().name("sluice builds".to_owned());
        let thread = thread.spawn(move || {
            while wait.recv_timeout(rhythm) == Err(RecvTimeoutError::Timeout) {
                tell(&stage(&folder).going_on());
            }
            if let Some(line) = stage(&folder).ended() {
                tell(&line);
            }
        });
        Self {
            done: Some(done),
            thread: thread.ok(),
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to do but to end.
            _ = thread.join();
        }
    }
}
