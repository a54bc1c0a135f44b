use proptest::prelude::*;

use super::*;
use crate::backend::Wanted;

const CAPACITY: u32 = 32;
const TOKENS: [u32; 32] = [7; 32];

fn row(slot: u32, past: u32, tokens: usize) -> Row<'static> {
    Row {
        slot,
        past,
        tokens: &TOKENS[..tokens],
        wanted: Wanted::Last,
    }
}

fn costs(bridge: u32, joined_gain: f64) -> Costs {
    Costs {
        bridge,
        idle_tokens: u32::MAX,
        joined_gain,
    }
}

#[test]
fn decoding_rows_share_a_run_over_a_short_gap() {
    let rows = [row(4, 9, 1), row(0, 3, 1), row(1, 5, 1)];
    let used = [3, 5, 0, 20, 9];
    assert_eq!(
        plan(&rows, &used, CAPACITY, costs(2, 1.0)),
        [Run {
            first: 0,
            width: 1,
            lanes: vec![
                Lane::Row(1),
                Lane::Row(2),
                Lane::Idle { used: 0 },
                Lane::Idle { used: 20 },
                Lane::Row(0),
            ],
        }]
    );
    assert_eq!(plan(&rows, &used, CAPACITY, costs(1, 1.0)).len(), 2);
}

#[test]
fn a_full_slot_splits_the_range() {
    let rows = [row(0, 3, 1), row(2, 3, 1)];
    assert_eq!(
        plan(&rows, &[3, CAPACITY, 3], CAPACITY, costs(8, 1.0)).len(),
        2
    );
    assert_eq!(
        plan(&rows, &[3, CAPACITY - 1, 3], CAPACITY, costs(8, 1.0)).len(),
        1
    );
}

#[test]
fn an_idle_slot_with_a_long_history_splits_the_range() {
    let rows = [row(0, 3, 1), row(2, 3, 1)];
    let costs = Costs {
        idle_tokens: 9,
        ..costs(8, 1.0)
    };
    assert_eq!(plan(&rows, &[3, 9, 3], CAPACITY, costs).len(), 1);
    assert_eq!(plan(&rows, &[3, 10, 3], CAPACITY, costs).len(), 2);
}

#[test]
fn prompts_join_only_when_it_is_faster_and_there_is_room() {
    let rows = [row(0, 0, 8), row(1, 0, 7), row(3, 0, 8)];
    let used = [0; 4];
    let widths = |costs| -> Vec<_> {
        plan(&rows, &used, CAPACITY, costs)
            .iter()
            .map(|run| run.lanes.len())
            .collect()
    };
    assert_eq!(widths(costs(8, 1.0)), [1, 1, 1]);
    assert_eq!(widths(costs(8, 1.3)), [2, 1]);
    let rows = [row(0, 0, 8), row(1, CAPACITY - 7, 7)];
    let used = [0, CAPACITY - 7];
    assert_eq!(
        plan(&rows, &used, CAPACITY, costs(8, 1.3)).len(),
        2,
        "padding would not fit"
    );
}

fn any_rows() -> impl Strategy<Value = (Vec<(u32, u32, usize)>, Vec<u32>)> {
    let used = proptest::collection::vec(0..=CAPACITY, 12);
    let rows = proptest::collection::btree_map(0..12_u32, (0..CAPACITY, 1..=CAPACITY), 0..12);
    (rows, used).prop_map(|(rows, mut used)| {
        let rows = rows
            .into_iter()
            .map(|(slot, (past, tokens))| {
                used[slot as usize] = past;
                (slot, past, tokens.min(CAPACITY - past) as usize)
            })
            .collect();
        (rows, used)
    })
}

proptest! {
    /// Every row runs once, in its own slot; nothing is written below what a slot
    /// holds nor beyond its capacity.
    #[test]
    fn every_row_runs_once_and_no_slot_is_overrun(
        (rows, used) in any_rows(), bridge in 0..12_u32, gain in 0.5..3.0_f64,
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(slot, past, n)| row(slot, past, n)).collect();
        let mut seen = vec![0; rows.len()];
        for run in plan(&rows, &used, CAPACITY, costs(bridge, gain)) {
            for (lane, slot) in run.lanes.iter().zip(run.first..) {
                match *lane {
                    Lane::Row(index) => {
                        seen[index] += 1;
                        prop_assert_eq!(rows[index].slot, slot);
                        prop_assert!(rows[index].tokens.len() <= run.width);
                        prop_assert!(rows[index].past as usize + run.width <= CAPACITY as usize);
                    }
                    Lane::Idle { used: held } => {
                        prop_assert_eq!(run.width, 1);
                        prop_assert_eq!(held, used[slot as usize]);
                        prop_assert!(held < CAPACITY);
                    }
                }
            }
            prop_assert!(matches!(run.lanes.first(), Some(Lane::Row(_))));
            prop_assert!(matches!(run.lanes.last(), Some(Lane::Row(_))));
        }
        prop_assert!(seen.iter().all(|times| *times == 1));
    }
}
