//! Provisional.

use sluice_gateway::release::ShadowPair;

/// Whether two answers agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    pub agrees: bool,
}

/// Compares the two answers of a pair.
#[must_use]
pub fn compare(pair: &ShadowPair) -> Option<Agreement> {
    if pair.live.failed && pair.candidate.failed {
        return None;
    }
    let agrees = !pair.candidate.failed && pair.live.text.trim() == pair.candidate.text.trim();
    Some(Agreement { agrees })
}
