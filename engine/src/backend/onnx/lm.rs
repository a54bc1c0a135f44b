//! A causal language model over slots: the [`Backend`] on ONNX Runtime.

use std::ffi::CString;
use std::time::{Duration, Instant};

use half::f16;
use ort::value::{DynTensor, TensorRef, TensorRefMut};

use super::arena::Arena;
use super::bound::{self, Output, c_name};
use super::graph::{Float, Layout, added};
use super::plan::{Costs, Lane, Run, plan};
use super::session::OnnxSession;
use crate::backend::{Backend, Batch, Capabilities, Outputs, Row, Wanted};
use crate::error::BackendError;

/// A loaded model. Lives on its device thread.
pub(super) struct OnnxLm {
    session: OnnxSession,
    layout: Layout,
    // Before `arena`, over which its tensors lie.
    bound: BoundSlots,
    arena: Arena,
    /// Tokens whose K/V each slot holds; junk may lie beyond, never below.
    used: Vec<u32>,
    costs: Costs,
    capabilities: Capabilities,
    names: Names,
    scratch: Scratch,
}

/// Names as ONNX Runtime takes them.
struct Names {
    input_ids: CString,
    seqlens_k: CString,
    total: CString,
    query_seqlens: CString,
    logits_indices: CString,
    logits: CString,
    /// Keys and values of layer 0, then of layer 1, and so on.
    past: Vec<CString>,
    present: Vec<CString>,
}

impl Names {
    fn new(layout: &Layout) -> ort::Result<Self> {
        let mut past = Vec::new();
        let mut present = Vec::new();
        for layer in &layout.layers {
            past.extend([c_name(&layer.past_key)?, c_name(&layer.past_value)?]);
            present.extend([c_name(&layer.present_key)?, c_name(&layer.present_value)?]);
        }
        Ok(Self {
            input_ids: c_name(&layout.input_ids)?,
            seqlens_k: c_name(added::SEQLENS_K)?,
            total: c_name(added::TOTAL)?,
            query_seqlens: c_name(added::QUERY_SEQLENS)?,
            logits_indices: c_name(added::LOGITS_INDICES)?,
            logits: c_name(&layout.logits)?,
            past,
            present,
        })
    }
}

/// Tensors over ranges of slots, kept from step to step: one per slot (prefill)
/// and the last range (decoding).
#[derive(Default)]
struct BoundSlots {
    single: Vec<Option<Vec<DynTensor>>>,
    range: Option<((usize, usize), Vec<DynTensor>)>,
}

impl BoundSlots {
    fn get(&mut self, arena: &Arena, first: usize, count: usize) -> ort::Result<&[DynTensor]> {
        if count == 1 {
            self.single.resize_with(arena.shape().slots, || None);
            return match &mut self.single[first] {
                Some(bound) => Ok(bound),
                empty => Ok(empty.insert(arena.bind(first, 1)?)),
            };
        }
        match &mut self.range {
            Some((range, bound)) if *range == (first, count) => {}
            other => *other = Some(((first, count), arena.bind(first, count)?)),
        }
        Ok(self
            .range
            .as_ref()
            .map_or(&[], |(_, bound)| bound.as_slice()))
    }
}

/// Small inputs of a run, reused.
#[derive(Default)]
struct Scratch {
    ids: Vec<i64>,
    seqlens: Vec<i32>,
    query: Vec<i32>,
    indices: Vec<i64>,
    half: Vec<f16>,
}

