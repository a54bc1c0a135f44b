//! What a run of the graph takes beside K/V.

use std::ffi::CString;

use super::super::bound::c_name;
use super::super::graph::{Layout, added};
use super::super::plan::{Lane, Run};
use crate::backend::{Row, Wanted};

/// Names as ONNX Runtime takes them.
pub(super) struct Names {
    pub(super) input_ids: CString,
    pub(super) seqlens_k: CString,
    pub(super) total: CString,
    pub(super) query_seqlens: CString,
    pub(super) logits_indices: CString,
    pub(super) logits: CString,
    /// Keys and values of layer 0, then of layer 1, and so on.
    pub(super) past: Vec<CString>,
    pub(super) present: Vec<CString>,
}

impl Names {
    pub(super) fn new(layout: &Layout) -> ort::Result<Self> {
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

/// Small inputs of a run, reused.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) ids: Vec<i64>,
    pub(super) seqlens: Vec<i32>,
    pub(super) query: Vec<i32>,
    pub(super) indices: Vec<i64>,
    /// Logits as a graph in half precision gives them.
    pub(super) half: Vec<u16>,
}

impl Scratch {
    /// Fills the inputs of `run`; returns `total_sequence_length`.
    pub(super) fn fill(&mut self, run: &Run, rows: &[Row<'_>], ragged: bool) -> i32 {
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
pub(super) fn to_i32(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

pub(super) fn to_i64(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn wanted(row: &Row<'_>) -> usize {
    match row.wanted {
        Wanted::Nothing => 0,
        Wanted::Last => 1,
        Wanted::All => row.tokens.len(),
    }
}
