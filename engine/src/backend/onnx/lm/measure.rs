//! Measuring what is cheaper on this machine.

use std::time::{Duration, Instant};

use super::super::plan::Costs;
use super::OnnxLm;
use crate::backend::{Backend as _, Batch, Outputs, Row, Wanted};
use crate::error::BackendError;

impl OnnxLm {
    /// A chunk of `tokens` new tokens in each of `slots`, from their start.
    pub(super) fn prefill(
        &mut self,
        slots: std::ops::Range<u32>,
        tokens: usize,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        let ids: Vec<u32> = (0..tokens)
            .map(|i| u32::try_from(i).unwrap_or(0) % self.capabilities.vocab)
            .collect();
        let row = |slot| Row {
            slot,
            past: 0,
            tokens: &ids,
            wanted: Wanted::Last,
        };
        self.execute(
            &Batch {
                rows: slots.map(row).collect(),
            },
            outputs,
        )
    }

    /// One token more in each of the first `rows` slots.
    pub(super) fn decode(&mut self, rows: u32, outputs: &mut Outputs) -> Result<(), BackendError> {
        let row = |slot| Row {
            slot,
            past: 0,
            tokens: &[0],
            wanted: Wanted::Last,
        };
        self.execute(
            &Batch {
                rows: (0..rows).map(row).collect(),
            },
            outputs,
        )
    }

    /// Chooses the costs by measurement, a few steps of each kind; keeps the
    /// cautious default where a step takes too long to repeat.
    ///
    /// # Errors
    /// The device cannot run this model.
    pub(in super::super) fn calibrate(&mut self) -> Result<(), BackendError> {
        const ROWS: u32 = 4;
        const TOKENS: u32 = 32;
        /// Below this a gain may be noise.
        const WORTH: f64 = 1.05;
        const PATIENCE: Duration = Duration::from_millis(500);
        let mut outputs = Outputs::default();
        let slots = self.capabilities.slots;
        self.decode(1, &mut outputs)?;
        let one = self.fastest(|lm, outputs| lm.decode(1, outputs))?;
        if one > PATIENCE || slots < 2 {
            return Ok(());
        }
        let all = self.fastest(|lm, outputs| lm.decode(slots, outputs))?;
        let lane = all.saturating_sub(one).as_secs_f64() / f64::from(slots - 1);
        let run = (one.as_secs_f64() - lane).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let bridge = (run / lane.max(1e-9)).clamp(0.0, f64::from(slots)) as u32;
        self.costs.bridge = bridge;
        if self.layout.ragged && slots >= ROWS && self.capabilities.capacity > TOKENS {
            self.costs.joined_gain = 1.0;
            let apart =
                self.fastest(|lm, outputs| lm.prefill(0..ROWS, TOKENS as usize, outputs))?;
            self.costs.joined_gain = f64::INFINITY;
            let joined =
                self.fastest(|lm, outputs| lm.prefill(0..ROWS, TOKENS as usize, outputs))?;
            let gain = apart.as_secs_f64() / joined.as_secs_f64().max(1e-9);
            self.costs.joined_gain = if gain >= WORTH { gain } else { 1.0 };
        }
        self.capabilities.ragged = self.costs.joined_gain > 1.0;
        self.clear();
        Ok(())
    }

    fn fastest(
        &mut self,
        mut run: impl FnMut(&mut Self, &mut Outputs) -> Result<(), BackendError>,
    ) -> Result<Duration, BackendError> {
        const TIMES: usize = 4;
        let mut outputs = Outputs::default();
        let mut least = Duration::MAX;
        for _ in 0..TIMES {
            let start = Instant::now();
            run(self, &mut outputs)?;
            self.finish()?;
            least = least.min(start.elapsed());
        }
        Ok(least)
    }

    /// As chosen by [`calibrate`](Self::calibrate).
    pub(in super::super) fn costs(&self) -> Costs {
        self.costs
    }
}
