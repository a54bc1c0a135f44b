//! The structures of `kernels/sampling.cu`, and how requests become them.
#![expect(unsafe_code, reason = "structures go to the kernel as bytes")]

use super::super::machine::{Plain, bytes_of};
use crate::sampler::{Draw, MAX_TOP, is_greedy};

/// `Row`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    uniform: f64,
    inverse: f32,
    top_p: f32,
    least: f32,
    repetition: f32,
    frequency: f32,
    presence: f32,
    source: u32,
    greedy: u32,
    top_k: u32,
    evidence: i32,
    history: [u32; 2],
    bias: [u32; 2],
    suppressed: [u32; 2],
    mask_begin: u32,
    mask_words: i32,
}

// SAFETY: numbers of eight bytes, then an even count of four: no padding.
unsafe impl Plain for Row {}

/// `Drawn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) none: u32,
    pub(super) id: u32,
    pub(super) logprob: f32,
    pub(super) tops: u32,
}

// SAFETY: four numbers of the same size.
unsafe impl Plain for Drawn {}

/// `Sampling`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arguments {
    pub(super) logits: u64,
    pub(super) stride: u64,
    pub(super) rows: u64,
    pub(super) history_ids: u64,
    pub(super) history_counts: u64,
    pub(super) bias_ids: u64,
    pub(super) biases: u64,
    pub(super) suppressed: u64,
    pub(super) masks: u64,
    pub(super) copies: u64,
    pub(super) withheld: u64,
    pub(super) drawn: u64,
    pub(super) top_ids: u64,
    pub(super) top_logprobs: u64,
    pub(super) vocab: u32,
    /// What C++ leaves free at the end.
    pub(super) end: u32,
}

// SAFETY: numbers of eight bytes, then two of four: no padding.
unsafe impl Plain for Arguments {}

/// The requests of a launch, one array after the other; kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Packed {
    rows: Vec<Row>,
    history_ids: Vec<u32>,
    history_counts: Vec<u32>,
    bias_ids: Vec<u32>,
    biases: Vec<f32>,
    suppressed: Vec<u32>,
    masks: Vec<u32>,
    bytes: Vec<u8>,
    starts: [usize; 7],
}

impl Packed {
    /// Takes over the requests; ids beyond the vocabulary are left out, as the CPU's
    /// sampler ignores them.
    pub(super) fn fill(&mut self, requests: &[Draw<'_>], vocab: usize) {
        self.rows.clear();
        for list in [
            &mut self.history_ids,
            &mut self.history_counts,
            &mut self.bias_ids,
            &mut self.suppressed,
            &mut self.masks,
        ] {
            list.clear();
        }
        self.biases.clear();
        for request in requests {
            let row = self.row(request, vocab);
            self.rows.push(row);
        }
        self.lay_out();
    }

    fn row(&mut self, request: &Draw<'_>, vocab: usize) -> Row {
        let known = |id: u32| (id as usize) < vocab;
        let (params, state) = (request.params, request.state);
        let history = self.history_ids.len() as u32;
        for (id, occurrences) in state.history().filter(|&(id, _)| known(id)) {
            self.history_ids.push(id);
            self.history_counts.push(occurrences);
        }

        let bias = self.bias_ids.len() as u32;
        let mut biases: Vec<(u32, f32)> = params.logit_bias.to_vec();
        biases.retain(|&(id, _)| known(id));
        // Stable: those of one id are added in the order given.
        biases.sort_by_key(|&(id, _)| id);
        self.bias_ids.extend(biases.iter().map(|&(id, _)| id));
        self.biases.extend(biases.iter().map(|&(_, bias)| bias));

        let suppressed = self.suppressed.len() as u32;
        let mut ends = state.suppressed(params).to_vec();
        ends.retain(|&id| known(id));
        ends.sort_unstable();
        ends.dedup();
        self.suppressed.extend(ends);

        let mask_begin = self.masks.len() as u32;
        self.masks.extend(request.mask.unwrap_or_default());
        let top_k = match params.top_k {
            k if (k as usize) < vocab => k,
            _ => 0,
        };
        Row {
            uniform: request.uniform,
            inverse: 1.0 / params.temperature,
            top_p: params.top_p,
            // The likeliest token has weight 1.
            least: params.min_p.min(1.0),
            repetition: params.repetition_penalty,
            frequency: params.frequency_penalty,
            presence: params.presence_penalty,
            source: request.row,
            greedy: u32::from(is_greedy(params)),
            top_k,
            evidence: params
                .logprobs
                .map_or(-1, |top| i32::from(top.min(MAX_TOP))),
            history: [history, self.history_ids.len() as u32],
            bias: [bias, self.bias_ids.len() as u32],
            suppressed: [suppressed, self.suppressed.len() as u32],
            mask_begin,
            mask_words: request.mask.map_or(-1, |mask| mask.len() as i32),
        }
    }

    fn lay_out(&mut self) {
        let parts = [
            bytes_of(&self.rows),
            bytes_of(&self.history_ids),
            bytes_of(&self.history_counts),
            bytes_of(&self.bias_ids),
            bytes_of(&self.biases),
            bytes_of(&self.suppressed),
            bytes_of(&self.masks),
        ];
        self.bytes.clear();
        for (start, part) in self.starts.iter_mut().zip(parts) {
            *start = self.bytes.len();
            self.bytes.extend_from_slice(part);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether some row has penalties, a bias or suppressed ends.
    pub(super) fn changed(&self) -> bool {
        !(self.history_ids.is_empty() && self.bias_ids.is_empty() && self.suppressed.is_empty())
    }

    /// Suppressed ends of all rows.
    pub(super) fn suppressed(&self) -> usize {
        self.suppressed.len()
    }

    /// The addresses of the arrays, laid out from `start` on.
    pub(super) fn arguments(&self, start: u64) -> Arguments {
        let [
            rows,
            history_ids,
            history_counts,
            bias_ids,
            biases,
            suppressed,
            masks,
        ] = self.starts.map(|offset| start + offset as u64);
        Arguments {
            rows,
            history_ids,
            history_counts,
            bias_ids,
            biases,
            suppressed,
            masks,
            ..Arguments::default()
        }
    }
}
