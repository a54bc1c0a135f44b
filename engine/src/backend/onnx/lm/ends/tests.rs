#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::super::super::testing::ready;
use super::*;

const NO_WAIT: &str = "disable_synchronize_execution_providers";
const GRAPH: &str = "gpu_graph_id";

#[test]
fn what_returns_early_tells_the_provider_not_to_wait() {
    ready();
    for captures in [false, true] {
        let mut ends = RunEnds::new(true, captures).unwrap();
        let early = ends.early.as_mut().unwrap();
        assert_eq!(early.get(NO_WAIT).as_deref(), Some("1"));
        assert_eq!(early.get(GRAPH).as_deref(), captures.then_some("-1"));
        assert_eq!(ends.waiting.get(NO_WAIT), None);
        assert_eq!(ends.waiting.get(GRAPH).as_deref(), captures.then_some("-1"));
        assert!(std::ptr::eq(
            ends.options(true),
            ends.early.as_ref().unwrap()
        ));
        assert!(std::ptr::eq(ends.options(false), &raw const ends.waiting));
    }
}

#[test]
fn one_run_in_sixty_four_waits() {
    ready();
    let mut ends = RunEnds::new(true, false).unwrap();
    for _ in 0..2 {
        assert!((0..63).all(|_| ends.returns_early(true)));
        assert!(!ends.returns_early(true));
    }
}

#[test]
fn a_run_without_a_draw_waits_and_the_count_begins_anew() {
    ready();
    let mut ends = RunEnds::new(true, false).unwrap();
    for _ in 0..3 {
        assert!((0..40).all(|_| ends.returns_early(true)));
        assert!(!ends.returns_early(false));
    }
}

#[test]
fn on_a_stream_of_its_own_every_run_waits() {
    ready();
    let mut ends = RunEnds::new(false, true).unwrap();
    assert!(!ends.returns_early(true));
    assert!(std::ptr::eq(ends.options(true), &raw const ends.waiting));
}
