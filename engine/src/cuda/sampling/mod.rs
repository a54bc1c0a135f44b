//! Draws tokens where the logits are. One upload of the rows' parameters, one
//! launch, one download of the tokens: logits never leave the device.
//!
//! [`crate::sampler`] is the definition; the kernel gives the same tokens for the
//! same numbers (`kernels/sampling.cu` says why that holds to the last draw).
#![expect(unsafe_code, reason = "launches a kernel on raw addresses")]

mod layout;

use super::CudaError;
use super::buffers::Kept;
use super::machine::{Buffer, Float, Launch, Machine, bytes_of};
use crate::request::SampledToken;
use crate::sampler::{Draw, MAX_TOP, SampleError};
use layout::{Arguments, Drawn, Packed};

/// As many as a block has: one block draws a row.
const THREADS: u32 = 1024;

/// Tokens of a vocabulary at most: sums of weights are exact up to here, and ids fit
/// beside a logit's bits.
pub(super) const MAX_VOCAB: usize = 1 << 19;

/// Logits in the memory of a machine: `[rows, stride]`, of which `vocab` count.
#[derive(Debug)]
pub struct LogitsView<'a, B> {
    /// Where they are.
    pub buffer: &'a B,
    /// Bytes before the first row.
    pub offset: usize,
    /// Their type.
    pub float: Float,
    /// Rows.
    pub rows: usize,
    /// Numbers from row to row.
    pub stride: usize,
    /// Numbers of a row that are logits, at most 2¹⁹.
    pub vocab: usize,
}

/// Kernel `sample_*`.
#[derive(Debug)]
pub struct SampleKernel<B> {
    threads: u32,
    packed: Packed,
    input: Kept<B>,
    copies: Kept<B>,
    withheld: Kept<B>,
    output: Kept<B>,
    /// What the launch in flight will have drawn.
    pending: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    rows: usize,
    /// Some row wants log-probabilities.
    evidence: bool,
}

impl<B> Default for SampleKernel<B> {
    fn default() -> Self {
        Self {
            threads: THREADS,
            packed: Packed::default(),
            input: Kept::default(),
            copies: Kept::default(),
            withheld: Kept::default(),
            output: Kept::default(),
            pending: Pending::default(),
        }
    }
}

impl<B: Buffer> SampleKernel<B> {
    /// With blocks of another size (32 to 1024, a multiple of 32); draws are the same.
    #[must_use]
    pub fn with_threads(threads: u32) -> Self {
        Self {
            threads,
            ..Self::default()
        }
    }

    /// Starts drawing; [`Self::finish`] gives the tokens. The logits are not changed.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when a row or a buffer is out of range, or a number not
    /// in [0, 1).
    pub fn start<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        logits: &LogitsView<'_, B>,
        requests: &[Draw<'_>],
    ) -> Result<(), CudaError> {
        check(logits, requests)?;
        self.pending = Pending {
            rows: requests.len(),
            evidence: requests.iter().any(|r| r.params.logprobs.is_some()),
        };
        if requests.is_empty() {
            return Ok(());
        }
        self.packed.fill(requests, logits.vocab);
        let input = self.input.holding(machine, self.packed.bytes())?.address();
        // Only rows that penalties, bias or `min_tokens` change are copied.
        let copies = match self.packed.changed() {
            true => requests.len() * logits.vocab * size_of::<f32>(),
            false => 0,
        };
        let copies = self.copies.sized(machine, copies)?.address();
        let withheld = self.packed.suppressed() * size_of::<f32>();
        let withheld = self.withheld.sized(machine, withheld)?.address();
        let output = Output::of(requests.len());
        let out = self.output.sized(machine, output.end)?.address();
        let arguments = Arguments {
            logits: logits.buffer.address() + logits.offset as u64,
            stride: logits.stride as u64,
            copies,
            withheld,
            drawn: out,
            top_ids: out + output.top_ids as u64,
            top_logprobs: out + output.top_logprobs as u64,
            vocab: logits.vocab as u32,
            ..self.packed.arguments(input)
        };
        let launch = Launch {
            image: "sampling",
            kernel: logits.float.of("sample_f32", "sample_f16", "sample_bf16"),
            grid: [requests.len() as u32, 1, 1],
            threads: self.threads,
            arguments: bytes_of(std::slice::from_ref(&arguments)),
        };
        // SAFETY: `check` found each row inside the logits, and `fill` leaves out ids
        // beyond the vocabulary; the kernel's own buffers were sized above. All belong
        // to the machine, which frees memory after what was launched before.
        unsafe { machine.launch(&launch) }
    }

