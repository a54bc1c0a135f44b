//! The parity probe: before a model is served, it must repeat what its source says.
//!
//! `sluice_probe.json` lies beside the model, written from the source checkpoint:
//! `{"format": 1, "source": "…", "atol": 1e-3, "prompts": [{"input_ids": […],
//! "greedy": […], "logits": {"positions": [p, …], "token_ids": […],
//! "values": [[…], …]}}]}`, where `values[i][j]` is the logit of `token_ids[j]`
//! after position `positions[i]` of `input_ids` followed by `greedy`.
//!
//! The probe runs on the slots themselves, teacher-forced: prompts in chunks, in
//! neighbouring slots, decoding in one batch while others are still prefilling.
//! A folder without one is compared with itself (alone and whole against batched
//! and chunked), which finds a broken batch but not a broken export.

use std::path::Path;

use serde::Deserialize;

use super::lm::OnnxLm;
use crate::backend::{Backend as _, Batch, Outputs, Row, Wanted};
use crate::error::{BackendError, LoadError};
use crate::folder::{read_json, wrong};

/// Name of the probe's file.
pub(super) const FILE: &str = "sluice_probe.json";
const FORMAT: u32 = 1;
/// Tokens of a prompt's chunk; small, so that short prompts have several.
const CHUNK: usize = 24;

/// What the source model says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Probe {
    format: u32,
    #[serde(default)]
    source: String,
    #[serde(default = "default_atol")]
    atol: f32,
    prompts: Vec<Prompt>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Prompt {
    input_ids: Vec<u32>,
    #[serde(default)]
    greedy: Vec<u32>,
    #[serde(default)]
    logits: Expected,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Expected {
    positions: Vec<usize>,
    token_ids: Vec<u32>,
    values: Vec<Vec<f32>>,
}

fn default_atol() -> f32 {
    1e-3
}

impl Probe {
    /// Reads the probe of a folder, if it has one.
    ///
    /// # Errors
    /// [`LoadError::Folder`]: the file is malformed.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, LoadError> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let probe: Self = read_json(&path)?;
        probe.check().map_err(|reason| wrong(&path, &reason))?;
        Ok(Some(probe))
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!(
                "format is {}, this version reads {FORMAT}",
                self.format
            ));
        }
        if !(self.atol.is_finite() && self.atol > 0.0) {
            return Err(format!("atol is {}, it must be positive", self.atol));
        }
        if self.prompts.is_empty() {
            return Err("it holds no prompts".to_owned());
        }
        for (number, prompt) in self.prompts.iter().enumerate() {
            let Expected {
                positions,
                token_ids,
                values,
            } = &prompt.logits;
            let shaped = values.len() == positions.len()
                && values.iter().all(|row| row.len() == token_ids.len());
            if prompt.input_ids.is_empty() {
                return Err(format!("prompt {number} is empty"));
            }
            if !shaped {
                return Err(format!(
                    "logits.values of prompt {number} is not positions × token_ids"
                ));
            }
            if prompt.greedy.is_empty() && positions.is_empty() {
                return Err(format!("prompt {number} expects nothing"));
            }
        }
        Ok(())
    }
}

impl Prompt {
    /// Prompt and continuation.
    fn tokens(&self) -> Vec<u32> {
        [self.input_ids.as_slice(), &self.greedy].concat()
    }

    /// The token expected after position `position`.
    fn next(&self, position: usize) -> Option<u32> {
        let index = (position + 1).checked_sub(self.input_ids.len())?;
        self.greedy.get(index).copied()
    }

    fn is_checked(&self, position: usize) -> bool {
        self.next(position).is_some() || self.logits.positions.contains(&position)
    }

