#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn backend() -> FakeBackend {
    let options = FakeOptions {
        slots: 3,
        capacity: 16,
        ..FakeOptions::default()
    };
    FakeBackend::new(options, FakeControl::new())
}

fn row(slot: u32, past: u32, tokens: &[u32], wanted: Wanted) -> Row<'_> {
    Row {
        slot,
        past,
        tokens,
        wanted,
    }
}

/// The likeliest tokens of the rows' logits, row by row.
fn run(backend: &mut FakeBackend, rows: Vec<Row<'_>>) -> Vec<Vec<u32>> {
    let mut outputs = Outputs::default();
    backend.execute(&Batch { rows }, &mut outputs).unwrap();
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let ranges = outputs.ranges.iter().cloned();
    ranges
        .map(|range| {
            range
                .map(|i| best(outputs.row(i)).unwrap() as u32)
                .collect()
        })
        .collect()
}

#[test]
fn the_next_token_depends_on_everything_in_the_slot() {
    let mut backend = backend();
    let at_once = run(&mut backend, vec![row(0, 0, &[1, 2, 3], Wanted::All)]);
    let expected = |history: &[u32]| next_token(&FakeOptions::default().tokens, 256, history);
    assert_eq!(
        at_once,
        [vec![
            expected(&[1]),
            expected(&[1, 2]),
            expected(&[1, 2, 3])
        ]]
    );
    // The same in chunks.
    assert_eq!(
        run(&mut backend, vec![row(1, 0, &[1, 2], Wanted::Nothing)]),
        [Vec::<u32>::new()]
    );
    let last = run(&mut backend, vec![row(1, 2, &[3], Wanted::Last)]);
    assert_eq!(last, [vec![expected(&[1, 2, 3])]]);
}

#[test]
fn an_idle_slot_below_a_decoding_one_gets_junk_behind_its_length() {
    let mut backend = backend();
    let expected = |history: &[u32]| next_token(&FakeOptions::default().tokens, 256, history);
    run(&mut backend, vec![row(0, 0, &[1, 2, 3], Wanted::Last)]);
    run(&mut backend, vec![row(1, 0, &[7], Wanted::Last)]);
    // What slot 0 holds is untouched…
    let next = run(&mut backend, vec![row(0, 3, &[4], Wanted::Last)]);
    assert_eq!(next, [vec![expected(&[1, 2, 3, 4])]]);
    // … but whoever trusts what lies behind it is wrong.
    run(&mut backend, vec![row(1, 1, &[7], Wanted::Last)]);
    let beyond = run(&mut backend, vec![row(0, 5, &[6], Wanted::Last)]);
    assert_ne!(beyond, [vec![expected(&[1, 2, 3, 4, 5, 6])]]);
}

#[test]
fn a_copied_prefix_is_as_good_as_a_computed_one() {
    let mut backend = backend();
    run(&mut backend, vec![row(0, 0, &[1, 2, 3, 4], Wanted::Last)]);
    backend.copy_prefix(0, 2, 3).unwrap();
    let next = run(&mut backend, vec![row(2, 3, &[9], Wanted::Last)]);
    let expected = next_token(&FakeOptions::default().tokens, 256, &[1, 2, 3, 9]);
    assert_eq!(next, [vec![expected]]);
    assert!(backend.copy_prefix(0, 0, 1).is_err());
    assert!(backend.copy_prefix(1, 0, 1).is_err(), "nothing there");
}

#[test]
fn malformed_batches_are_refused() {
    let mut backend = backend();
    let mut refused = |rows: Vec<Row<'_>>| {
        let error = backend.execute(&Batch { rows }, &mut Outputs::default());
        assert!(matches!(error, Err(BackendError::Step(_))));
    };
    refused(vec![row(3, 0, &[1], Wanted::Last)]);
    refused(vec![row(0, 0, &[], Wanted::Last)]);
    refused(vec![row(0, 10, &[1; 7], Wanted::Last)]);
    refused(vec![row(0, 0, &[256], Wanted::Last)]);
    refused(vec![
        row(0, 0, &[1], Wanted::Last),
        row(0, 1, &[1], Wanted::Last),
    ]);
}

#[test]
fn a_script_is_found_from_the_history() {
    let script = FakeTokens::text("abac", 0);
    let mut history = vec![50, 51];
    for _ in 0..6 {
        let next = next_token(&script, 256, &history);
        history.push(next);
    }
    assert_eq!(history[2..], [97, 98, 97, 99, 0, 97]);
}
