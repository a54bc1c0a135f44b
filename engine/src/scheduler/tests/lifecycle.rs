//! Every sequence ends exactly once, with the tokens it would have had alone,
//! whatever happens around it.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{End, World, sequence};
use crate::backend::fake::Failure;
use crate::request::{FinishReason, Priority};
use crate::scheduler::{SchedulerOptions, Sequence};

const CAPACITY: u32 = 96;
const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Debug, Clone)]
enum Op {
    Add(NewSequence),
    /// Cancels one of the last added.
    Cancel(u64),
    Steps(u8),
    /// The next step, or the next copy, fails.
    Fail {
        copy: bool,
    },
}

#[derive(Debug, Clone)]
struct NewSequence {
    /// Prompts of one family begin alike.
    family: u32,
    shared: usize,
    own: usize,
    salt: u32,
    max_tokens: usize,
    min_tokens: usize,
    scoring: bool,
    priority: Priority,
    tenant: u8,
    deadline: Option<u64>,
}

impl NewSequence {
    fn build(&self, world: &World) -> Sequence {
        let shared = (0..self.shared as u32).map(|i| 1 + (i * 7 + self.family * 50) % 255);
        let own = (0..self.own as u32).map(|i| 1 + (i * 13 + self.salt * 3) % 255);
        let prompt: Vec<u32> = shared.chain(own).chain([1 + self.salt % 255]).collect();
        let room = CAPACITY as usize - prompt.len();
        let max_tokens = self.max_tokens.min(room);
        Sequence {
            max_tokens,
            min_tokens: self.min_tokens.min(max_tokens),
            prompt_logits: self.scoring,
            priority: self.priority,
            tenant: format!("tenant {}", self.tenant).into(),
            deadline: self
                .deadline
                .map(|deadline| world.now + Duration::from_millis(deadline)),
            ..sequence(&prompt, max_tokens)
        }
    }
}

fn new_sequence() -> impl Strategy<Value = NewSequence> {
    let prompt = (0..3u32, 0..60usize, 0..35usize, 0..6u32);
    let limits = (0..40usize, 0..4usize, prop::bool::weighted(0.1));
    let priority = prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
    let class = (priority, 0..3u8, prop::option::weighted(0.2, 0..60u64));
    (prompt, limits, class).prop_map(
        |((family, shared, own, salt), (max_tokens, min_tokens, scoring), class)| {
            let (priority, tenant, deadline) = class;
            NewSequence {
                family,
                shared,
                own,
                salt,
                max_tokens,
                min_tokens,
                scoring,
                priority,
                tenant,
                deadline,
            }
        },
    )
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => new_sequence().prop_map(Op::Add),
        1 => (0..8u64).prop_map(Op::Cancel),
        5 => (1..12u8).prop_map(Op::Steps),
        1 => any::<bool>().prop_map(|copy| Op::Fail { copy }),
    ];
    prop::collection::vec(op, 1..80)
}

