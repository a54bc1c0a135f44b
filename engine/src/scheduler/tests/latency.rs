//! What long prompts do to others.

use std::time::Duration;

use super::world::{World, sequence};
use crate::scheduler::{SchedulerOptions, Sequence};

/// A step's time on a device where a step costs 10 ms and a token 1 ms.
fn step_as_on_a_device(world: &mut World) -> Duration {
    let before = world.control.new_tokens();
    let mut preview = Duration::from_millis(10);
    // The time is only known after the step, so the clock lags one step behind:
    // the world is stepped with the cost of the plan just made.
    world.step(Duration::ZERO);
    preview += Duration::from_millis(world.control.new_tokens() - before);
    world.now += preview;
    preview
}

#[test]
fn everyone_decodes_in_every_step_while_a_long_prompt_is_read() {
    let options = SchedulerOptions {
        step_budget: 64,
        ..SchedulerOptions::default()
    };
    let mut world = World::new(4, 2048, options);
    let chat = world.add(Sequence {
        stop: [].into(),
        ..sequence(&[1, 2, 3], 60)
    });
    world.step(Duration::from_millis(1));
    let long = world.add(sequence(
        &(0..2000).map(|i| 1 + i % 200).collect::<Vec<_>>(),
        3,
    ));
    world.drain();
    let gaps = world.records[&chat].token_steps.windows(2);
    assert!(gaps.map(|w| w[1] - w[0]).all(|gap| gap == 1));
    assert!(!world.records[&long].token_steps.is_empty());
}

#[test]
fn a_short_prompt_overtakes_a_long_one() {
    let options = SchedulerOptions {
        step_budget: 64,
        ..SchedulerOptions::default()
    };
    let mut world = World::new(4, 4096, options);
    let long = world.add(sequence(
        &(0..4000).map(|i| 1 + i % 200).collect::<Vec<_>>(),
        3,
    ));
    for _ in 0..5 {
        world.step(Duration::from_millis(1));
    }
    let short = world.add(sequence(&[9; 20], 3));
    let added = world.steps;
    world.drain();
    assert!(world.records[&short].token_steps[0] - added <= 2);
    let long = world.records[&long].token_steps[0];
    assert!(
        long <= 4000 / 64 + 5,
        "and the long one is hardly delayed: {long}"
    );
}

#[test]
fn short_prompts_share_a_step() {
    let mut world = World::new(8, 128, SchedulerOptions::default());
    for i in 0..8 {
        world.add(sequence(&[1 + i; 20], 3));
    }
    world.step(Duration::from_millis(1));
    assert!(world.records.values().all(|r| r.token_steps == [1]));
    world.drain();
}

#[test]
fn measured_costs_cut_the_chunks() {
    let options = SchedulerOptions {
        step_budget: 512,
        inter_token_target: Some(Duration::from_millis(60)),
        ..SchedulerOptions::default()
    };
    let mut world = World::new(4, 4096, options);
    world.add(Sequence {
        stop: [].into(),
        ..sequence(&[1, 2, 3], 400)
    });
    for _ in 0..20 {
        let time = step_as_on_a_device(&mut world);
        world.scheduler.pacer.observe(1, 0, time);
    }
    world
        .scheduler
        .pacer
        .observe(0, 100, Duration::from_millis(100));
    // Decoding costs about 11 ms, so about 49 ms, that is 49 tokens, are left.
    let allowance = world.scheduler.pacer.allowance(1, 512);
    assert!((40..=60).contains(&allowance), "{allowance}");
    // With nobody decoding the chunks are larger, and still bounded.
    let alone = world.scheduler.pacer.allowance(0, 512);
    assert!((200..=280).contains(&alone), "{alone}");
}
