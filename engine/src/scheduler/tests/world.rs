//! A device loop in one thread with a clock of its own, that checks every plan.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::backend::fake::{FakeBackend, FakeControl, FakeOptions, FakeTokens, next_token};
use crate::backend::{Backend, Batch, Outputs, Row, Wanted};
use crate::cache::SlotCache;
use crate::request::{CacheSalt, FinishReason, Priority};
use crate::scheduler::{
    Drawn, Sampled, Scheduler, SchedulerOptions, Sequence, SequenceEvent, SequenceId, StepPlan,
};

/// Ends a sequence in the fake's output.
pub(super) const EOS: u32 = 0;

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Finished(FinishReason),
    Failed,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) sequence: Sequence,
    pub(super) tokens: Vec<u32>,
    pub(super) started_at: Option<u64>,
    pub(super) token_steps: Vec<u64>,
    pub(super) cached: usize,
    pub(super) end: Option<End>,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) cache: SlotCache,
    pub(super) backend: FakeBackend,
    pub(super) control: FakeControl,
    pub(super) now: Instant,
    pub(super) records: BTreeMap<u64, Record>,
    pub(super) steps: u64,
    pub(super) preemptions: usize,
    fake: FakeOptions,
    budget: usize,
    outputs: Outputs,
}

pub(super) fn sequence(prompt: &[u32], max_tokens: usize) -> Sequence {
    Sequence {
        id: SequenceId(0),
        prompt: prompt.into(),
        max_tokens,
        stop: [EOS].into(),
        min_tokens: 0,
        prompt_logits: false,
        priority: Priority::Normal,
        tenant: "a".into(),
        salt: CacheSalt::default(),
        deadline: None,
    }
}

impl World {
    pub(super) fn new(slots: u32, capacity: u32, options: SchedulerOptions) -> Self {
        Self::with_reuse(slots, capacity, options, true)
    }

    pub(super) fn with_reuse(
        slots: u32,
        capacity: u32,
        options: SchedulerOptions,
        reuse: bool,
    ) -> Self {
        let fake = FakeOptions {
            slots,
            capacity,
            tokens: FakeTokens::HashWithEnd {
                low: 0,
                high: 256,
                eos: EOS,
                one_in: 40,
            },
            ..FakeOptions::default()
        };
        let control = FakeControl::new();
        Self {
            budget: options.step_budget.max(slots as usize),
            scheduler: Scheduler::new(options),
            cache: SlotCache::new(slots, capacity as usize, reuse),
            backend: FakeBackend::new(fake.clone(), control.clone()),
            control,
            now: Instant::now(),
            records: BTreeMap::new(),
            steps: 0,
            preemptions: 0,
            fake,
            outputs: Outputs::default(),
        }
    }

    pub(super) fn add(&mut self, mut sequence: Sequence) -> u64 {
        let id = self.records.len() as u64;
        sequence.id = SequenceId(id);
        self.scheduler.add(sequence.clone(), self.now);
        let record = Record {
            sequence,
            tokens: Vec::new(),
            started_at: None,
            token_steps: Vec::new(),
            cached: 0,
            end: None,
        };
        self.records.insert(id, record);
        id
    }

    pub(super) fn abort(&mut self, id: u64) {
        let event = self
            .scheduler
            .abort(SequenceId(id), FinishReason::Cancelled, &mut self.cache);
        assert_eq!(event.is_none(), self.records[&id].end.is_some());
        self.take(event);
    }

    /// One step of `time`; false when there was nothing to do.
    pub(super) fn step(&mut self, time: Duration) -> bool {
        self.now += time;
        let idle = self.scheduler.is_idle();
        let plan = self.scheduler.schedule(&mut self.cache, self.now);
        assert!(
            idle || !plan.rows.is_empty() || !plan.events.is_empty(),
            "sequences wait and nothing happens"
        );
        self.check(&plan);
        self.take(plan.events.clone());
        if plan.rows.is_empty() {
            return !idle;
        }
        self.steps += 1;
        if let Err(error) = self.run(&plan) {
            assert!(error.to_string().contains("injected"), "{error}");
            for id in self.scheduler.fail(&plan, &mut self.cache) {
                let end = &mut self.records.get_mut(&id.0).unwrap().end;
                assert_eq!(end.replace(End::Failed), None);
            }
            return true;
        }
        self.scheduler.observe(&plan, time);
        let sampled = self.sample(&plan);
        let mut events = Vec::new();
        self.scheduler
            .update(&plan, &sampled, &mut self.cache, &mut events);
        self.take(events);
        true
    }

    pub(super) fn drain(&mut self) {
        for _ in 0..100_000 {
            if !self.step(Duration::from_millis(1)) {
                self.check_ended();
                return;
            }
        }
        panic!("still not idle: {:?}", self.scheduler.sequences());
    }

    fn run(&mut self, plan: &StepPlan) -> Result<(), crate::BackendError> {
        for copy in &plan.copies {
            self.backend.copy_prefix(copy.from, copy.to, copy.tokens)?;
        }
        let rows = plan.rows.iter().map(|row| Row {
            slot: row.slot,
            past: row.past as u32,
            tokens: self.scheduler.tokens_of(row),
            wanted: row.wanted,
        });
        let batch = Batch {
            rows: rows.collect(),
        };
        self.backend.execute(&batch, &mut self.outputs)
    }

