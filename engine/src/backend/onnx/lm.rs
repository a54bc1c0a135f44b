//! A causal language model over slots: the [`Backend`] on ONNX Runtime.
#![expect(unsafe_code, reason = "makes a tensor over a borrowed slice")]

mod captured;
mod ends;
mod inputs;
mod measure;

use std::ffi::CString;
use std::ops::Range;

use ort::value::{DynValue, TensorRef};

use super::arena::element;
use super::bound::{self, Output};
use super::graph::Layout;
use super::plan::{Costs, Lane, Run, plan};
use super::session::OnnxSession;
use super::store::{Store, from_half};
use crate::backend::{Backend, Batch, Capabilities, Outputs, Row};
use crate::cuda::Float;
use crate::error::BackendError;
use crate::request::SampledToken;
use crate::sampler::{Draw, SampleError, Sampler};
pub(super) use captured::Captured;
pub(super) use ends::RunEnds;
use inputs::{Names, Scratch, wanted};

/// A loaded model. Lives on its device thread.
pub(super) struct OnnxLm {
    // First of all, because it works on the device's stream.
    session: OnnxSession,
    layout: Layout,
    // These before `store`, over which their tensors lie.
    bound: BoundSlots,
    captured: Option<Captured>,
    ends: RunEnds,
    store: Store,
    /// Tokens whose K/V each slot holds; junk may lie beyond, never below.
    used: Vec<u32>,
    costs: Costs,
    capabilities: Capabilities,
    names: Names,
    scratch: Scratch,
}

/// Tensors over ranges of slots, kept from step to step: one per slot (prefill)
/// and the last range (decoding).
#[derive(Default)]
struct BoundSlots {
    single: Vec<Option<Vec<DynValue>>>,
    range: Option<((usize, usize), Vec<DynValue>)>,
}

impl BoundSlots {
    fn get(&mut self, store: &Store, first: usize, count: usize) -> ort::Result<&[DynValue]> {
        if count == 1 {
            self.single.resize_with(store.shape().slots, || None);
            return match &mut self.single[first] {
                Some(bound) => Ok(bound),
                empty => Ok(empty.insert(store.bind(first, 1)?)),
            };
        }
        match &mut self.range {
            Some((range, bound)) if *range == (first, count) => {}
            other => *other = Some(((first, count), store.bind(first, count)?)),
        }
        Ok(self
            .range
            .as_ref()
            .map_or(&[], |(_, bound)| bound.as_slice()))
    }
}

