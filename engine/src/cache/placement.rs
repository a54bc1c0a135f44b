//! Where a new lease goes, and what becomes of what lay there. Pure decisions
//! over the slots' contents; [`super::SlotCache`] carries them out.

use super::{BLOCK, PrefixMatch, Slot};

/// What a dummy row costs in one decode step, in tokens of K/V copied for the
/// same time. Measured on a 95 M Llama on two cores: a row is about 0.7 ms, a
/// token's K/V (72 KiB) about 20 µs; the ratio hardly depends on the model, since
/// both grow with its layers and width.
pub(super) const ROW_STEP_TOKENS: usize = 32;

/// A decision for a new lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// The slot to lease.
    pub(super) slot: u32,
    /// What lies in `slot` moves here first.
    pub(super) displaced_to: Option<u32>,
    /// The matched prefix, in `slot` itself or to be copied to it.
    pub(super) content: Option<PrefixMatch>,
    /// A slot whose content lives on in `slot`: it becomes empty.
    pub(super) consumed: Option<u32>,
}

pub(super) fn place(slots: &[Slot], range: usize, found: Option<PrefixMatch>) -> Option<Placement> {
    let lowest = slots.iter().position(|slot| !slot.leased)? as u32;
    // Leasing inside the range, or the lowest free slot, adds no dummy row.
    let inside = |slot: u32| (slot as usize) < range || slot == lowest;
    let worthless = |slot: u32| slots[slot as usize].tokens.len() < BLOCK;
    let victim = victim(slots, found.map(|found| found.slot));
    let fits = |slot| Placement {
        slot,
        displaced_to: None,
        content: found,
        consumed: None,
    };

    if let Some(found) = found.filter(|found| !slots[found.slot as usize].leased) {
        let source = found.slot;
        let tail = slots[source as usize].tokens.len() - found.tokens;
        let Some(victim) = victim else {
            return Some(fits(source));
        };
        if tail < BLOCK {
            // The same conversation goes on: nothing to keep of the old one.
            if !inside(source) && (lowest == victim || worthless(lowest)) {
                return Some(Placement {
                    consumed: Some(source),
                    ..fits(lowest)
                });
            }
            return Some(fits(source));
        }
        if source == lowest && !inside(victim) {
            return Some(Placement {
                displaced_to: Some(victim),
                ..fits(source)
            });
        }
    }
    let victim = victim.unwrap_or(lowest);
    if inside(victim) {
        return Some(fits(victim));
    }
    Some(Placement {
        displaced_to: (!worthless(lowest)).then_some(victim),
        ..fits(lowest)
    })
}

/// The free slot whose content is given up: an empty one, else the least recently
/// used; never the source of the match.
fn victim(slots: &[Slot], source: Option<u32>) -> Option<u32> {
    slots
        .iter()
        .enumerate()
        .filter(|(number, slot)| !slot.leased && Some(*number as u32) != source)
        .min_by_key(|(number, slot)| given_up_first(*number, slot))
        .map(|(number, _)| number as u32)
}

/// Empty slots from the lowest, then full ones from the least recently used.
fn given_up_first(number: usize, slot: &Slot) -> (bool, u64, usize) {
    let full = !slot.tokens.is_empty();
    (full, if full { slot.used_at } else { 0 }, number)
}

/// See [`super::SlotCache::compaction`].
pub(super) fn compact(slots: &[Slot], highest: u32, steps: usize) -> Option<u32> {
    let below = &slots[..highest as usize];
    let (hole, given_up) = below
        .iter()
        .enumerate()
        .filter(|(_, slot)| !slot.leased)
        .min_by_key(|(number, slot)| given_up_first(*number, slot))?;
    let next = below
        .iter()
        .rposition(|slot| slot.leased)
        .map_or(hole, |next| next.max(hole));
    let saved = (highest as usize - next) * steps * ROW_STEP_TOKENS;
    let cost = slots[highest as usize].tokens.len() + given_up.tokens.len();
    (saved > cost).then_some(hole as u32)
}
