#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BUDGET: Budget = Budget {
    tokens: 512,
    items: 8,
    padding: 16,
    max_age: Duration::from_millis(100),
};

fn item(tokens: usize, value: usize) -> Item<usize> {
    Item {
        tokens,
        priority: Priority::Normal,
        deadline: None,
        value,
    }
}

fn values(batch: &[Item<usize>]) -> Vec<usize> {
    batch.iter().map(|item| item.value).collect()
}

fn filled(lengths: &[usize], now: Instant) -> BatchQueue<usize> {
    let mut queue = BatchQueue::new(lengths.len());
    for (value, &tokens) in lengths.iter().enumerate() {
        queue.push(item(tokens, value), now).unwrap();
    }
    queue
}

#[test]
fn similar_lengths_run_together_beginning_with_the_oldest() {
    let now = Instant::now();
    let mut queue = filled(&[30, 200, 31, 198, 29, 100], now);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [2, 0, 4]);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [1, 3]);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [5]);
    assert!(queue.pop(&BUDGET, now).is_empty());
}

#[test]
fn the_budget_counts_padded_tokens() {
    let now = Instant::now();
    let mut queue = filled(&[200, 190, 190, 190], now);
    // 2 × 200 fit into 512, 3 × 200 do not.
    assert_eq!(values(&queue.pop(&BUDGET, now)), [0, 3]);
    let mut queue = filled(&[2000, 1], now);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [0], "too long, but alone");
}

#[test]
fn a_longer_item_pads_everybody_in_the_batch() {
    let now = Instant::now();
    // The third would add 2 × 10 tokens of padding.
    let mut queue = filled(&[20, 20, 30], now);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [1, 0]);
}

#[test]
fn a_full_queue_gives_the_item_back() {
    let now = Instant::now();
    let mut queue = filled(&[1], now);
    assert_eq!(queue.push(item(5, 9), now), Err(Full(item(5, 9))));
    queue.pop(&BUDGET, now);
    queue.push(item(5, 9), now).unwrap();
}

#[test]
fn higher_classes_run_first_and_classes_do_not_mix() {
    let now = Instant::now();
    let mut queue = BatchQueue::new(9);
    for (value, priority) in [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Low,
    ]
    .into_iter()
    .enumerate()
    {
        let item = Item {
            priority,
            ..item(10, value)
        };
        queue.push(item, now).unwrap();
    }
    assert_eq!(values(&queue.pop(&BUDGET, now)), [2]);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [1]);
    assert_eq!(values(&queue.pop(&BUDGET, now)), [3, 0]);
}

#[test]
fn an_overdue_item_gets_one_turn_in_four() {
    let start = Instant::now();
    let mut queue = BatchQueue::new(100);
    let low = Item {
        priority: Priority::Low,
        ..item(10, 0)
    };
    queue.push(low, start).unwrap();
    let now = start + BUDGET.max_age * 2;
    let mut order = Vec::new();
    for value in 1..=8 {
        let high = Item {
            priority: Priority::High,
            ..item(100 * value, value)
        };
        queue.push(high, now).unwrap();
    }
    while !queue.is_empty() {
        order.extend(values(&queue.pop(&BUDGET, now)));
    }
    assert_eq!(order, [1, 2, 3, 0, 4, 5, 6, 7, 8]);
}

#[test]
fn expired_and_removed_items_never_run() {
    let now = Instant::now();
    let mut queue = BatchQueue::new(9);
    let later = |ms| Some(now + Duration::from_millis(ms));
    let mut ids = Vec::new();
    for (value, deadline) in [later(1), None, later(5), later(9)].into_iter().enumerate() {
        let item = Item {
            deadline,
            ..item(10, value)
        };
        ids.push(queue.push(item, now).unwrap());
    }
    assert_eq!(queue.remove(ids[3]).unwrap().value, 3);
    assert_eq!(queue.remove(ids[3]), None);
    let at = now + Duration::from_millis(5);
    assert_eq!(values(&queue.expire(at)), [0, 2]);
    assert_eq!(queue.tokens(), 10);
    assert_eq!(values(&queue.pop(&BUDGET, at)), [1]);
    assert_eq!(queue.tokens(), 0);
}

/// Padding of a batch over its tokens.
fn waste(batches: &[Vec<Item<usize>>]) -> f64 {
    let (mut padded, mut tokens) = (0, 0);
    for batch in batches {
        padded += batch.len() * batch[0].tokens;
        tokens += batch.iter().map(|item| item.tokens).sum::<usize>();
    }
    padded as f64 / tokens as f64 - 1.0
}