impl Scratch {
    /// Fills the inputs of `run`; returns `total_sequence_length`.
    fn fill(&mut self, run: &Run, rows: &[Row<'_>], ragged: bool) -> i32 {
        for buffer in [&mut self.seqlens, &mut self.query] {
            buffer.clear();
        }
        self.indices.clear();
        self.ids.clear();
        self.ids.resize(run.lanes.len() * run.width, 0);
        let mut total = 0;
        for (lane, ids) in run.lanes.iter().zip(self.ids.chunks_exact_mut(run.width)) {
            let (past, new) = match *lane {
                Lane::Idle { used } if ragged && used > 0 => (used as usize, 0),
                Lane::Idle { used } => (used as usize, 1),
                Lane::Row(row) => {
                    let Row { past, tokens, .. } = rows[row];
                    for (id, token) in ids.iter_mut().zip(tokens) {
                        *id = i64::from(*token);
                    }
                    (past as usize, tokens.len())
                }
            };
            self.seqlens.push(to_i32(past + new - 1));
            self.query.push(to_i32(new));
            total = total.max(past + run.width);
        }
        for (lane, position) in run.lanes.iter().zip((0..).step_by(run.width)) {
            if let Lane::Row(row) = *lane {
                let wanted = wanted(&rows[row]);
                let end = position + rows[row].tokens.len();
                self.indices.extend((end - wanted..end).map(to_i64));
            }
        }
        to_i32(total)
    }
}

/// Sizes here are bounded by the slots' capacity, far below 2^31.
fn to_i32(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

fn to_i64(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn wanted(row: &Row<'_>) -> usize {
    match row.wanted {
        Wanted::Nothing => 0,
        Wanted::Last => 1,
        Wanted::All => row.tokens.len(),
    }
}

fn step(error: &ort::Error) -> BackendError {
    BackendError::Step(error.message().to_owned())
}

impl OnnxLm {
    pub(super) fn new(
        session: OnnxSession,
        layout: Layout,
        arena: Arena,
        capabilities: Capabilities,
    ) -> Result<Self, BackendError> {
        Ok(Self {
            names: Names::new(&layout).map_err(|error| step(&error))?,
            used: vec![0; arena.shape().slots],
            bound: BoundSlots::default(),
            costs: match layout.ragged {
                // Idle lanes are skipped, however much their slots hold.
                true => Costs {
                    idle_tokens: u32::MAX,
                    ..Costs::default()
                },
                false => Costs::default(),
            },
            scratch: Scratch::default(),
            session,
            layout,
            arena,
            capabilities,
        })
    }

    /// What is wrong with the batch, before anything of it runs.
    fn check(&self, batch: &Batch<'_>) -> Result<(), BackendError> {
        let mut seen = vec![false; self.used.len()];
        for row in &batch.rows {
            let slot = row.slot as usize;
            let end = row.past as usize + row.tokens.len();
            let problem = if slot >= seen.len() {
                format!("there are {} slots", seen.len())
            } else if std::mem::replace(&mut seen[slot], true) {
                "it appears twice in the batch".to_owned()
            } else if row.tokens.is_empty() {
                "no new tokens".to_owned()
            } else if end > self.capabilities.capacity as usize {
                format!(
                    "{end} tokens exceed its capacity of {}",
                    self.capabilities.capacity
                )
            } else if row.past > self.used[slot] {
                format!("it holds {} tokens, not {}", self.used[slot], row.past)
            } else if let Some(id) = row.tokens.iter().find(|id| **id >= self.capabilities.vocab) {
                format!(
                    "token {id} is outside the vocabulary of {}",
                    self.capabilities.vocab
                )
            } else {
                continue;
            };
            return Err(BackendError::Step(format!("slot {slot}: {problem}")));
        }
        Ok(())
    }

    /// Runs the graph once; logits of the wanted rows go to `logits`.
    fn run(&mut self, run: &Run, rows: &[Row<'_>], logits: &mut [f32]) -> Result<(), BackendError> {
        self.run_graph(run, rows, logits)
            .map_err(|error| step(&error))
    }

    fn run_graph(&mut self, run: &Run, rows: &[Row<'_>], logits: &mut [f32]) -> ort::Result<()> {
        let Self {
            session,
            names,
            scratch,
            layout,
            ..
        } = self;
        let total = [scratch.fill(run, rows, layout.ragged)];
        let (lanes, width) = (run.lanes.len(), run.width);
        let wanted = scratch.indices.len();
        let kv = self.bound.get(&self.arena, run.first as usize, lanes)?;

        let ids = TensorRef::from_array_view(([lanes, width], scratch.ids.as_slice()))?.into_dyn();
        let seqlens = TensorRef::from_array_view(([lanes], scratch.seqlens.as_slice()))?.into_dyn();
        let query = TensorRef::from_array_view(([lanes], scratch.query.as_slice()))?.into_dyn();
        let total = TensorRef::from_array_view(((), total.as_slice()))?.into_dyn();
        let indices =
            TensorRef::from_array_view(([wanted], scratch.indices.as_slice()))?.into_dyn();
        let kv: Vec<_> = kv.iter().map(|tensor| tensor.view().into_dyn()).collect();
        let mut inputs = vec![
            (names.input_ids.as_c_str(), &*ids),
            (&names.seqlens_k, &seqlens),
            (&names.total, &total),
            (&names.logits_indices, &indices),
        ];
        if layout.ragged {
            inputs.push((&names.query_seqlens, &query));
        }
        inputs.extend(
            names
                .past
                .iter()
                .map(CString::as_c_str)
                .zip(kv.iter().map(|kv| &**kv)),
        );

        let shape = [wanted, layout.vocab];
        let target = match layout.logits_float {
            Float::F32 => TensorRefMut::from_array_view_mut((shape, &mut *logits))?.into_dyn(),
            Float::F16 => {
                scratch.half.resize(logits.len(), f16::ZERO);
                TensorRefMut::from_array_view_mut((shape, scratch.half.as_mut_slice()))?.into_dyn()
            }
        };
        let mut outputs: Vec<_> = names
            .present
            .iter()
            .map(CString::as_c_str)
            .zip(kv.iter().map(|kv| Output::Into(kv)))
            .collect();
        if wanted > 0 {
            outputs.push((&names.logits, Output::Into(&target)));
        }
        bound::run(
            &session.session,
            &session.run_options,
            &inputs,
            &mut outputs,
        )?;
        drop(outputs);
        drop(target);
        if layout.logits_float == Float::F16 {
            for (logit, half) in logits.iter_mut().zip(&scratch.half) {
                *logit = half.to_f32();
            }
        }
        Ok(())
    }

    /// Forgets what the slots hold (after warm-up and probes).
    pub(super) fn clear(&mut self) {
        self.used.fill(0);
    }
}

impl Backend for OnnxLm {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn warmup(&mut self) -> Result<(), BackendError> {
        let mut outputs = Outputs::default();
        let slots = self.capabilities.slots;
        let chunk = self.capabilities.capacity.min(128) as usize;
        self.prefill(0..1, chunk, &mut outputs)?;
        let mut rows = 1;
        while rows <= slots {
            self.decode(rows, &mut outputs)?;
            rows *= 2;
        }
        self.clear();
        Ok(())
    }

    fn execute(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.check(batch)?;
        let rows = &batch.rows;
        for row in rows {
            self.used[row.slot as usize] = row.past;
        }
        let vocab = self.layout.vocab;
        outputs.vocab = vocab;
        outputs.ranges.clear();
        outputs.ranges.resize(rows.len(), 0..0);
        outputs
            .logits
            .resize(rows.iter().map(wanted).sum::<usize>() * vocab, 0.0);
        let mut done = 0;
        for run in plan(rows, &self.used, self.capabilities.capacity, self.costs) {
            let first = done;
            for lane in &run.lanes {
                if let Lane::Row(row) = *lane {
                    let end = done + wanted(&rows[row]);
                    outputs.ranges[row] = done..end;
                    done = end;
                }
            }
            self.run(&run, rows, &mut outputs.logits[first * vocab..done * vocab])?;
            for lane in &run.lanes {
                if let Lane::Row(row) = *lane {
                    let Row {
                        slot, past, tokens, ..
                    } = rows[row];
                    self.used[slot as usize] = past + u32::try_from(tokens.len()).unwrap_or(0);
                }
            }
        }
        Ok(())
    }

    fn copy_prefix(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), BackendError> {
        let held = |slot: u32| self.used.get(slot as usize).copied();
        match (held(from), held(to)) {
            (Some(held), Some(_)) if held >= tokens => {
                self.arena
                    .copy_prefix(from as usize, to as usize, tokens as usize);
                self.used[to as usize] = tokens;
                Ok(())
            }
            (Some(held), Some(_)) => Err(BackendError::Step(format!(
                "slot {from} holds {held} tokens, {tokens} cannot be copied"
            ))),
            _ => Err(BackendError::Step(format!(
                "slots {from} and {to} are not both below {}",
                self.used.len()
            ))),
        }
    }
}

/// Measuring what is cheaper on this machine.
impl OnnxLm {
    /// A chunk of `tokens` new tokens in each of `slots`, from their start.
    fn prefill(
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
    fn decode(&mut self, rows: u32, outputs: &mut Outputs) -> Result<(), BackendError> {
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
    pub(super) fn calibrate(&mut self) -> Result<(), BackendError> {
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
            least = least.min(start.elapsed());
        }
        Ok(least)
    }

    /// As chosen by [`calibrate`](Self::calibrate).
    pub(super) fn costs(&self) -> Costs {
        self.costs
    }
}

#[cfg(test)]
mod tests;
