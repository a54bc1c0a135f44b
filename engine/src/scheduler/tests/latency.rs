//! What long prompts do to others.

use std::time::Duration;

use super::world::{World, sequence};
use crate::scheduler::pacer::Pacer;
use crate::scheduler::{SchedulerOptions, Sequence};

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
    let milliseconds = Duration::from_millis;
    let mut pacer = Pacer::new(Some(milliseconds(60)));
    assert!(
        pacer.allowance(1, 512) < 512,
        "careful before anything is known"
    );
    for _ in 0..20 {
        pacer.observe(1, 0, milliseconds(10));
    }
    pacer.observe(1, 100, milliseconds(110));
    // 50 of the 60 ms are left, and a token takes 1 ms.
    let share = pacer.allowance(1, 512);
    assert!((49..=50).contains(&share), "{share}");
    let prefill = pacer.prefill_time(200).as_secs_f64();
    assert!((prefill - 0.2).abs() < 1e-6, "{prefill}");
    // With nobody decoding the chunks are larger, and still bounded.
    let alone = pacer.allowance(0, 512);
    assert!((239..=240).contains(&alone), "{alone}");
    assert_eq!(pacer.allowance(0, 100), 100);
    // Where decoding alone takes longer than the target, prompts get half the time.
    for _ in 0..50 {
        pacer.observe(8, 0, milliseconds(100));
    }
    let share = pacer.allowance(8, 512);
    assert!((99..=100).contains(&share), "{share}");
    // Without a target nothing depends on time.
    assert_eq!(Pacer::new(None).allowance(8, 512), 512);
}
