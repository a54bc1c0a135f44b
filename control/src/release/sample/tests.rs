#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::agreement::compare;
use super::super::agreement::tests::{answer, pair};
use super::*;
use crate::id::Id as _;

/// What is left of `offered` pairs: whether each agrees.
fn kept(places: usize, offered: &[(bool, i64)]) -> Vec<usize> {
    let mut sample = Sample::new(places);
    let mut left: Vec<usize> = Vec::new();
    for (number, (agrees, draw)) in offered.iter().enumerate() {
        match sample.offer(*agrees, *draw, number) {
            Offered::Kept => left.push(number),
            Offered::Instead(other) => {
                left.retain(|it| *it != other);
                left.push(number);
            }
            Offered::Refused => {}
        }
        assert_eq!(left.len(), sample.len());
        assert!(sample.len() <= places);
    }
    left.sort_unstable();
    left
}

proptest! {
    /// Whatever came in whatever order: of each kind those that drew least, and each kind has half of the places if
    /// it needs them.
    #[test]
    fn what_is_kept_is_a_fair_sample(
        places in 0_usize..12,
        offered in prop::collection::vec((any::<bool>(), 0_i64..1_000_000), 0..60),
    ) {
        let left = kept(places, &offered);
        let count = |kind: bool| offered.iter().filter(|it| it.0 == kind).count();
        let (agree, disagree) = (count(true), count(false));
        let half = places.div_ceil(2);
        let places_of = |mine: usize, share: usize, others: usize, their_share: usize| {
            mine.min(share + their_share.saturating_sub(others))
        };
        for (kind, most) in [
            (false, places_of(disagree, half, agree, places - half)),
            (true, places_of(agree, places - half, disagree, half)),
        ] {
            let mut least: Vec<(i64, usize)> = offered
                .iter()
                .enumerate()
                .filter(|(_, it)| it.0 == kind)
                .map(|(number, it)| (it.1, number))
                .collect();
            least.sort_unstable();
            let mut expected: Vec<usize> = least.into_iter().take(most).map(|it| it.1).collect();
            expected.sort_unstable();
            let found: Vec<usize> = left.iter().copied().filter(|it| offered[*it].0 == kind).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn none_is_kept_where_there_is_no_place() {
    assert!(kept(0, &[(true, 1), (false, 2)]).is_empty());
    assert_eq!(
        kept(1, &[(true, 1), (false, 2), (true, 0)]),
        [1],
        "the one place is for what disagrees"
    );
}

#[test]
fn texts_are_cut_and_nothing_that_a_column_refuses_is_left() {
    let long = "é".repeat(MAX_TEXT);
    let mut pair = pair(answer(&long), answer("a\0b"));
    pair.request = Bytes::from(long);
    pair.candidate.ttft = Some(std::time::Duration::from_millis(3));
    pair.candidate.finish = Some(FinishReason::Stop);
    pair.candidate.revision = Arc::from("v2-k3x9qa");
    let release = WorkOrderId::new();
    let kept = record(release, &pair, &compare(&pair).unwrap(), 9);
    assert_eq!(
        (kept.work_order, kept.draw, kept.unit.as_str()),
        (release, 9, "0000000000000007")
    );
    assert_eq!(kept.request, "é".repeat(MAX_TEXT / 2));
    assert!(kept.live.0.cut && kept.live.0.text.len() == MAX_TEXT);
    let candidate = &kept.candidate.0;
    assert_eq!(
        (candidate.text.as_str(), candidate.cut),
        ("a\u{fffd}b", false)
    );
    assert_eq!(candidate.finish.as_deref(), Some("stop"));
    assert_eq!(
        (candidate.ttft_us, candidate.total_us),
        (Some(3_000), 5_000)
    );
    assert_eq!((kept.agrees, kept.how.as_str()), (false, "tokens"));
}
