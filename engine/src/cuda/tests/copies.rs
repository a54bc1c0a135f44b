//! Copies of K/V and of hidden rows, byte for byte, and what they refuse.

use proptest::prelude::*;

use super::*;
use crate::cuda::gather::{Gather, RowGather};
use crate::cuda::slots::{SlotMove, SlotMoves, SlotShape, compaction};

fn pattern(length: usize) -> Vec<u8> {
    let byte = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
    (0..length).map(byte).collect()
}

fn moved(shape: &SlotShape, mut arena: Vec<u8>, moves: &[SlotMove]) -> Vec<u8> {
    let head = shape.capacity * shape.token_bytes;
    let slot = shape.heads * head;
    for plane in 0..shape.planes {
        for &SlotMove { from, to, tokens } in moves {
            for h in 0..shape.heads {
                let at = |s: u32| (plane * shape.slots + s as usize) * slot + h * head;
                let bytes = tokens as usize * shape.token_bytes;
                arena.copy_within(at(from)..at(from) + bytes, at(to));
            }
        }
    }
    arena
}

const fn slot_move(from: u32, to: u32, tokens: u32) -> SlotMove {
    SlotMove { from, to, tokens }
}

#[test]
fn slots_move_as_in_the_arena() {
    fn check_all<M: Machine>(machine: &mut M, _: u32) {
        // Vectors of 16 bytes' alignment and of less.
        for token_bytes in [128, 24, 20, 6, 5] {
            let shape = SlotShape {
                planes: 3,
                slots: 5,
                heads: 2,
                capacity: 9,
                token_bytes,
            };
            let moves = [slot_move(4, 0, 9), slot_move(4, 2, 1), slot_move(3, 1, 0)];
            let before = pattern(shape.bytes());
            let mut arena = upload(machine, &before);
            SlotMoves::default()
                .run(machine, &mut arena, &shape, &moves)
                .unwrap();
            let mut after = vec![0; before.len()];
            machine.read(&arena, &mut after).unwrap();
            assert!(
                after == moved(&shape, before, &moves),
                "{token_bytes} bytes a token"
            );
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn moves_in_each_others_way_are_refused() {
    let shape = SlotShape {
        planes: 2,
        slots: 4,
        heads: 1,
        capacity: 8,
        token_bytes: 4,
    };
    let mut machine = Emulator::new(false);
    let mut arena = upload(&mut machine, &pattern(shape.bytes()));
    let mut refused = |moves: &[SlotMove]| {
        let run = SlotMoves::default().run(&mut machine, &mut arena, &shape, moves);
        matches!(run, Err(CudaError::Shape(_)))
    };
    assert!(!refused(&[slot_move(3, 0, 8), slot_move(3, 1, 8)]));
    assert!(
        refused(&[slot_move(3, 0, 1), slot_move(2, 0, 1)]),
        "to one slot"
    );
    assert!(
        refused(&[slot_move(3, 0, 1), slot_move(0, 1, 1)]),
        "a chain"
    );
    assert!(refused(&[slot_move(2, 2, 1)]), "to itself");
    assert!(refused(&[slot_move(4, 0, 1)]), "from beyond the last");
    assert!(refused(&[slot_move(0, 4, 1)]), "to beyond the last");
    assert!(refused(&[slot_move(1, 0, 9)]), "more than a slot holds");
}

proptest! {
    /// After compaction the sequences fill the first slots, each with its tokens.
    #[test]
    fn compaction_fills_the_first_slots(
        in_use in prop::collection::vec(prop::option::of(1u32..100), 0..40),
    ) {
        let moves = compaction(&in_use);
        let count = in_use.iter().flatten().count();
        prop_assert_eq!(moves.len(), in_use[..count].iter().filter(|s| s.is_none()).count());
        let mut after = in_use.clone();
        for SlotMove { from, to, tokens } in moves {
            prop_assert_eq!(after[to as usize], None);
            prop_assert_eq!(after[from as usize].take(), Some(tokens));
            after[to as usize] = Some(tokens);
        }
        prop_assert!(after[..count].iter().all(Option::is_some));
        let sorted = |slots: &[Option<u32>]| {
            let mut tokens: Vec<u32> = slots.iter().copied().flatten().collect();
            tokens.sort_unstable();
            tokens
        };
        prop_assert_eq!(sorted(&after), sorted(&in_use));
    }
}

#[test]
fn rows_are_gathered_in_the_order_wanted() {
    fn check_all<M: Machine>(machine: &mut M, _: u32) {
        for row_bytes in [2048, 12, 7] {
            let before = pattern(11 * row_bytes);
            let from = upload(machine, &before);
            let indices = [10, 0, 3, 3];
            let mut to = machine.allocate(indices.len() * row_bytes).unwrap();
            let gather = Gather {
                from: &from,
                to: &mut to,
                indices: &indices,
                row_bytes,
            };
            RowGather::default().gather(machine, gather).unwrap();
            let mut after = vec![0; indices.len() * row_bytes];
            machine.read(&to, &mut after).unwrap();
            for (row, &index) in after.chunks(row_bytes).zip(&indices) {
                let start = index as usize * row_bytes;
                assert_eq!(row, &before[start..start + row_bytes]);
            }
        }
    }
    on_every_machine!(check_all);
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let mut machine = Emulator::new(false);
    let from = upload(&mut machine, &pattern(64));
    let mut to = machine.allocate(32).unwrap();
    let mut refused = |indices: &[u32], row_bytes| {
        let gather = Gather {
            from: &from,
            to: &mut to,
            indices,
            row_bytes,
        };
        let gathered = RowGather::default().gather(&mut machine, gather);
        matches!(gathered, Err(CudaError::Shape(_)))
    };
    assert!(!refused(&[3, 0], 16));
    assert!(!refused(&[], 16));
    assert!(refused(&[4], 16), "beyond the last");
    assert!(refused(&[0, 1, 2], 16), "more than fit");
    assert!(refused(&[0], 0), "rows of nothing");
}
