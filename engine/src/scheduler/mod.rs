//! What runs next: continuous batching as a pure state machine.
//!
//! Every step is planned anew ([`Scheduler::schedule`]): sequences with one token
//! to compute decode, all of them; what is left of the step's token budget goes to
//! prompts, in chunks small enough that nobody's next token is late ([`pacer`]).
//! Sequences join and leave between any two steps. No clock, thread, channel or
//! device here: values in, values out, and the same inputs give the same plans.
//!
//! Life of a sequence: waiting ([`queue`]) → perhaps held back until a running one
//! has computed the prefix they share → running, in a slot → finished. The facts
//! that the step has produced come back through [`Scheduler::update`].

mod admission;
mod pacer;
mod plan;
mod queue;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::backend::Wanted;
use crate::cache::SlotCache;
use crate::request::FinishReason;
use pacer::{MIN_CHUNK, Pacer};
pub use plan::{PlannedRow, StepPlan};
pub use queue::AGED_SHARE;
use queue::WaitingQueue;
pub use sequence::{Drawn, Sampled, Sequence, SequenceEvent, SequenceId};
use sequence::{Running, Waiting};

/// What a row costs beside its tokens where each prompt needs a run of its own
/// (backends that are not [`crate::backend::Capabilities::ragged`]), in tokens.
const SEPARATE_RUN_TOKENS: usize = 8;

/// Bounds of a step. See `GeneratorOptions`, where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// New tokens a step at most (raised to the number of slots).
    pub step_budget: usize,
    /// New tokens of one sequence a step at most.
    pub prefill_chunk: usize,
    /// Tokens a step at most in chunks whose logits are all wanted (beside the one
    /// row of each sequence that draws).
    pub logits_budget: usize,
    /// Time that a step should take while sequences decode.
    pub inter_token_target: Option<Duration>,
    /// When a lower priority gets its share nevertheless.
    pub ageing: Duration,
    /// Whether running sequences of low priority make way.
    pub preemption: bool,
    /// Whether one run can mix rows of different numbers of new tokens.
    pub ragged: bool,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            step_budget: 512,
            prefill_chunk: 512,
            logits_budget: 512,
            inter_token_target: None,
            ageing: Duration::from_secs(5),
            preemption: true,
            ragged: true,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Scheduler {
    options: SchedulerOptions,
    pacer: Pacer,
    waiting: WaitingQueue,
    /// Taken from the queue, held back until a prefix they share is computed.
    /// Each has a free slot reserved.
    held: Vec<Held>,
    running: Vec<Running>,
    deadlines: BTreeSet<(Instant, SequenceId)>,
    admissions: u64,
    /// Moving average of generated tokens, to charge tenants in advance.
    usual_completion: f64,
}

/// See [`Scheduler::held`].
#[derive(Debug)]
struct Held {
    waiting: Waiting,
    /// The running sequence that is computing the prefix.
    source: SequenceId,
    /// Tokens of it to wait for.
    prefix: usize,
}

impl Scheduler {
    /// An idle scheduler.
    #[must_use]
    pub fn new(options: SchedulerOptions) -> Self {
        Self {
            pacer: Pacer::new(options.inter_token_target),
            waiting: WaitingQueue::new(options.ageing),
            options,
            held: Vec::new(),
            running: Vec::new(),
            deadlines: BTreeSet::new(),
            admissions: 0,
            usual_completion: 64.0,
        }
    }

    /// Queues a sequence. Its prompt must not be empty, and it must fit into a slot.
    pub fn add(&mut self, sequence: Sequence, now: Instant) {
        debug_assert!(!sequence.prompt.is_empty());
        if let Some(deadline) = sequence.deadline {
            self.deadlines.insert((deadline, sequence.id));
        }
        self.waiting.push(Waiting::new(sequence, now));
    }

