use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_wait_is_within_its_bounds_and_the_same_for_the_same_seed(
        base in 1u64..10_000_000, max in 1u64..1_000_000_000, attempt in 1u32..2000, seed: u64,
    ) {
        let backoff = Backoff { base: Duration::from_micros(base), max: Duration::from_micros(max) };
        let wait = backoff.delay(attempt, seed);
        let whole = (u128::from(base) << (attempt - 1).min(63)).min(u128::from(max));
        prop_assert!(wait.as_micros() >= whole / 2 && wait.as_micros() <= whole);
        prop_assert_eq!(wait, backoff.delay(attempt, seed));
    }

    #[test]
    fn the_next_wait_is_never_shorter_than_half_of_the_last(attempt in 1u32..100, seed: u64) {
        let backoff = Backoff::default();
        prop_assert!(backoff.delay(attempt + 1, seed) * 2 >= backoff.delay(attempt, seed));
    }

    /// Whatever comes after a task's handicap has passed goes behind it: nothing waits for ever.
    #[test]
    fn a_waiting_task_is_overtaken_for_a_bounded_time(
        run_at in 0i64..1 << 50, low in PRIORITIES, high in PRIORITIES, later in 0i64..1 << 40,
    ) {
        prop_assume!(low <= high);
        let handicap = (high - low) * LEVEL.as_micros() as i64;
        prop_assert!(rank(run_at, low) < rank(run_at + handicap + 1 + later, high));
    }

    #[test]
    fn of_two_that_came_together_the_higher_priority_goes_first(run_at in 0i64..1 << 50, low in -1000i64..1000) {
        prop_assert!(rank(run_at, low + 1) < rank(run_at, low));
    }
}

#[test]
fn tasks_that_failed_together_come_back_apart() {
    let backoff = Backoff::default();
    let waits: std::collections::HashSet<_> =
        (0..1000).map(|seed| backoff.delay(4, seed)).collect();
    assert!(waits.len() > 990, "{} different waits", waits.len());
}

#[test]
fn the_statement_counts_as_the_function_does() {
    assert_eq!(RANK, format!("run_at - priority * {}", LEVEL.as_micros()));
    assert_eq!(rank(5_000_000_000, 3), 5_000_000_000 - 3 * 60_000_000);
}
