//! From waiting to running: who gets a free slot, what it finds there, and who
//! makes way.

use std::time::Instant;

use super::sequence::{Running, SequenceEvent, SequenceId, Waiting};
use super::{Allowance, Held, Scheduler, StepPlan};
use crate::cache::{BLOCK, PrefixKey, SlotCache, common_prefix};
use crate::request::{FinishReason, Priority};

impl Scheduler {
    /// Starts waiting sequences while there are free slots and tokens for them.
    pub(super) fn admit(
        &mut self,
        cache: &mut SlotCache,
        now: Instant,
        left: &mut Allowance,
        plan: &mut StepPlan,
    ) {
        // Those held back go first, as soon as their prefix is there, or their
        // source is gone.
        let mut place = 0;
        while place < self.held.len() && left.worthwhile() {
            let held = &self.held[place];
            let computing = |r: &Running| r.sequence.id == held.source && r.computed < held.prefix;
            if self.running.iter().any(computing) {
                place += 1;
            } else {
                let waiting = self.held.remove(place).waiting;
                self.start(waiting, cache, now, left, plan);
            }
        }
        while left.worthwhile() && cache.free() > self.held.len() {
            let usual = self.usual_completion as usize;
            let next = self
                .waiting
                .pop(now, |waiting| expected_tokens(waiting, usual));
            let Some(waiting) = next else {
                return;
            };
            self.start(waiting, cache, now, left, plan);
        }
    }

    /// Gives a waiting sequence a slot and its first chunk, or holds it back, or
    /// ends it if it is too late. There is a free slot.
    fn start(
        &mut self,
        mut waiting: Waiting,
        cache: &mut SlotCache,
        now: Instant,
        left: &mut Allowance,
        plan: &mut StepPlan,
    ) {
        let key = waiting.key.take();
        let key = key.unwrap_or_else(|| cache.key(waiting.sequence.salt, &waiting.tokens));
        // The last token is always computed: its logits are what is wanted. Where
        // all logits are wanted, everything is.
        let limit = match waiting.sequence.prompt_logits {
            true => 0,
            false => waiting.tokens.len() - 1,
        };
        let found = cache.match_prefix(&key, &waiting.tokens, limit);
        let cached = found.map_or(0, |found| found.tokens);
        if self.too_late(&waiting, cached, now) {
            self.forget_deadline(&waiting.sequence);
            plan.events.push(waiting.finished(FinishReason::Deadline));
            return;
        }
        if cache.reuses()
            && let Some((source, prefix)) = self.computed_soon(&key, &waiting.tokens, cached, limit)
        {
            waiting.key = Some(key);
            self.held.push(Held {
                waiting,
                source,
                prefix,
            });
            return;
        }
        let Some(lease) = cache.lease(key.salt(), found, &mut plan.copies) else {
            debug_assert!(false, "admission without a free slot");
            waiting.key = Some(key);
            self.waiting.push(waiting);
            return;
        };
        let sequence = waiting.sequence.id;
        plan.events.push(match waiting.resumed {
            None => SequenceEvent::Started { sequence, cached },
            Some(_) => SequenceEvent::Resumed { sequence },
        });
        self.admissions += 1;
        self.running.push(Running {
            key,
            lease,
            computed: cached,
            cached: waiting.resumed.unwrap_or(cached),
            admitted: self.admissions,
            preemptible: waiting.sequence.priority == Priority::Low
                && !waiting.aged
                && waiting.resumed.is_none()
                && !waiting.sequence.prompt_logits,
            charged: waiting.charged,
            tokens: waiting.tokens,
            sequence: waiting.sequence,
        });
        self.plan_chunk(self.running.len() - 1, usize::MAX, left, plan);
    }

    /// Even with the device to itself its first token would come after the deadline.
    fn too_late(&self, waiting: &Waiting, cached: usize, now: Instant) -> bool {
        let prefill = self.pacer.prefill_time(waiting.tokens.len() - cached);
        waiting
            .sequence
            .deadline
            .is_some_and(|deadline| now.checked_add(prefill).is_none_or(|end| end > deadline))
    }

    /// A running sequence that is about to compute at least a block more of these
    /// tokens than `cached`, and how many: waiting for it is cheaper than computing
    /// them twice. So `n` samples of one prompt cost one prefill.
    fn computed_soon(
        &self,
        key: &PrefixKey,
        tokens: &[u32],
        cached: usize,
        limit: usize,
    ) -> Option<(SequenceId, usize)> {
        self.running
            .iter()
            .filter(|running| running.remaining() > 1)
            .filter(|running| running.key.common_tokens(key) >= cached + BLOCK)
            .map(|running| {
                let prefix = common_prefix(tokens, &running.tokens).min(limit);
                (running.sequence.id, prefix, running.computed)
            })
            .filter(|&(_, prefix, computed)| prefix >= cached + BLOCK && computed < prefix)
            .max_by_key(|&(_, prefix, _)| prefix)
            .map(|(source, prefix, _)| (source, prefix))
    }

    /// Where a sequence of higher priority finds no slot, the youngest one of low
    /// priority goes back to the queue; one a step, and none twice, so that every
    /// sequence gets on. Its K/V stay behind, so that it loses little.
    pub(super) fn preempt(&mut self, cache: &mut SlotCache, now: Instant, plan: &mut StepPlan) {
        let wanting = self.waiting.len_above(Priority::Low);
        if !self.options.preemption || wanting == 0 || cache.free() > self.held.len() {
            return;
        }
        let youngest = (0..self.running.len())
            .filter(|&place| self.running[place].preemptible)
            .max_by_key(|&place| self.running[place].admitted);
        let Some(place) = youngest else {
            return;
        };
        let running = self.running.remove(place);
        plan.events.push(SequenceEvent::Preempted {
            sequence: running.sequence.id,
        });
        cache.release(running.lease);
        self.waiting.push(Waiting {
            sequence: running.sequence,
            tokens: running.tokens,
            key: None,
            since: now,
            resumed: Some(running.cached),
            aged: false,
            charged: running.charged,
        });
    }
}

/// What a waiting sequence will probably cost, in tokens. What goes on after a
/// preemption has been charged already.
fn expected_tokens(waiting: &Waiting, usual_completion: usize) -> usize {
    match waiting.resumed {
        Some(_) => 0,
        None => {
            let sequence = &waiting.sequence;
            sequence.prompt.len() + sequence.max_tokens.min(usual_completion)
        }
    }
}