    /// Neither running nor waiting sequences.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.held.is_empty() && self.waiting.is_empty()
    }

    /// Sequences that hold a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences without a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Every sequence that has not ended, in no order.
    #[must_use]
    pub fn sequences(&self) -> Vec<SequenceId> {
        let running = self.running.iter().map(|running| running.sequence.id);
        let held = self.held.iter().map(|held| held.waiting.sequence.id);
        running.chain(held).chain(self.waiting.ids()).collect()
    }

    /// Plans the next step at `now`. With sequences and a free slot, or sequences
    /// running, the plan has rows or events.
    pub fn schedule(&mut self, cache: &mut SlotCache, now: Instant) -> StepPlan {
        let mut plan = StepPlan::default();
        self.expire(cache, now, &mut plan);
        self.preempt(cache, now, &mut plan);
        self.compact(cache, &mut plan);
        self.plan_decodes(&mut plan);
        let decodes = plan.rows.len();
        let budget = self.options.step_budget.max(cache.slots() as usize);
        let tokens = self.pacer.allowance(decodes, budget - decodes);
        let mut left = Allowance {
            tokens,
            initial: tokens,
            logits: self.options.logits_budget.max(1),
            row_cost: if self.options.ragged {
                0
            } else {
                SEPARATE_RUN_TOKENS
            },
        };
        self.plan_prefills(cache, now, &mut left, &mut plan);
        plan
    }

    /// The tokens of a planned row, for the device.
    #[must_use]
    pub fn tokens_of(&self, row: &PlannedRow) -> &[u32] {
        match self.running.get(row.place) {
            Some(running) if running.sequence.id == row.sequence => {
                &running.tokens[row.past..row.past + row.tokens]
            }
            _ => &[],
        }
    }

    /// Takes in that `plan` was run. `sampled` holds one entry for each row that
    /// draws, in the order of the rows. Appends to `events`.
    pub fn update(
        &mut self,
        plan: &StepPlan,
        sampled: &[Sampled],
        cache: &mut SlotCache,
        events: &mut Vec<SequenceEvent>,
    ) {
        let mut sampled = sampled.iter();
        let mut over = Vec::new();
        for row in &plan.rows {
            let Some(running) = self.running.get_mut(row.place) else {
                continue;
            };
            debug_assert_eq!(running.sequence.id, row.sequence);
            let new = row.past..row.past + row.tokens;
            cache.grow(&running.lease, &running.tokens[new]);
            running.computed += row.tokens;
            let sequence = row.sequence;
            if !row.draws {
                if running.sequence.max_tokens == 0 && running.remaining() == 0 {
                    over.push((row.place, Some(FinishReason::Length)));
                }
                continue;
            }
            let drawn = sampled.next().map_or(Drawn::Nothing, |sampled| {
                debug_assert_eq!(sampled.sequence, sequence);
                sampled.drawn
            });
            let (token, last) = match drawn {
                Drawn::Token(token) => (token, false),
                Drawn::Last(token) => (token, true),
                Drawn::Nothing => {
                    over.push((row.place, None));
                    continue;
                }
            };
            let end = running.push(token, last);
            if end != Some(FinishReason::Stop) || last {
                events.push(SequenceEvent::Token { sequence, token });
            }
            if end.is_some() {
                over.push((row.place, end));
            }
        }
        // From the back, so that removing one does not move those still to go.
        over.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
        for (place, reason) in over {
            let running = self.running.remove(place);
            events.push(match reason {
                Some(reason) => self.finish(running, reason, cache),
                None => {
                    let sequence = running.sequence.id;
                    self.finish(running, FinishReason::Stop, cache);
                    SequenceEvent::Lost { sequence }
                }
            });
        }
    }

    /// Takes in how long the step took on the device.
    pub fn observe(&mut self, plan: &StepPlan, time: Duration) {
        let prefills = || plan.rows.iter().filter(|row| row.prefill);
        let tokens: usize = prefills().map(|row| row.tokens).sum();
        self.pacer
            .observe(plan.rows.len() - prefills().count(), tokens, time);
    }

    /// Ends a sequence wherever it is; `None` if it is over already.
    pub fn abort(
        &mut self,
        id: SequenceId,
        reason: FinishReason,
        cache: &mut SlotCache,
    ) -> Option<SequenceEvent> {
        if let Some(place) = self.running.iter().position(|r| r.sequence.id == id) {
            let running = self.running.remove(place);
            return Some(self.finish(running, reason, cache));
        }
        let waiting = match self.held.iter().position(|h| h.waiting.sequence.id == id) {
            Some(place) => self.held.remove(place).waiting,
            None => self.waiting.remove(id)?,
        };
        self.forget_deadline(&waiting.sequence);
        Some(waiting.finished(reason))
    }

    /// The step could not be run: its sequences are lost, and what their slots
    /// hold is unknown. Returns them.
    pub fn fail(&mut self, plan: &StepPlan, cache: &mut SlotCache) -> Vec<SequenceId> {
        let hit = |running: &Running| {
            let slot = running.lease.slot();
            plan.rows.iter().any(|row| row.slot == slot)
                || plan.copies.iter().any(|copy| copy.to == slot)
        };
        let mut lost = Vec::new();
        for place in (0..self.running.len()).rev() {
            if hit(&self.running[place]) {
                let running = self.running.remove(place);
                lost.push(running.sequence.id);
                self.forget_deadline(&running.sequence);
                cache.discard(running.lease);
            }
        }
        for copy in &plan.copies {
            cache.forget(copy.to);
        }
        lost
    }

    fn finish(
        &mut self,
        running: Running,
        reason: FinishReason,
        cache: &mut SlotCache,
    ) -> SequenceEvent {
        let usage = running.usage();
        self.usual_completion += 0.05 * (usage.completion as f64 - self.usual_completion);
        let spent = usage.prompt - usage.cached + usage.completion;
        self.waiting.settle(
            running.sequence.priority,
            &running.sequence.tenant,
            running.charged as i64 - spent as i64,
        );
        self.forget_deadline(&running.sequence);
        cache.release(running.lease);
        SequenceEvent::Finished {
            sequence: running.sequence.id,
            reason,
            usage,
        }
    }

    fn forget_deadline(&mut self, sequence: &Sequence) {
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, sequence.id));
        }
    }

    /// Ends all whose deadline has passed.
    fn expire(&mut self, cache: &mut SlotCache, now: Instant, plan: &mut StepPlan) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            plan.events
                .extend(self.abort(id, FinishReason::Deadline, cache));
        }
    }

    /// Moves the highest lease into a hole below it when that pays.
    fn compact(&mut self, cache: &mut SlotCache, plan: &mut StepPlan) {
        let Some(highest) = self.running.iter_mut().max_by_key(|r| r.lease.slot()) else {
            return;
        };
        // Nobody knows when a sequence ends; that it goes on for about as long as it
        // has is the estimate that needs no assumption.
        let generated = highest.generated();
        let steps = (highest.sequence.max_tokens - generated).min(generated + MIN_CHUNK);
        if let Some(hole) = cache.compaction(&highest.lease, steps) {
            cache.relocate(&mut highest.lease, hole, &mut plan.copies);
        }
    }

    fn plan_decodes(&self, plan: &mut StepPlan) {
        for (place, running) in self.running.iter().enumerate() {
            if running.remaining() == 1 {
                plan.rows.push(row(place, running, 1, false));
            }
        }
    }

    /// Shares what the step has left among prompts: half for the oldest, so that
    /// everyone gets on; then the others by priority, the shortest first, so that
    /// short prompts need not wait behind long ones; then newcomers; and the rest for the oldest.
    fn plan_prefills(
        &mut self,
        cache: &mut SlotCache,
        now: Instant,
        left: &mut Allowance,
        plan: &mut StepPlan,
    ) {
        let mut places: Vec<usize> = (0..self.running.len())
            .filter(|&place| self.running[place].remaining() > 1)
            .collect();
        places.sort_by_key(|&place| self.running[place].admitted);
        let alone = places.len() == 1 && self.waiting() == 0;
        let mut first_row = None;
        if let Some((&mut first, others)) = places.split_first_mut() {
            let share = if alone {
                left.tokens
            } else {
                left.tokens.div_ceil(2).max(MIN_CHUNK)
            };
            let at = plan.rows.len();
            first_row = self.plan_chunk(first, share, left, plan).then_some(at);
            others.sort_by_key(|&place| {
                let running = &self.running[place];
                let priority = std::cmp::Reverse(running.sequence.priority);
                (priority, running.remaining())
            });
            for &place in others.iter() {
                self.plan_chunk(place, usize::MAX, left, plan);
            }
        }
        self.admit(cache, now, left, plan);
        if let Some(row) = first_row.and_then(|row| plan.rows.get_mut(row)) {
            let running = &self.running[row.place];
            let more = (running.remaining() - row.tokens)
                .min(self.options.prefill_chunk.saturating_sub(row.tokens))
                .min(left.for_row(running));
            left.take(running, more);
            *row = self::row(row.place, running, row.tokens + more, true);
        }
    }

    /// Plans a chunk of at most `share` tokens, unless what is left makes only a
    /// sliver.
    fn plan_chunk(
        &self,
        place: usize,
        share: usize,
        left: &mut Allowance,
        plan: &mut StepPlan,
    ) -> bool {
        let running = &self.running[place];
        let wished = running.remaining().min(self.options.prefill_chunk.max(1));
        let chunk = wished.min(share).min(left.for_row(running));
        if chunk == 0 || (chunk < MIN_CHUNK.min(wished) && left.tokens < left.initial) {
            return false;
        }
        left.take(running, chunk);
        left.tokens = left.tokens.saturating_sub(left.row_cost);
        let prefill = running.remaining() > 1;
        plan.rows.push(row(place, running, chunk, prefill));
        true
    }
}