    /// Compares the logits after `position` with what is expected there.
    fn compare(&self, position: usize, logits: &[f32], atol: f32) -> Result<(), String> {
        let Expected {
            positions,
            token_ids,
            values,
        } = &self.logits;
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NAN);
        for (_, row) in positions
            .iter()
            .zip(values)
            .filter(|(listed, _)| **listed == position)
        {
            for (id, expected) in token_ids.iter().zip(row) {
                // NaN is not within any tolerance.
                let close = (at(*id) - expected).abs() <= atol;
                if !close {
                    return Err(format!(
                        "logit of token {id} is {}, expected {expected} (tolerance {atol})",
                        at(*id)
                    ));
                }
            }
        }
        let Some(expected) = self.next(position) else {
            return Ok(());
        };
        let best = (0..)
            .zip(logits)
            .fold((0, f32::NEG_INFINITY), |best, (id, logit)| {
                if *logit > best.1 { (id, *logit) } else { best }
            });
        // Within the tolerance two tokens are equally good.
        if at(expected) >= best.1 - atol {
            return Ok(());
        }
        Err(format!(
            "the greedy token is {} (logit {}), expected {expected} (logit {})",
            best.0,
            best.1,
            at(expected)
        ))
    }
}

/// Runs the probe of the folder; without one, the model against itself.
///
/// # Errors
/// [`LoadError::Parity`] naming prompt and position; [`LoadError::Unsupported`]
/// when the graph cannot be run at all.
pub(super) fn run(lm: &mut OnnxLm, probe: Option<&Probe>, name: &str) -> Result<(), LoadError> {
    let checked = match probe {
        Some(probe) => compare_all(lm, &probe.prompts, probe.atol, name)?,
        None => 0,
    };
    if let Some(probe) = probe
        && checked > 0
    {
        tracing::info!(
            model = name,
            source = probe.source,
            positions = checked,
            "parity probe passed"
        );
    } else {
        tracing::warn!(
            model = name,
            "no {FILE} to compare with: a faulty export would go unnoticed; the model is only \
             compared with itself"
        );
        let (prompts, atol) = own_answers(lm).map_err(|error| unusable(name, &error))?;
        compare_all(lm, &prompts, atol, name)?;
    }
    lm.clear();
    Ok(())
}

fn unusable(name: &str, error: &BackendError) -> LoadError {
    LoadError::Unsupported {
        model: name.to_owned(),
        reason: format!("the graph cannot be run over slots: {error}"),
    }
}

/// A prompt on its way through a slot.
struct Running<'p> {
    number: usize,
    prompt: &'p Prompt,
    /// Prompt and continuation, as far as a slot holds it.
    tokens: Vec<u32>,
    done: usize,
}

impl Running<'_> {
    fn new(number: usize, prompt: &Prompt, capacity: usize) -> Running<'_> {
        let mut tokens = prompt.tokens();
        tokens.truncate(capacity);
        Running {
            number,
            prompt,
            tokens,
            done: 0,
        }
    }

    /// The next chunk of the prompt, or the next token of the continuation.
    fn chunk(&self) -> std::ops::Range<usize> {
        let prompt = self.prompt.input_ids.len().min(self.tokens.len());
        let end = match prompt.checked_sub(self.done) {
            Some(left) if left > 0 => self.done + left.min(CHUNK),
            _ => self.done + 1,
        };
        self.done..end.min(self.tokens.len())
    }

    fn row(&self, slot: u32) -> Row<'_> {
        let chunk = self.chunk();
        let wanted = match chunk
            .clone()
            .any(|position| self.prompt.is_checked(position))
        {
            true => Wanted::All,
            false => Wanted::Nothing,
        };
        let past = u32::try_from(self.done).unwrap_or(u32::MAX);
        Row {
            slot,
            past,
            tokens: &self.tokens[chunk],
            wanted,
        }
    }
}

