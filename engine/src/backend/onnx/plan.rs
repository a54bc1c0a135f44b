//! Which slots run together. Pure: a step's rows in, runs of the graph out.
//!
//! A run covers a *contiguous* range of slots, because past and present are bound
//! to one stretch of the arena. Slots inside the range that have nothing to do
//! ride along as idle lanes. Where the runtime takes each row's number of new
//! tokens, an idle lane has none; elsewhere it computes one token of junk, written
//! just beyond what its slot holds.

use crate::backend::Row;

/// One lane of a run, that is one slot of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The batch's row of this index.
    Row(usize),
    /// No row; the slot holds this many tokens.
    Idle { used: u32 },
}

/// One run of the graph over slots `first..first + lanes.len()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    /// New tokens per lane; shorter rows are padded on the right.
    pub(super) width: usize,
    pub(super) lanes: Vec<Lane>,
}

/// What is cheaper, as measured at load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Costs {
    /// Idle lanes that cost as much as a run of its own.
    pub(super) bridge: u32,
    /// Tokens that an idle lane's slot may hold: where the runtime cannot skip an
    /// idle lane, it attends over all of them.
    pub(super) idle_tokens: u32,
    /// How much faster prompts run together than one by one, per token; rows are
    /// joined while padding stays below this. 1 or less is never.
    pub(super) joined_gain: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            bridge: 8,
            idle_tokens: 256,
            joined_gain: 1.0,
        }
    }
}

/// Splits a step into runs: rows of one token (decoding) together over the ranges
/// that cover them, longer ones (prefill) one by one or, where that is faster, in
/// groups of neighbours.
///
/// `used[slot]` is what each slot holds; for a row's slot, what it holds before
/// the row. Decoding comes first: its idle lanes may write junk just beyond a
/// slot that a prefill of the same step then overwrites.
pub(super) fn plan(rows: &[Row<'_>], used: &[u32], capacity: u32, costs: Costs) -> Vec<Run> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| rows[*row].slot);
    let (decode, prefill): (Vec<_>, Vec<_>) = order
        .into_iter()
        .partition(|row| rows[*row].tokens.len() == 1);
    let mut runs = Vec::new();
    for row in decode {
        let slot = rows[row].slot;
        match runs.last_mut() {
            Some(run) if bridges(run, slot, used, capacity, costs) => {
                let end = run.first + lanes(run);
                let idle = |slot: u32| Lane::Idle {
                    used: used[slot as usize],
                };
                run.lanes.extend((end..slot).map(idle));
                run.lanes.push(Lane::Row(row));
            }
            _ => runs.push(Run {
                first: slot,
                width: 1,
                lanes: vec![Lane::Row(row)],
            }),
        }
    }
    let mut group: Vec<usize> = Vec::new();
    for row in prefill {
        if !group.is_empty() && !joins(&group, row, rows, capacity, costs) {
            runs.push(joined(&group, rows));
            group.clear();
        }
        group.push(row);
    }
    if !group.is_empty() {
        runs.push(joined(&group, rows));
    }
    runs
}

fn lanes(run: &Run) -> u32 {
    u32::try_from(run.lanes.len()).unwrap_or(u32::MAX)
}

/// Whether idle lanes up to `slot` are cheaper than a new run, and harmless: a
/// full slot has no room for junk.
fn bridges(run: &Run, slot: u32, used: &[u32], capacity: u32, costs: Costs) -> bool {
    let mut gap = run.first + lanes(run)..slot;
    gap.len() <= costs.bridge as usize
        && gap
            .all(|slot| used[slot as usize] < capacity && used[slot as usize] <= costs.idle_tokens)
}

fn width(group: &[usize], rows: &[Row<'_>]) -> usize {
    group
        .iter()
        .map(|row| rows[*row].tokens.len())
        .max()
        .unwrap_or(0)
}

fn joins(group: &[usize], row: usize, rows: &[Row<'_>], capacity: u32, costs: Costs) -> bool {
    let mut wider = group.to_vec();
    wider.push(row);
    let neighbour = group
        .last()
        .is_some_and(|last| rows[*last].slot + 1 == rows[row].slot);
    let width = width(&wider, rows);
    // The padding is written too, so it must have room in every lane.
    let room = wider
        .iter()
        .all(|row| rows[*row].past as usize + width <= capacity as usize);
    let tokens: usize = wider.iter().map(|row| rows[*row].tokens.len()).sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^52"
    )]
    let padding = (width * wider.len()) as f64 / tokens as f64;
    neighbour && room && padding < costs.joined_gain
}

fn joined(group: &[usize], rows: &[Row<'_>]) -> Run {
    Run {
        first: group.first().map_or(0, |row| rows[*row].slot),
        width: width(group, rows),
        lanes: group.iter().map(|row| Lane::Row(*row)).collect(),
    }
}

#[cfg(test)]
mod tests;