    fn sample(&self, plan: &StepPlan) -> Vec<Sampled> {
        let rows = plan.rows.iter().enumerate().filter(|(_, row)| row.draws);
        rows.map(|(place, row)| {
            let logits = self.outputs.row(self.outputs.ranges[place].end - 1);
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            Sampled {
                sequence: row.sequence,
                drawn: Drawn::Token(best.unwrap() as u32),
            }
        })
        .collect()
    }

    fn check(&self, plan: &StepPlan) {
        let mut slots = HashSet::new();
        let mut sequences = HashSet::new();
        let mut logits = 0;
        for row in &plan.rows {
            assert!(slots.insert(row.slot), "slot {} twice", row.slot);
            assert!(sequences.insert(row.sequence), "{:?} twice", row.sequence);
            assert!(self.records[&row.sequence.0].end.is_none());
            assert!(row.tokens > 0 && row.past + row.tokens <= self.cache.capacity());
            assert!(self.scheduler.tokens_of(row).len() == row.tokens);
            if row.wanted == Wanted::All && row.tokens > 1 {
                logits += row.tokens;
            }
        }
        assert!(plan.tokens() <= self.budget, "{} tokens", plan.tokens());
        assert!(logits <= self.scheduler.options.logits_budget);
        let leased: HashSet<u32> = self
            .scheduler
            .running
            .iter()
            .map(|r| r.lease.slot())
            .collect();
        assert_eq!(leased.len(), self.scheduler.running());
        assert_eq!(
            self.cache.free() + leased.len(),
            self.cache.slots() as usize,
            "every lease has one owner"
        );
        // Whoever can decode does, in every step.
        let decoding = self.scheduler.running.iter().filter(|r| r.remaining() == 1);
        for running in decoding {
            assert!(sequences.contains(&running.sequence.id));
        }
    }

    fn take(&mut self, events: impl IntoIterator<Item = SequenceEvent>) {
        for event in events {
            match event {
                SequenceEvent::Started { sequence, cached } => {
                    let record = self.records.get_mut(&sequence.0).unwrap();
                    assert_eq!(record.started_at.replace(self.steps), None);
                    record.cached = cached;
                    assert!(cached < record.sequence.prompt.len());
                    assert!(cached == 0 || !record.sequence.prompt_logits);
                }
                SequenceEvent::Resumed { .. } => {}
                SequenceEvent::Preempted { sequence } => {
                    let record = &self.records[&sequence.0];
                    assert_eq!(record.sequence.priority, Priority::Low);
                    self.preemptions += 1;
                }
                SequenceEvent::Token { sequence, token } => {
                    let record = self.records.get_mut(&sequence.0).unwrap();
                    assert_eq!(record.end, None, "a token after the end");
                    record.tokens.push(token);
                    record.token_steps.push(self.steps);
                }
                SequenceEvent::Finished {
                    sequence,
                    reason,
                    usage,
                } => {
                    let record = self.records.get_mut(&sequence.0).unwrap();
                    let end = record.end.replace(End::Finished(reason));
                    assert_eq!(end, None, "a sequence ends once");
                    assert_eq!(usage.prompt, record.sequence.prompt.len());
                    let stop = usize::from(reason == FinishReason::Stop);
                    assert_eq!(usage.completion, record.tokens.len() + stop);
                    assert_eq!(usage.cached, record.cached);
                }
                SequenceEvent::Lost { sequence } => {
                    let end = &mut self.records.get_mut(&sequence.0).unwrap().end;
                    assert_eq!(end.replace(End::Failed), None);
                }
            }
        }
    }

    /// All have ended, with the tokens that each would have had alone.
    fn check_ended(&self) {
        for (id, record) in &self.records {
            let end = record.end.unwrap_or_else(|| panic!("{id} never ended"));
            let (tokens, reason) = self.alone(&record.sequence);
            match end {
                End::Finished(reason_seen @ (FinishReason::Stop | FinishReason::Length)) => {
                    assert_eq!(record.tokens, tokens, "sequence {id}");
                    assert_eq!(reason_seen, reason, "sequence {id}");
                }
                _ => assert!(tokens.starts_with(&record.tokens), "sequence {id}"),
            }
        }
        assert_eq!(self.cache.free(), self.cache.slots() as usize);
        assert_eq!(self.cache.tokens_held().0, 0);
        assert!(self.scheduler.deadlines.is_empty());
    }

    pub(super) fn alone(&self, sequence: &Sequence) -> (Vec<u32>, FinishReason) {
        let mut history = sequence.prompt.to_vec();
        let mut tokens = Vec::new();
        while tokens.len() < sequence.max_tokens {
            let next = next_token(&self.fake.tokens, self.fake.vocab, &history);
            if tokens.len() >= sequence.min_tokens && sequence.stop.contains(&next) {
                return (tokens, FinishReason::Stop);
            }
            history.push(next);
            tokens.push(next);
        }
        (tokens, FinishReason::Length)
    }
}
