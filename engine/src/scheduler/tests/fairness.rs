//! Who is served first, and that nobody is forgotten.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::world::{World, sequence};
use crate::request::Priority;
use crate::scheduler::queue::{AGED_SHARE, QUANTUM, WaitingQueue};
use crate::scheduler::sequence::Waiting;
use crate::scheduler::{SchedulerOptions, Sequence, SequenceId};

const AGEING: Duration = Duration::from_secs(5);
const MAX_COST: usize = 2000;

fn cost(waiting: &Waiting) -> usize {
    waiting.sequence.max_tokens
}

fn waiting(id: u64, tenant: &str, cost: usize, priority: Priority, now: Instant) -> Waiting {
    let sequence = Sequence {
        id: SequenceId(id),
        tenant: tenant.into(),
        priority,
        ..sequence(&[1], cost)
    };
    Waiting::new(sequence, now)
}

proptest! {
    /// As long as both wait, neither tenant is ahead of the other by more than a
    /// quantum and one request (the bound of deficit round robin).
    #[test]
    fn tenants_share_by_tokens(
        a in prop::collection::vec(1..MAX_COST, 1..60),
        b in prop::collection::vec(1..MAX_COST, 1..60),
    ) {
        let now = Instant::now();
        let mut queue = WaitingQueue::new(AGEING);
        let mut left = HashMap::from([("a", a.len()), ("b", b.len())]);
        for (id, (tenant, cost)) in a
            .iter()
            .map(|cost| ("a", *cost))
            .chain(b.iter().map(|cost| ("b", *cost)))
            .enumerate()
        {
            queue.push(waiting(id as u64, tenant, cost, Priority::Normal, now));
        }
        let mut served = HashMap::from([("a", 0i64), ("b", 0i64)]);
        while left["a"] > 0 && left["b"] > 0 {
            let next = queue.pop(now, cost).unwrap();
            let tenant = if &*next.sequence.tenant == "a" { "a" } else { "b" };
            *served.get_mut(tenant).unwrap() += cost(&next) as i64;
            *left.get_mut(tenant).unwrap() -= 1;
            let ahead = (served["a"] - served["b"]).abs();
            prop_assert!(ahead <= QUANTUM + MAX_COST as i64, "{} ahead", ahead);
        }
        let mut rest = 0;
        while queue.pop(now, cost).is_some() {
            rest += 1;
        }
        prop_assert_eq!(rest, left["a"] + left["b"]);
        prop_assert_eq!(queue.len(), 0);
    }

    /// Removing any of them leaves exactly the others, each served once.
    #[test]
    fn the_queue_loses_nobody(
        all in prop::collection::vec((0..4u8, 1..MAX_COST, 0..3usize, any::<bool>()), 0..60),
    ) {
        let now = Instant::now();
        let mut queue = WaitingQueue::new(AGEING);
        let priorities = [Priority::Low, Priority::Normal, Priority::High];
        for (id, &(tenant, cost, priority, _)) in all.iter().enumerate() {
            let tenant = tenant.to_string();
            queue.push(waiting(id as u64, &tenant, cost, priorities[priority], now));
        }
        let mut expected = Vec::new();
        for (id, &(.., remove)) in all.iter().enumerate() {
            if remove {
                prop_assert!(queue.remove(SequenceId(id as u64)).is_some());
                prop_assert!(queue.remove(SequenceId(id as u64)).is_none());
            } else {
                expected.push(id as u64);
            }
        }
        let mut served = Vec::new();
        let mut last = Priority::High;
        while let Some(next) = queue.pop(now, cost) {
            prop_assert!(next.sequence.priority <= last, "strict priority");
            last = next.sequence.priority;
            served.push(next.sequence.id.0);
        }
        served.sort_unstable();
        prop_assert_eq!(served, expected);
    }
}

#[test]
fn an_aged_class_gets_its_share_and_no_more() {
    let now = Instant::now();
    let mut queue = WaitingQueue::new(AGEING);
    for id in 0..100 {
        queue.push(waiting(id, "low", 10, Priority::Low, now));
    }
    let later = now + AGEING;
    for id in 100..200 {
        queue.push(waiting(id, "high", 10, Priority::High, later));
    }
    let served: Vec<Priority> = (0..80)
        .map(|_| queue.pop(later, cost).unwrap().sequence.priority)
        .collect();
    let low = served.iter().filter(|&&p| p == Priority::Low).count();
    assert_eq!(low, 80 / AGED_SHARE as usize);
}

#[test]
fn low_gets_through_a_flood_of_normal() {
    let options = SchedulerOptions {
        ageing: Duration::from_millis(50),
        ..SchedulerOptions::default()
    };
    let mut world = World::new(2, 128, options);
    let low = world.add(Sequence {
        priority: Priority::Low,
        ..sequence(&[3; 20], 10)
    });
    let mut salt = 0;
    while world.records[&low].end.is_none() {
        while world.scheduler.waiting() < 8 {
            salt += 1;
            world.add(sequence(&[1 + salt % 200, 2, 3], 10));
        }
        world.step(Duration::from_millis(1));
        assert!(world.steps < 500, "starved");
    }
    world.drain();
}

#[test]
fn low_makes_way_once_and_still_finishes() {
    let mut world = World::new(2, 128, SchedulerOptions::default());
    let low = |salt: u32| Sequence {
        priority: Priority::Low,
        stop: [].into(),
        ..sequence(&[salt; 20], 60)
    };
    world.add(low(1));
    world.add(low(2));
    for _ in 0..10 {
        world.step(Duration::from_millis(1));
    }
    let high = world.add(Sequence {
        priority: Priority::High,
        ..sequence(&[9; 5], 3)
    });
    let before = world.steps;
    world.step(Duration::from_millis(1));
    assert_eq!(world.preemptions, 1);
    assert_eq!(
        world.records[&high].token_steps.first(),
        Some(&(before + 1))
    );
    world.drain();
}

#[test]
fn a_flooding_tenant_does_not_delay_another() {
    let mut world = World::new(4, 512, SchedulerOptions::default());
    for i in 0..200u32 {
        world.add(Sequence {
            tenant: "flood".into(),
            ..sequence(&vec![1 + i; 60], 40)
        });
    }
    world.step(Duration::from_millis(1));
    let other = world.add(Sequence {
        tenant: "other".into(),
        ..sequence(&[7; 60], 40)
    });
    world.drain();
    let started_before = world
        .records
        .values()
        .filter(|r| r.started_at < world.records[&other].started_at)
        .count();
    assert!(
        started_before <= 4 + 2 * QUANTUM as usize / 100,
        "{started_before} before"
    );
}