/// What a step has left for prompts.
#[derive(Debug)]
struct Allowance {
    /// Tokens by the pacer's count.
    tokens: usize,
    /// The same before anything was given out.
    initial: usize,
    /// Rows of logits.
    logits: usize,
    /// Tokens that a row costs beside its own.
    row_cost: usize,
}

impl Allowance {
    /// Enough for another row that is not a sliver.
    fn worthwhile(&self) -> bool {
        self.tokens >= MIN_CHUNK || (self.tokens > 0 && self.tokens == self.initial)
    }

    fn for_row(&self, running: &Running) -> usize {
        if running.sequence.prompt_logits {
            self.tokens.min(self.logits)
        } else {
            self.tokens
        }
    }

    fn take(&mut self, running: &Running, tokens: usize) {
        self.tokens -= tokens;
        if running.sequence.prompt_logits {
            self.logits -= tokens;
        }
    }
}

fn row(place: usize, running: &Running, tokens: usize, prefill: bool) -> PlannedRow {
    let sequence = &running.sequence;
    let completes = tokens == running.remaining();
    let draws = completes && sequence.max_tokens > 0;
    let wanted = if sequence.prompt_logits && running.computed < sequence.prompt.len() {
        Wanted::All
    } else if draws {
        Wanted::Last
    } else {
        Wanted::Nothing
    };
    PlannedRow {
        sequence: sequence.id,
        slot: running.lease.slot(),
        past: running.computed,
        tokens,
        wanted,
        draws,
        prefill,
        place,
    }
}
