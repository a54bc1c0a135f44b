//! Decoding by captured CUDA graphs: a step of a small model is some hundred kernels,
//! and starting them one by one takes longer than running them.
//!
//! A graph is captured for a number of lanes, with the addresses of its inputs and
//! outputs, so these lie in device memory of their own, and a step takes the next
//! larger graph. Lanes beyond the step's are idle: each computes a token of junk just
//! beyond what its slot holds. `total_sequence_length`, which lies on the host and is
//! captured as a number, is the slots' capacity; each row's own length decides what it
//! attends to.
#![expect(unsafe_code, reason = "makes tensors over memory of the device")]

use std::collections::BTreeMap;

use ort::memory::MemoryInfo;
use ort::session::RunOptions;
use ort::value::{DynValue, Tensor, TensorElementType};

use super::super::bound::{self, Output};
use super::super::plan::{Lane, Run};
use super::super::session::OnnxSession;
use super::super::store::{DeviceStore, lost};
use super::inputs::{Names, Scratch, to_i32, to_i64, wanted};
use crate::backend::Row;
use crate::cuda::{Buffer as _, CudaError, Device, DeviceBuffer, Machine as _};
use crate::error::BackendError;

/// Most graphs of one model: each holds its own activations on the device.
const MOST: usize = 12;

/// See the module's text.
pub(in super::super) struct Captured {
    // Before the buffers over which they lie.
    graphs: BTreeMap<u32, Graph>,
    /// `int64[slots]`.
    ids: DeviceBuffer,
    /// `int32[slots]`.
    seqlens: DeviceBuffer,
    /// `int64[slots]`: 0, 1, 2, …
    indices: DeviceBuffer,
    /// `int32[]`, on the host.
    total: DynValue,
    /// Lanes, ascending.
    sizes: Vec<u32>,
    info: MemoryInfo<'static>,
}

/// What a graph was captured with.
struct Graph {
    options: RunOptions,
    ids: DynValue,
    seqlens: DynValue,
    indices: DynValue,
    kv: Vec<DynValue>,
    logits: DynValue,
}

