#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn text(max_tokens: usize) -> EncoderText {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-encoder");
    let tokenizer = Arc::new(TextTokenizer::from_folder(&dir).unwrap());
    EncoderText::new(tokenizer, max_tokens).unwrap()
}

const CLS: u32 = 2;
const SEP: u32 = 3;
const ALPHA: u32 = 4;
const BETA: u32 = 5;

#[test]
fn cutting_keeps_the_special_tokens() {
    let text = text(4);
    let encoded = text.tokenize("alpha beta alpha beta", true).unwrap();
    assert_eq!(encoded.ids, [CLS, ALPHA, BETA, ALPHA, BETA, SEP]);
    let refused = text.fit(encoded.clone(), false);
    let too_long = SubmitError::TooLong {
        prompt: 6,
        requested: 6,
        limit: 4,
    };
    assert_eq!(refused, Err(too_long));
    assert_eq!(
        text.fit(encoded, true).unwrap().ids,
        [CLS, ALPHA, BETA, SEP]
    );
    // A client's own ids need not end in a special token.
    let ids = text.check_ids(vec![ALPHA; 9]).unwrap();
    assert_eq!(text.fit(ids, true).unwrap().ids, [ALPHA; 4]);
}

#[test]
fn pairs_are_what_the_post_processor_makes_of_them() {
    let text = text(24);
    let (ids, types) = text.tokenizer().encode_pair("alpha", "beta beta").unwrap();
    let pair = text.pair(&[ALPHA], &[BETA, BETA], false).unwrap();
    assert_eq!(pair.ids, ids);
    let runs: Vec<u32> = pair
        .types
        .iter()
        .flat_map(|&(kind, tokens)| std::iter::repeat_n(kind, tokens))
        .collect();
    assert_eq!(runs, types);
}

#[test]
fn unknown_and_missing_ids_are_refused() {
    let text = text(24);
    for ids in [vec![], vec![ALPHA, 1000]] {
        let refused = text.check_ids(ids).unwrap_err();
        assert!(matches!(
            refused,
            SubmitError::Invalid { param: "input", .. }
        ));
    }
}

#[test]
fn a_maximum_without_room_for_text_is_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-encoder");
    let tokenizer = Arc::new(TextTokenizer::from_folder(&dir).unwrap());
    assert!(EncoderText::new(tokenizer, 2).is_err());
}

proptest! {
    #[test]
    fn shares_fill_the_room_and_cut_the_longer_text(
        first in 0usize..100,
        second in 0usize..100,
        room in 0usize..150,
    ) {
        let (a, b) = shares(first, second, room);
        prop_assert!(a <= first && b <= second);
        prop_assert_eq!(a + b, room.min(first + second));
        if a < first {
            prop_assert!(a + 1 >= b, "the second could have been cut");
        }
        if b < second {
            prop_assert!(b + 1 >= a, "the first could have been cut");
        }
    }
}
