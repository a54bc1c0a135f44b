//! What is heard while ONNX Runtime's TensorRT provider builds: it says nothing until it is
//! done, but the engines that it has finished can be counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engines::EngineFolder;
use crate::backend::builds::{self, Build, Done, RHYTHM, Telling};

/// A session that is being made, which is told of until this is dropped.
pub(in super::super) struct Building {
    count: Arc<Count>,
    _telling: Telling,
}

struct Count {
    model: String,
    folder: EngineFolder,
    began: Instant,
    before: usize,
}

impl Building {
    /// Begins to tell of the model `name`, whose engines go to `folder`.
    pub(in super::super) fn begin(name: &str, folder: EngineFolder) -> Self {
        Self::telling(name, folder, RHYTHM, builds::log)
    }

    pub(super) fn telling(
        name: &str,
        folder: EngineFolder,
        rhythm: Duration,
        tell: impl Fn(&Build) + Send + 'static,
    ) -> Self {
        let count = Arc::new(Count {
            model: name.to_owned(),
            before: folder.engines(),
            folder,
            began: Instant::now(),
        });
        let counted = Arc::clone(&count);
        Self {
            count,
            _telling: Telling::begin(rhythm, move || counted.now(), tell),
        }
    }
}

impl Count {
    fn now(&self) -> Build {
        Build {
            model: self.model.clone(),
            done: Done::Engines {
                before: self.before,
                built: self.folder.engines().saturating_sub(self.before),
            },
            elapsed: self.began.elapsed(),
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if let Some(line) = ended(&self.count.now()) {
            tracing::info!(model = self.count.model, "{line}");
        }
    }
}

/// In words, at the end; none where it was over before anybody asked.
pub(super) fn ended(build: &Build) -> Option<String> {
    let seconds = build.elapsed.as_secs_f64();
    match build.done {
        Done::Engines {
            before: 0,
            built: 0,
        } => (build.elapsed >= RHYTHM).then(|| format!("loaded after {seconds:.0} s")),
        Done::Engines { before, built: 0 } => Some(format!(
            "{before} engines of TensorRT were loaded from the cache in {seconds:.1} s"
        )),
        Done::Engines { built, .. } => {
            Some(format!("TensorRT built {built} engines in {seconds:.1} s"))
        }
        Done::Percent(_) => None,
    }
}