#[test]
fn padding_is_small_where_first_come_batching_wastes_much() {
    let now = Instant::now();
    let lengths: Vec<usize> = (0..128).map(|i| 8 + i * 89 % 193).collect();
    let mut queue = filled(&lengths, now);
    let mut batches = Vec::new();
    while !queue.is_empty() {
        batches.push(queue.pop(&BUDGET, now));
    }
    let first_come: Vec<Vec<_>> = lengths
        .chunks(4)
        .map(|chunk| {
            let mut chunk: Vec<_> = chunk.iter().map(|&tokens| item(tokens, 0)).collect();
            chunk.sort_by_key(|item| std::cmp::Reverse(item.tokens));
            chunk
        })
        .collect();
    assert!(waste(&first_come) > 0.4);
    assert!(waste(&batches) < 0.05, "{}", waste(&batches));
    assert!(batches.len() < 48, "{} batches", batches.len());
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        tokens: usize,
        priority: Priority,
        deadline: Option<u64>,
    },
    Remove(usize),
    Expire,
    Pop,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![
        Just(Priority::Low),
        Just(Priority::Normal),
        Just(Priority::High)
    ];
    prop_oneof![
        6 => (0usize..700, priority, prop::option::of(0u64..400))
            .prop_map(|(tokens, priority, deadline)| Step::Push { tokens, priority, deadline }),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Expire),
        3 => Just(Step::Pop),
        2 => (0u64..80).prop_map(Step::Wait),
    ]
}

fn check_batch(batch: &[Item<usize>], budget: &Budget) -> Result<(), TestCaseError> {
    prop_assert!(batch.len() <= budget.items);
    prop_assert!(batch.is_sorted_by_key(|item| std::cmp::Reverse(item.tokens)));
    prop_assert!(batch.iter().all(|item| item.priority == batch[0].priority));
    let padded = batch.len() * batch[0].tokens;
    prop_assert!(batch.len() == 1 || padded <= budget.tokens);
    let tokens: usize = batch.iter().map(|item| item.tokens).sum();
    prop_assert!(padded - tokens <= budget.padding * (batch.len() - 1));
    Ok(())
}

proptest! {
    /// Whatever happens: every item leaves exactly once, batches keep the
    /// budget, counts add up, and each batch serves the oldest of its class.
    #[test]
    fn items_leave_once_in_batches_that_keep_the_budget(
        steps in prop::collection::vec(step(), 0..120),
        budget in (1usize..600, 1usize..9, 0usize..40)
            .prop_map(|(tokens, items, padding)| Budget { tokens, items, padding, ..BUDGET }),
        bound in 1usize..40,
    ) {
        let mut now = Instant::now();
        let mut queue = BatchQueue::new(bound);
        let mut waiting: HashMap<usize, (ItemId, Item<usize>)> = HashMap::new();
        for (value, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { tokens, priority, deadline } => {
                    let deadline = deadline.map(|ms| now + Duration::from_millis(ms));
                    let item = Item { tokens, priority, deadline, value };
                    match queue.push(item.clone(), now) {
                        Ok(id) => drop(waiting.insert(value, (id, item))),
                        Err(full) => {
                            prop_assert_eq!(full, Full(item));
                            prop_assert_eq!(waiting.len(), bound);
                        }
                    }
                }
                Step::Remove(index) => {
                    let mut known: Vec<_> = waiting.keys().copied().collect();
                    known.sort_unstable();
                    if let Some(&value) = known.get(index % known.len().max(1)) {
                        let (id, item) = waiting.remove(&value).unwrap();
                        prop_assert_eq!(queue.remove(id), Some(item));
                    }
                }
                Step::Expire => {
                    for item in queue.expire(now) {
                        prop_assert!(item.deadline.unwrap() <= now);
                        prop_assert!(waiting.remove(&item.value).is_some());
                    }
                    prop_assert!(waiting.values().all(|(_, item)| item.deadline.is_none_or(|d| d > now)));
                }
                Step::Pop => {
                    let batch = queue.pop(&budget, now);
                    prop_assert_eq!(batch.is_empty(), waiting.is_empty());
                    if let Some(first) = batch.first() {
                        check_batch(&batch, &budget)?;
                        let same = waiting.values().filter(|(_, item)| item.priority == first.priority);
                        let oldest = same.map(|(_, item)| item.value).min();
                        prop_assert!(batch.iter().any(|item| Some(item.value) == oldest));
                    }
                    for item in batch {
                        prop_assert!(waiting.remove(&item.value).is_some());
                    }
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
            }
            prop_assert_eq!(queue.len(), waiting.len());
            let tokens: usize = waiting.values().map(|(_, item)| item.tokens).sum();
            prop_assert_eq!(queue.tokens(), tokens);
        }
    }

    /// Nothing starves: under an endless flood of the highest class in any
    /// lengths, an overdue item runs within `OVERDUE_TURNS` turns for each
    /// overdue item before it.
    #[test]
    fn nothing_starves(
        lengths in prop::collection::vec(1usize..300, 1..20),
        flood in prop::collection::vec(1usize..300, 1..20),
    ) {
        let start = Instant::now();
        let mut queue = BatchQueue::new(usize::MAX);
        for &tokens in &lengths {
            let low = Item { priority: Priority::Low, ..item(tokens, 1) };
            queue.push(low, start).unwrap();
        }
        let now = start + BUDGET.max_age + Duration::from_millis(1);
        let mut left = lengths.len();
        for turn in 0..lengths.len() * OVERDUE_TURNS as usize {
            for &tokens in &flood {
                let high = Item { priority: Priority::High, ..item(tokens, 0) };
                queue.push(high, now).unwrap();
            }
            left -= values(&queue.pop(&BUDGET, now)).iter().sum::<usize>();
            let served = (turn + 1) / OVERDUE_TURNS as usize;
            prop_assert!(left <= lengths.len() - served);
        }
        prop_assert_eq!(left, 0);
    }
}