    /// The tokens of the last [`Self::start`], in the order of its requests.
    ///
    /// # Errors
    /// What went wrong on the device; [`SampleError::NothingAllowed`] for a row.
    pub fn finish<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
    ) -> Result<Vec<Result<SampledToken, SampleError>>, CudaError> {
        let Pending { rows, evidence } = std::mem::take(&mut self.pending);
        if rows == 0 {
            return Ok(Vec::new());
        }
        let output = Output::of(rows);
        let wanted = if evidence { output.end } else { output.top_ids };
        let mut bytes = vec![0; wanted];
        let buffer = self.output.sized(machine, output.end)?;
        machine.read(buffer, &mut bytes)?;
        Ok(output.tokens(&bytes))
    }
}

/// Where the parts of the output start: tokens, then the likeliest of each row.
struct Output {
    rows: usize,
    top_ids: usize,
    top_logprobs: usize,
    end: usize,
}

impl Output {
    fn of(rows: usize) -> Self {
        let top_ids = rows * size_of::<Drawn>();
        let tops = rows * usize::from(MAX_TOP) * size_of::<u32>();
        Self {
            rows,
            top_ids,
            top_logprobs: top_ids + tops,
            end: top_ids + 2 * tops,
        }
    }

    /// `bytes` are the whole output, or the tokens alone.
    fn tokens(&self, bytes: &[u8]) -> Vec<Result<SampledToken, SampleError>> {
        use super::machine::values_of;
        let top = |row: usize, count: u32| -> Vec<(u32, f32)> {
            let first = row * usize::from(MAX_TOP) * size_of::<u32>();
            let part = |start: usize| bytes.get(start + first..).unwrap_or_default();
            values_of(part(self.top_ids))
                .zip(values_of(part(self.top_logprobs)))
                .take(count as usize)
                .collect()
        };
        values_of::<Drawn>(bytes)
            .take(self.rows)
            .enumerate()
            .map(|(row, drawn)| match drawn.none {
                0 => Ok(SampledToken {
                    id: drawn.id,
                    logprob: drawn.logprob,
                    top: top(row, drawn.tops),
                }),
                _ => Err(SampleError::NothingAllowed),
            })
            .collect()
    }
}

fn check<B: Buffer>(logits: &LogitsView<'_, B>, requests: &[Draw<'_>]) -> Result<(), CudaError> {
    let wrong = |text: String| Err(CudaError::Shape(text));
    let LogitsView {
        rows,
        stride,
        vocab,
        ..
    } = *logits;
    if vocab == 0 || vocab > MAX_VOCAB || vocab > stride {
        return wrong(format!(
            "a vocabulary of {vocab} in rows of {stride}: 1 to {MAX_VOCAB} are right"
        ));
    }
    let numbers = match rows {
        0 => 0,
        rows => (rows - 1) * stride + vocab,
    };
    if logits.offset + numbers * logits.float.size() > logits.buffer.size() {
        return wrong(format!(
            "{rows} rows of {stride} logits from byte {} in {}",
            logits.offset,
            logits.buffer.size()
        ));
    }
    if !logits.offset.is_multiple_of(logits.float.size()) {
        return wrong(format!(
            "logits from byte {}: not between two",
            logits.offset
        ));
    }
    for request in requests {
        if request.row as usize >= rows {
            return wrong(format!("row {} of {rows} is asked for", request.row));
        }
        if !(0.0..1.0).contains(&request.uniform) {
            return wrong(format!("{} is not in [0, 1)", request.uniform));
        }
    }
    Ok(())
}
