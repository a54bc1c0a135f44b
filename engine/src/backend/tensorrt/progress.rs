//! What is heard while TensorRT builds an engine. A build takes minutes, and TensorRT
//! says how far it is only to who asks: a line is written at the start, every few
//! seconds and at the end, and [`builds`] tells the server at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluice_tensorrt::Watch;

/// How often a line is written.
const RHYTHM: Duration = Duration::from_secs(5);

/// Builds that go on in this process; as many as there are models being loaded.
static BUILDS: Mutex<Vec<Arc<Progress>>> = Mutex::new(Vec::new());

/// An engine that is being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The model.
    pub model: String,
    /// The share that is done, in percent; never falls.
    pub percent: u8,
    /// Since the start.
    pub elapsed: Duration,
}

/// The builds that go on now, the oldest first.
#[must_use]
pub fn builds() -> Vec<Build> {
    BUILDS
        .lock()
        .iter()
        .map(|progress| progress.now())
        .collect()
}

/// How far one build is, as TensorRT tells it: phases within phases.
#[derive(Debug)]
pub(super) struct Progress {
    model: String,
    began: Instant,
    phases: Mutex<Phases>,
}

impl Progress {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            began: Instant::now(),
            phases: Mutex::default(),
        }
    }

    fn now(&self) -> Build {
        Build {
            model: self.model.clone(),
            percent: self.phases.lock().percent,
            elapsed: self.began.elapsed(),
        }
    }
}

impl Watch for Progress {
    fn start(&self, phase: &str, parent: &str, steps: u32) {
        self.phases.lock().start(phase, parent, steps);
    }

    fn step(&self, phase: &str, step: u32) -> bool {
        self.phases.lock().step(phase, step);
        true
    }

    fn finish(&self, phase: &str) {
        self.phases.lock().finish(phase);
    }
}

/// Pure: the phases under way, by name.
#[derive(Debug, Default)]
pub(super) struct Phases {
    open: BTreeMap<String, Phase>,
    pub(super) percent: u8,
}

#[derive(Debug)]
struct Phase {
    parent: String,
    steps: u32,
    done: u32,
}

impl Phases {
    pub(super) fn start(&mut self, phase: &str, parent: &str, steps: u32) {
        let phase_of = Phase {
            parent: parent.to_owned(),
            steps: steps.max(1),
            done: 0,
        };
        self.open.insert(phase.to_owned(), phase_of);
    }

    /// The step of this number, from 0 on, is done.
    pub(super) fn step(&mut self, phase: &str, step: u32) {
        if let Some(phase) = self.open.get_mut(phase) {
            phase.done = step.saturating_add(1).min(phase.steps);
        }
        self.measure();
    }

    pub(super) fn finish(&mut self, phase: &str) {
        self.open.remove(phase);
        self.measure();
    }

    /// The outermost phases, each with what is done within it; no more than 99 before
    /// the engine is there.
    fn measure(&mut self) {
        let roots = self
            .open
            .iter()
            .filter(|(_, phase)| phase.parent.is_empty());
        let done = roots
            .map(|(name, phase)| self.share(name, phase, 8))
            .fold(0.0, f64::max);
        let percent = (done * 100.0).clamp(0.0, 99.0) as u8;
        self.percent = self.percent.max(percent);
    }

    /// A phase's share, from 0 to 1, with that of the phase within it at most `depth` deep.
    fn share(&self, name: &str, phase: &Phase, depth: usize) -> f64 {
        let within = self
            .open
            .iter()
            .filter(|(_, other)| depth > 0 && other.parent == name);
        let within = within.map(|(name, phase)| self.share(name, phase, depth - 1));
        let within = within.fold(0.0, f64::max);
        ((f64::from(phase.done) + within) / f64::from(phase.steps)).min(1.0)
    }
}

/// A build that is told of until this is dropped.
pub(super) struct Telling {
    progress: Arc<Progress>,
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Telling {
    pub(super) fn begin(progress: &Arc<Progress>) -> Self {
        let (done, wait) = channel::<()>();
        BUILDS.lock().push(Arc::clone(progress));
        tracing::info!(
            model = progress.model,
            "TensorRT builds the engine; this takes minutes"
        );
        let told = Arc::clone(progress);
        let thread = std::thread::Builder::new().name("sluice builds".to_owned());
        let thread = thread.spawn(move || {
            while wait.recv_timeout(RHYTHM) == Err(RecvTimeoutError::Timeout) {
                let Build {
                    model,
                    percent,
                    elapsed,
                } = told.now();
                let seconds = elapsed.as_secs();
                tracing::info!(model, percent, seconds, "TensorRT is building the engine");
            }
        });
        Self {
            progress: Arc::clone(progress),
            done: Some(done),
            thread: thread.ok(),
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        BUILDS
            .lock()
            .retain(|other| !Arc::ptr_eq(other, &self.progress));
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to do but to end.
            _ = thread.join();
        }
        let seconds = self.progress.began.elapsed().as_secs_f64();
        tracing::info!(
            model = self.progress.model,
            seconds,
            "TensorRT's build has ended"
        );
    }
}