impl Captured {
    /// Takes the memory; graphs are captured at the first step of their size.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub(in super::super) fn new(
        device: &mut Device,
        (slots, capacity): (u32, u32),
        info: MemoryInfo<'static>,
    ) -> Result<Self, CudaError> {
        let count = slots as usize;
        let mut indices = device.allocate(count * size_of::<i64>())?;
        let numbers: Vec<u8> = (0..i64::from(slots)).flat_map(i64::to_ne_bytes).collect();
        device.write(&mut indices, &numbers)?;
        let refused = |error: ort::Error| CudaError::Shape(error.message().to_owned());
        let total = Tensor::from_array(((), vec![to_i32(capacity as usize)])).map_err(refused)?;
        Ok(Self {
            graphs: BTreeMap::new(),
            ids: device.allocate(count * size_of::<i64>())?,
            seqlens: device.allocate(count * size_of::<i32>())?,
            indices,
            total: total.into_dyn(),
            sizes: sizes(slots),
            info,
        })
    }

    /// The run with idle lanes up to the next captured size; `None` if it is not to be
    /// captured: not one token a lane from the first slot on, or a slot has no room.
    pub(super) fn padded(
        &self,
        run: &Run,
        rows: &[Row<'_>],
        used: &[u32],
        capacity: u32,
    ) -> Option<Run> {
        let plain = run.first == 0 && run.width == 1;
        let answers = |lane: &Lane| match *lane {
            Lane::Row(row) => wanted(&rows[row]) == 1,
            Lane::Idle { .. } => true,
        };
        if !plain || !run.lanes.iter().all(answers) {
            return None;
        }
        let lanes = run.lanes.len();
        let size = *self.sizes.iter().find(|size| **size as usize >= lanes)? as usize;
        let beyond = used.get(lanes..size)?;
        if beyond.iter().any(|&used| used >= capacity) {
            return None;
        }
        let mut padded = run.clone();
        let idle = beyond.iter().map(|&used| Lane::Idle { used });
        padded.lanes.extend(idle);
        Some(padded)
    }

    /// Runs the graph of as many lanes as `inputs` have; captures it at the first time.
    ///
    /// # Errors
    /// The run failed, or the device is lost.
    pub(super) fn run(
        &mut self,
        session: &OnnxSession,
        names: &Names,
        store: &mut DeviceStore,
        inputs: &Scratch,
    ) -> Result<(), BackendError> {
        let ids: Vec<u8> = inputs
            .ids
            .iter()
            .copied()
            .flat_map(i64::to_ne_bytes)
            .collect();
        let seqlens: Vec<u8> = inputs
            .seqlens
            .iter()
            .copied()
            .flat_map(i32::to_ne_bytes)
            .collect();
        store
            .device
            .write(&mut self.ids, &ids)
            .map_err(|error| lost(&error))?;
        store
            .device
            .write(&mut self.seqlens, &seqlens)
            .map_err(|error| lost(&error))?;
        store.settle()?;
        self.replay(session, names, store, inputs.seqlens.len())
            .map_err(|error| store.judge(&error))
    }

    fn replay(
        &mut self,
        session: &OnnxSession,
        names: &Names,
        store: &DeviceStore,
        lanes: usize,
    ) -> ort::Result<()> {
        let size = u32::try_from(lanes).unwrap_or(u32::MAX);
        if !self.graphs.contains_key(&size) {
            let graph = self.graph(store, lanes)?;
            self.graphs.insert(size, graph);
        }
        let graph = &self.graphs[&size];
        let mut inputs = vec![
            (names.input_ids.as_c_str(), &graph.ids),
            (&names.seqlens_k, &graph.seqlens),
            (&names.total, &self.total),
            (&names.logits_indices, &graph.indices),
        ];
        let past = names.past.iter().zip(&graph.kv);
        inputs.extend(past.map(|(name, kv)| (name.as_c_str(), kv)));
        let present = names.present.iter().zip(&graph.kv);
        let mut outputs: Vec<_> = present
            .map(|(name, kv)| (name.as_c_str(), Output::Into(kv)))
            .collect();
        outputs.push((&names.logits, Output::Into(&graph.logits)));
        bound::run(&session.session, &graph.options, &inputs, &mut outputs)
    }

    fn graph(&self, store: &DeviceStore, lanes: usize) -> ort::Result<Graph> {
        let count = to_i64(lanes);
        Ok(Graph {
            options: options(to_i32(lanes))?,
            ids: self.tensor(&self.ids, &[count, 1], TensorElementType::Int64)?,
            seqlens: self.tensor(&self.seqlens, &[count], TensorElementType::Int32)?,
            indices: self.tensor(&self.indices, &[count], TensorElementType::Int64)?,
            kv: store.slots(0, lanes)?,
            logits: store.logits(0..lanes)?,
        })
    }

    fn tensor(
        &self,
        buffer: &DeviceBuffer,
        shape: &[i64],
        element: TensorElementType,
    ) -> ort::Result<DynValue> {
        let start = buffer.address() as usize;
        // SAFETY: the buffer has room for one number a slot and lies where `info` says;
        // it outlives the graphs, and is written between runs, in the stream's order or
        // after waiting (`settle`).
        unsafe { bound::borrow_tensor(start, buffer.size(), shape, element, &self.info) }
    }
}

/// Lanes for which graphs are captured: powers of two, and all slots. Beyond 64 slots
/// fewer of the small ones.
fn sizes(slots: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> = (0..32)
        .map(|power| 1 << power)
        .take_while(|&size| size < slots)
        .collect();
    sizes.push(slots);
    let spare = sizes.len().saturating_sub(MOST);
    sizes.drain(..spare);
    sizes
}

/// With the number under which ONNX Runtime keeps a graph.
fn options(graph: i32) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("gpu_graph_id", graph.to_string())?;
    Ok(options)
}

#[cfg(test)]
mod tests;