fn options() -> impl Strategy<Value = SchedulerOptions> {
    (
        1..80usize,
        1..64usize,
        1..40usize,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(step_budget, prefill_chunk, logits_budget, paced, preemption, ragged)| {
                SchedulerOptions {
                    step_budget,
                    prefill_chunk,
                    logits_budget,
                    inter_token_target: paced.then_some(MILLISECOND),
                    ageing: Duration::from_millis(20),
                    preemption,
                    ragged,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_ends_once_with_its_own_tokens(
        ops in ops(),
        options in options(),
        slots in 1..6u32,
        reuse in prop::bool::weighted(0.8),
    ) {
        let mut world = World::with_reuse(slots, CAPACITY, options, reuse);
        for op in ops {
            match op {
                Op::Add(new) => {
                    let sequence = new.build(&world);
                    world.add(sequence);
                }
                Op::Cancel(back) => {
                    if let Some(id) = (world.records.len() as u64).checked_sub(1 + back) {
                        world.abort(id);
                    }
                }
                Op::Steps(steps) => {
                    for _ in 0..steps {
                        world.step(MILLISECOND);
                    }
                }
                Op::Fail { copy: true } => world.control.fail_copies(1),
                Op::Fail { copy: false } => world.control.fail_next(Failure::Step),
            }
        }
        world.drain();
    }
}

#[test]
fn samples_of_one_prompt_cost_one_prefill() {
    let mut world = World::new(8, 512, SchedulerOptions::default());
    let prompt: Vec<u32> = (1..=200).collect();
    for _ in 0..8 {
        world.add(sequence(&prompt, 5));
    }
    world.drain();
    let generated: usize = world.records.values().map(|r| r.tokens.len()).sum();
    let computed = world.control.new_tokens() as usize;
    assert!(
        computed <= 200 + 8 + generated,
        "{computed} tokens computed"
    );
    let cached = world.records.values().filter(|r| r.cached == 199).count();
    assert_eq!(cached, 7);
}

#[test]
fn a_conversation_goes_on_in_place() {
    let mut world = World::new(4, 512, SchedulerOptions::default());
    let first = world.add(sequence(&(1..=100).collect::<Vec<_>>(), 20));
    world.drain();
    let mut next: Vec<u32> = world.records[&first].sequence.prompt.to_vec();
    next.extend(&world.records[&first].tokens);
    let held = next.len() - 1;
    next.extend([9; 30]);
    let second = world.add(sequence(&next, 5));
    world.drain();
    assert!(world.records[&second].cached >= held);
    assert_eq!(world.control.copied_tokens(), 0);
}

#[test]
fn deadlines_end_those_that_run_and_those_that_wait() {
    let mut world = World::new(1, 128, SchedulerOptions::default());
    let soon = Some(world.now + Duration::from_millis(10));
    let endless = Sequence {
        stop: [].into(),
        deadline: soon,
        ..sequence(&[1, 2, 3], 100)
    };
    let running = world.add(endless.clone());
    let waiting = world.add(endless);
    world.drain();
    for id in [running, waiting] {
        assert_eq!(
            world.records[&id].end,
            Some(End::Finished(FinishReason::Deadline))
        );
    }
    assert_eq!(world.records[&running].tokens.len(), 9);
    assert_eq!(world.records[&waiting].started_at, None);
}

#[test]
fn a_sequence_that_would_be_late_is_not_started() {
    let mut world = World::new(2, 512, SchedulerOptions::default());
    // Teaches that 100 tokens of prefill take 100 ms.
    world.add(sequence(&[5; 100], 1));
    world.step(Duration::from_millis(100));
    let late = world.add(Sequence {
        deadline: Some(world.now + Duration::from_millis(150)),
        ..sequence(&(1..=200).collect::<Vec<_>>(), 1)
    });
    let in_time = world.add(Sequence {
        deadline: Some(world.now + Duration::from_millis(400)),
        ..sequence(&(1..=200).collect::<Vec<_>>(), 1)
    });
    world.drain();
    assert_eq!(world.records[&late].started_at, None);
    assert_eq!(
        world.records[&late].end,
        Some(End::Finished(FinishReason::Deadline))
    );
    assert!(!world.records[&in_time].tokens.is_empty());
}

#[test]
fn a_failed_copy_loses_the_step_and_nothing_else() {
    let mut world = World::new(4, 512, SchedulerOptions::default());
    let prompt: Vec<u32> = (1..=64).collect();
    world.add(sequence(&prompt, 30));
    for _ in 0..3 {
        world.step(MILLISECOND);
    }
    world.control.fail_copies(1);
    let second = world.add(sequence(&prompt, 4));
    world.step(MILLISECOND);
    assert_eq!(world.records[&second].end, Some(End::Failed));
    let third = world.add(sequence(&prompt, 4));
    world.drain();
    assert!(matches!(world.records[&third].end, Some(End::Finished(_))));
}
