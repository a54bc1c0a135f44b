//! Whether ONNX Runtime waits for the device at the end of a run.
//!
//! It does by default, and the host is idle meanwhile. After a decoding run on our own
//! stream nothing needs that: the draw follows in the stream's order and waits for its
//! tokens, and until then the host prepares it (masks of grammars, parameters). So such
//! runs return early. All others wait as ever: a step's earlier runs, because their small
//! inputs lie in the host's memory and are overwritten for the next; prefills, because
//! what they cost is measured.
//!
//! Page-locked memory that kernels take on the host is given back only by runs that wait
//! (`CleanUpOnRunEnd` in ONNX Runtime), so every so often one does. Replays of captured
//! graphs have options of their own, and wait.

use ort::session::RunOptions;

/// Runs that return early, one after the other, at most.
const MOST_IN_A_ROW: u32 = 63;

/// The options of a model's runs.
pub(in super::super) struct RunEnds {
    waiting: RunOptions,
    /// Where runs may return early.
    early: Option<RunOptions>,
    in_a_row: u32,
}

impl RunEnds {
    /// `shared`: the session works on the device's stream. `captures`: it captures graphs
    /// of the runs that are given a number.
    ///
    /// # Errors
    /// ONNX Runtime has no memory for them.
    pub(in super::super) fn new(shared: bool, captures: bool) -> ort::Result<Self> {
        let options = || -> ort::Result<_> {
            let mut options = RunOptions::new()?;
            if captures {
                // None is captured.
                options.set("gpu_graph_id", "-1")?;
            }
            Ok(options)
        };
        let early = shared.then(|| -> ort::Result<_> {
            let mut early = options()?;
            early.disable_device_sync()?;
            Ok(early)
        });
        Ok(Self {
            waiting: options()?,
            early: early.transpose()?,
            in_a_row: 0,
        })
    }

    /// Whether the next run returns early, if a draw is to follow it.
    pub(super) fn returns_early(&mut self, draw_follows: bool) -> bool {
        let early = draw_follows && self.early.is_some() && self.in_a_row < MOST_IN_A_ROW;
        self.in_a_row = if early { self.in_a_row + 1 } else { 0 };
        early
    }

    /// The options of a run.
    pub(super) fn options(&self, early: bool) -> &RunOptions {
        let early = self.early.as_ref().filter(|_| early);
        early.unwrap_or(&self.waiting)
    }
}

#[cfg(test)]
mod tests;