impl OnnxLm {
    pub(super) fn new(
        session: OnnxSession,
        layout: Layout,
        store: Store,
        (captured, ends): (Option<Captured>, RunEnds),
        capabilities: Capabilities,
    ) -> Result<Self, BackendError> {
        let names = Names::new(&layout);
        Ok(Self {
            names: names.map_err(|error| BackendError::Step(error.message().to_owned()))?,
            used: vec![0; store.shape().slots],
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
            store,
            captured,
            ends,
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

    /// Runs the graph once; logits of the wanted rows go to `into`. `is_last` of its step.
    fn run(
        &mut self,
        run: &Run,
        rows: &[Row<'_>],
        (into, is_last): (Range<usize>, bool),
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        let draw_follows = is_last && run.width == 1 && !into.is_empty();
        let early = self.ends.returns_early(draw_follows);
        if let Store::Device(store) = &mut self.store {
            store.settle()?;
            store.running = early;
        }
        let vocab = self.layout.vocab;
        let ran = match &self.store {
            Store::Host(_) => {
                let logits = &mut outputs.logits[into.start * vocab..into.end * vocab];
                self.run_to_host(run, rows, logits)
            }
            Store::Device(store) => {
                let logits = store.logits(into);
                logits.and_then(|logits| self.run_graph(run, rows, &logits, early))
            }
        };
        ran.map_err(|error| self.judge(&error))
    }

    fn judge(&self, error: &ort::Error) -> BackendError {
        match &self.store {
            Store::Host(_) => BackendError::Step(error.message().to_owned()),
            Store::Device(store) => store.judge(error),
        }
    }

    fn run_to_host(&mut self, run: &Run, rows: &[Row<'_>], logits: &mut [f32]) -> ort::Result<()> {
        let (float, vocab) = (self.layout.logits_float, self.layout.vocab);
        let mut half = std::mem::take(&mut self.scratch.half);
        let start = match float {
            Float::F32 => logits.as_mut_ptr().expose_provenance(),
            Float::F16 | Float::Bf16 => {
                half.resize(logits.len(), 0);
                half.as_mut_ptr().expose_provenance()
            }
        };
        let shape = [logits.len() / vocab, vocab].map(inputs::to_i64);
        let bytes = logits.len() * float.size();
        let info = ort::memory::MemoryInfo::default();
        // SAFETY: `logits` or `half` is that long, and is not touched before the run is over.
        let target = unsafe { bound::borrow_tensor(start, bytes, &shape, element(float), &info) }?;
        self.run_graph(run, rows, &target, false)?;
        drop(target);
        if float != Float::F32 {
            for (logit, bits) in logits.iter_mut().zip(&half) {
                *logit = from_half(float, *bits);
            }
        }
        self.scratch.half = half;
        Ok(())
    }

    /// `target` takes the logits, `[wanted, vocab]`; where the run returns `early`, they are
    /// there in the stream's order.
    fn run_graph(
        &mut self,
        run: &Run,
        rows: &[Row<'_>],
        target: &DynValue,
        early: bool,
    ) -> ort::Result<()> {
        let Self {
            session,
            names,
            scratch,
            layout,
            ends,
            ..
        } = self;
        let total = [scratch.fill(run, rows, layout.ragged)];
        let (lanes, width) = (run.lanes.len(), run.width);
        let wanted = scratch.indices.len();
        let kv = self.bound.get(&self.store, run.first as usize, lanes)?;

        let ids = TensorRef::from_array_view(([lanes, width], scratch.ids.as_slice()))?.into_dyn();
        let seqlens = TensorRef::from_array_view(([lanes], scratch.seqlens.as_slice()))?.into_dyn();
        let query = TensorRef::from_array_view(([lanes], scratch.query.as_slice()))?.into_dyn();
        let total = TensorRef::from_array_view(((), total.as_slice()))?.into_dyn();
        let indices =
            TensorRef::from_array_view(([wanted], scratch.indices.as_slice()))?.into_dyn();
        let mut inputs = vec![
            (names.input_ids.as_c_str(), &*ids),
            (&names.seqlens_k, &seqlens),
            (&names.total, &total),
            (&names.logits_indices, &indices),
        ];
        if layout.ragged {
            inputs.push((&names.query_seqlens, &query));
        }
        inputs.extend(names.past.iter().map(CString::as_c_str).zip(kv));
        let mut outputs: Vec<_> = names
            .present
            .iter()
            .map(CString::as_c_str)
            .zip(kv.iter().map(Output::Into))
            .collect();
        if wanted > 0 {
            outputs.push((&names.logits, Output::Into(target)));
        }
        let options = ends.options(early);
        bound::run(&session.session, options, &inputs, &mut outputs)
    }

    /// Runs a step, and has its logits on the host.
    ///
    /// # Errors
    /// As [`Backend::execute`].
    pub(super) fn execute_to_host(
        &mut self,
        batch: &Batch<'_>,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        self.execute(batch, outputs)?;
        let rows = outputs.ranges.iter().map(|range| range.end).max();
        self.fetch(0..rows.unwrap_or(0), outputs)
    }

    /// Waits for what the last step has left to the device.
    ///
    /// # Errors
    /// What went wrong in it.
    fn finish(&mut self) -> Result<(), BackendError> {
        match &mut self.store {
            Store::Host(_) => Ok(()),
            Store::Device(store) => store.finish(),
        }
    }

    /// Forgets what the slots hold (after warm-up and probes).
    pub(super) fn clear(&mut self) {
        self.used.fill(0);
    }

    /// Notes what the rows of a run have added to their slots.
    fn advance(&mut self, run: &Run, rows: &[Row<'_>]) {
        for lane in &run.lanes {
            if let Lane::Row(row) = *lane {
                let Row {
                    slot, past, tokens, ..
                } = rows[row];
                self.used[slot as usize] = past + u32::try_from(tokens.len()).unwrap_or(0);
            }
        }
    }

    /// Runs the first of a step's runs as a captured graph, if it can be one; gives the
    /// rows of logits that it takes.
    fn run_captured(
        &mut self,
        runs: &[Run],
        rows: &[Row<'_>],
        outputs: &mut Outputs,
    ) -> Result<Option<usize>, BackendError> {
        let (Some(run), Some(captured), Store::Device(store)) =
            (runs.first(), &mut self.captured, &mut self.store)
        else {
            return Ok(None);
        };
        let capacity = self.capabilities.capacity;
        let Some(padded) = captured.padded(run, rows, &self.used, capacity) else {
            return Ok(None);
        };
        let lanes = padded.lanes.len();
        store.begin(lanes + wanted_of(&runs[1..], rows))?;
        if !store.is_steady() {
            return Ok(None);
        }
        self.scratch.fill(&padded, rows, false);
        captured.run(&self.session, &self.names, store, &self.scratch)?;
        for (lane, place) in run.lanes.iter().zip(0..) {
            if let Lane::Row(row) = *lane {
                outputs.ranges[row] = place..place + 1;
            }
        }
        self.advance(run, rows);
        Ok(Some(lanes))
    }
}

impl Drop for OnnxLm {
    fn drop(&mut self) {
        // The session's memory is freed, which a run may still use.
        if let Err(error) = self.finish() {
            tracing::debug!(%error, "the last run");
        }
    }
}

/// Rows of logits that runs give.
fn wanted_of(runs: &[Run], rows: &[Row<'_>]) -> usize {
    let lanes = runs.iter().flat_map(|run| &run.lanes);
    lanes
        .map(|lane| match *lane {
            Lane::Row(row) => wanted(&rows[row]),
            Lane::Idle { .. } => 0,
        })
        .sum()
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
        self.finish()
    }

    fn execute(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.check(batch)?;
        let rows = &batch.rows;
        for row in rows {
            self.used[row.slot as usize] = row.past;
        }
        outputs.vocab = self.layout.vocab;
        outputs.ranges.clear();
        outputs.ranges.resize(rows.len(), 0..0);
        let mut runs = plan(rows, &self.used, self.capabilities.capacity, self.costs);
        let mut done = 0;
        if let Some(lanes) = self.run_captured(&runs, rows, outputs)? {
            runs.remove(0);
            done = lanes;
        } else {
            let wanted = wanted_of(&runs, rows);
            match &mut self.store {
                Store::Host(_) => outputs.logits.resize(wanted * self.layout.vocab, 0.0),
                Store::Device(store) => store.begin(wanted)?,
            }
        }
        let count = runs.len();
        for (place, run) in (1..).zip(runs) {
            let first = done;
            for lane in &run.lanes {
                if let Lane::Row(row) = *lane {
                    let end = done + wanted(&rows[row]);
                    outputs.ranges[row] = done..end;
                    done = end;
                }
            }
            self.run(&run, rows, (first..done, place == count), outputs)?;
            self.advance(&run, rows);
        }
        Ok(())
    }

    fn fetch(&mut self, rows: Range<usize>, outputs: &mut Outputs) -> Result<(), BackendError> {
        match &mut self.store {
            Store::Host(_) => Ok(()),
            Store::Device(store) => store.fetch(rows, outputs),
        }
    }

    fn draw(
        &mut self,
        sampler: &mut Sampler,
        outputs: &mut Outputs,
        draws: &[Draw<'_>],
        tokens: &mut Vec<Result<SampledToken, SampleError>>,
    ) -> Result<(), BackendError> {
        match &mut self.store {
            Store::Host(_) => {
                sampler.draw_all(outputs, draws, tokens);
                Ok(())
            }
            Store::Device(store) => store.draw(draws, tokens),
        }
    }

    fn copy_prefix(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), BackendError> {
        let held = |slot: u32| self.used.get(slot as usize).copied();
        match (held(from), held(to)) {
            (Some(held), Some(_)) if held >= tokens => {
                self.store.copy_prefix(from, to, tokens)?;
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

#[cfg(test)]
mod tests;