/// Feeds all prompts through the slots and compares; returns how many positions
/// were checked (prompts longer than a slot are cut).
fn compare_all(
    lm: &mut OnnxLm,
    prompts: &[Prompt],
    atol: f32,
    name: &str,
) -> Result<usize, LoadError> {
    let (slots, capacity) = (
        lm.capabilities().slots as usize,
        lm.capabilities().capacity as usize,
    );
    let mut checked = 0;
    let mut outputs = Outputs::default();
    let numbered: Vec<_> = prompts.iter().enumerate().collect();
    for wave in numbered.chunks(slots) {
        let mut running: Vec<_> = wave
            .iter()
            .map(|(number, prompt)| Running::new(*number, prompt, capacity))
            .collect();
        while running
            .iter()
            .any(|running| running.done < running.tokens.len())
        {
            let active: Vec<usize> = (0..running.len())
                .filter(|slot| running[*slot].done < running[*slot].tokens.len())
                .collect();
            let row = |slot: &usize| running[*slot].row(u32::try_from(*slot).unwrap_or(u32::MAX));
            let batch = Batch {
                rows: active.iter().map(row).collect(),
            };
            lm.execute_to_host(&batch, &mut outputs)
                .map_err(|error| unusable(name, &error))?;
            for (slot, range) in active.into_iter().zip(&outputs.ranges) {
                let running = &mut running[slot];
                let chunk = running.chunk();
                for (position, logits) in chunk.clone().zip(range.clone()) {
                    checked += usize::from(running.prompt.is_checked(position));
                    let logits = outputs.row(logits);
                    running
                        .prompt
                        .compare(position, logits, atol)
                        .map_err(|difference| LoadError::Parity {
                            model: name.to_owned(),
                            reason: format!(
                                "prompt {} ({} tokens) at position {position}: {difference}",
                                running.number,
                                running.prompt.input_ids.len()
                            ),
                        })?;
                }
                running.done = chunk.end;
            }
        }
    }
    Ok(checked)
}

/// What the model says alone in a slot, whole prompts at once: prompts for
/// [`compare_all`], and a tolerance.
fn own_answers(lm: &mut OnnxLm) -> Result<(Vec<Prompt>, f32), BackendError> {
    const LENGTHS: [usize; 3] = [70, 5, 33];
    const NEW: usize = 4;
    /// Share of the logits' spread that quantised activations may move a logit by
    /// between batch shapes; a mixed-up slot moves them by about the spread.
    const TOLERANCE: f32 = 0.1;
    let capacity = lm.capabilities().capacity as usize;
    let vocab = lm.capabilities().vocab;
    let mut outputs = Outputs::default();
    let mut prompts = Vec::new();
    let mut spread: f32 = 0.0;
    for (seed, length) in (1_u32..).zip(LENGTHS) {
        let length = length.min(capacity.saturating_sub(NEW)).max(1);
        let noise = |i: u32| (i + 1).wrapping_mul(seed.wrapping_mul(2_654_435_761)) >> 7;
        let input_ids: Vec<u32> = (0..).take(length).map(|i| noise(i) % vocab).collect();
        let mut prompt = Prompt {
            input_ids,
            greedy: Vec::new(),
            logits: Expected::default(),
        };
        prompt.logits.token_ids = (0..8).map(|i| noise(1000 + i) % vocab).collect();
        let mut tokens = prompt.input_ids.clone();
        let mut past = 0;
        while tokens.len() <= capacity && prompt.greedy.len() < NEW {
            let row = Row {
                slot: 0,
                past: u32::try_from(past).unwrap_or(u32::MAX),
                tokens: &tokens[past..],
                wanted: Wanted::Last,
            };
            lm.execute_to_host(&Batch { rows: vec![row] }, &mut outputs)?;
            past = tokens.len();
            let logits = outputs.row(0);
            let (least, most) = logits
                .iter()
                .fold((f32::MAX, f32::MIN), |(least, most), logit| {
                    (least.min(*logit), most.max(*logit))
                });
            spread = spread.max(most - least);
            let ids = &prompt.logits.token_ids;
            prompt.logits.positions.push(past - 1);
            prompt
                .logits
                .values
                .push(ids.iter().map(|id| logits[*id as usize]).collect());
            let best = (0..)
                .zip(logits)
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map_or(0, |(id, _)| id);
            prompt.greedy.push(best);
            tokens.push(best);
        }
        prompts.push(prompt);
    }
    Ok((prompts, (spread * TOLERANCE).max(1e-3)))
}

#[cfg(test)]
mod tests;
