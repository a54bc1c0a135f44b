//! What one request has cost at an upstream: by the upstream's own count where it gives one, and
//! else by an estimate from what passed.
//!
//! The estimate: a token is about four bytes of text. A prompt is measured by the texts and token
//! ids of the request; of an answer each event that carries output is a token at least.
//! `docs/answers.md` says when it is used.

use std::sync::Arc;

use sluice_engine::request::Usage;

use crate::context::Outcome;
use crate::validate::tally::{Reported, Tally};

/// Bytes of text that make a token, about.
const BYTES_A_TOKEN: usize = 4;

/// Entered once: by whoever knows what came, or when it is dropped. What is dropped before an
/// answer has begun (the client left, its deadline passed) has cost its prompt.
#[derive(Debug)]
pub(super) struct Bill {
    outcome: Arc<Outcome>,
    /// Tokens of the prompt, by estimate.
    prompt: usize,
    open: bool,
}

impl Bill {
    pub(super) fn new(outcome: &Arc<Outcome>, prompt: usize) -> Self {
        Self {
            outcome: Arc::clone(outcome),
            prompt,
            open: true,
        }
    }

    /// Nothing came of it, and nothing is to be paid.
    pub(super) fn waive(&mut self) {
        self.open = false;
    }

    /// Enters what came. Not all of an answer that is not `complete` has been counted by the
    /// upstream.
    pub(super) fn settle(&mut self, tally: &Tally, complete: bool) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        if let Some(reason) = tally.finish {
            self.outcome.set_finish(reason);
        }
        self.outcome.add_usage(used(self.prompt, tally, complete));
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        self.settle(&Tally::default(), false);
    }
}

/// What was used, where a prompt of about `prompt` tokens has led to this.
fn used(prompt: usize, tally: &Tally, complete: bool) -> Usage {
    let reported = tally.usage.unwrap_or_default();
    let said = tally.outputs.max(tally.bytes.div_ceil(BYTES_A_TOKEN));
    let completion = completion_of(&reported);
    let completion = match completion {
        Some(counted) if complete && counted > 0 => counted,
        counted => match reported.total {
            // A sum alone: what was said is a part of it.
            Some(total) if counted.is_none() => said.min(total),
            _ => counted.unwrap_or(0).max(said),
        },
    };
    let counted = match (reported.prompt, reported.total) {
        (Some(counted), _) => counted,
        (None, total) => total.unwrap_or(0).saturating_sub(completion),
    };
    // No prompt is empty: a server that says so has not counted.
    let prompt = if counted > 0 { counted } else { prompt };
    Usage {
        prompt,
        cached: reported.cached.unwrap_or(0).min(prompt),
        completion,
    }
}

fn completion_of(reported: &Reported) -> Option<usize> {
    let rest = || Some(reported.total?.saturating_sub(reported.prompt?));
    reported.completion.or_else(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(usage: Option<[Option<usize>; 3]>, outputs: usize, bytes: usize) -> Tally {
        Tally {
            usage: usage.map(|[prompt, completion, total]| Reported {
                prompt,
                completion,
                total,
                cached: Some(99),
            }),
            outputs,
            bytes,
            ..Tally::default()
        }
    }

    #[test]
    fn the_upstreams_count_is_taken_and_what_it_leaves_out_is_estimated() {
        let all = |prompt, completion| Some([Some(prompt), Some(completion), None]);
        for (usage, outputs, bytes, complete, expected) in [
            (all(20, 5), 7, 100, true, (20, 5)),
            // It broke off behind a count of its beginning.
            (all(20, 5), 7, 8, false, (20, 7)),
            (all(20, 9), 7, 8, false, (20, 9)),
            (None, 7, 8, true, (11, 7)),
            (None, 7, 101, true, (11, 26)),
            (None, 0, 0, false, (11, 0)),
            (all(0, 0), 3, 0, true, (11, 3)),
            (Some([None, None, Some(56)]), 0, 0, true, (56, 0)),
            (Some([None, None, Some(56)]), 6, 0, true, (50, 6)),
            (Some([Some(50), None, Some(56)]), 9, 0, true, (50, 6)),
            (Some([Some(50), None, None]), 9, 0, true, (50, 9)),
        ] {
            let used = used(11, &tally(usage, outputs, bytes), complete);
            assert_eq!((used.prompt, used.completion), expected, "{usage:?}");
            assert!(used.cached <= used.prompt);
        }
    }
}
