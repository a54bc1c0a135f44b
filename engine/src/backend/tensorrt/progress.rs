//! How far TensorRT is with an engine: it says so, phase by phase, to who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use sluice_tensorrt::Watch;

use crate::backend::builds::{self, Build, Done, RHYTHM, Telling};

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
            done: Done::Percent(self.phases.lock().percent),
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

/// Tells of a build from its first phase on: what comes from the cache is not announced.
pub(super) struct Watching {
    progress: Arc<Progress>,
    telling: Mutex<Option<Telling>>,
}

impl Watching {
    pub(super) fn new(model: &str) -> Self {
        Self {
            progress: Arc::new(Progress::new(model)),
            telling: Mutex::new(None),
        }
    }

    fn tell(&self) -> Telling {
        tracing::info!(
            model = self.progress.model,
            "TensorRT builds the engine; this takes minutes"
        );
        let told = Arc::clone(&self.progress);
        Telling::begin(RHYTHM, move || told.now(), builds::log)
    }
}

impl Watch for Watching {
    fn start(&self, phase: &str, parent: &str, steps: u32) {
        self.telling.lock().get_or_insert_with(|| self.tell());
        self.progress.start(phase, parent, steps);
    }

    fn step(&self, phase: &str, step: u32) -> bool {
        self.progress.step(phase, step)
    }

    fn finish(&self, phase: &str) {
        self.progress.finish(phase);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.telling.lock().take().is_some() {
            let seconds = self.progress.began.elapsed().as_secs_f64();
            tracing::info!(
                model = self.progress.model,
                seconds,
                "TensorRT's build has ended"
            );
        }
    }
}
