#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;

use super::spelling::{Word, joins_before};
use super::*;
use crate::testing::byte_level_with;

/// Tokens beside the bytes.
const PIECES: [&str; 14] = [
    "vp", "pn", "vpn", " vpn", "xvpn", "\"v", "vpn\"", "vpns", "the", " he", "he", "pn!", "n\"",
    "密码",
];
const END: &str = "<|vpn|>";

fn tokenizer() -> Arc<TextTokenizer> {
    Arc::new(byte_level_with(&PIECES, END))
}

fn id(tokenizer: &TextTokenizer, text: &str) -> u32 {
    let ids = 0..u32::try_from(tokenizer.vocab_size()).unwrap();
    ids.rev()
        .find(|&id| tokenizer.token_bytes(id) == text.as_bytes())
        .unwrap()
}

fn restricted(bad_words: &[&str], allowed: Option<&[u32]>) -> (Arc<TextTokenizer>, Restricted) {
    let tokenizer = tokenizer();
    let bad_words: Vec<String> = bad_words.iter().map(|word| (*word).to_owned()).collect();
    let spec = RestrictionSpec {
        allowed,
        bad_words: &bad_words,
    };
    let restriction = Restriction::new(&tokenizer, tokenizer.vocab_size(), spec).unwrap();
    (tokenizer, Arc::new(restriction).begin(&[]))
}

/// Whether `next` may follow the tokens of `before`.
fn may_follow(bad_word: &str, before: &[&str], next: &str) -> bool {
    let (tokenizer, mut state) = restricted(&[bad_word], None);
    for piece in before {
        state.observe(id(&tokenizer, piece));
    }
    assert!(state.compute(None));
    is_set(state.mask(), id(&tokenizer, next))
}

#[test]
fn a_word_is_kept_out_in_each_of_its_spellings() {
    for (before, next) in [
        (vec![], "vpn"),
        (vec![], " vpn"),
        (vec!["x"], "vpn"),
        (vec!["v"], "pn"),
        (vec!["vp"], "n"),
        (vec!["v", "p"], "n"),
        (vec!["\"v"], "pn"),
        (vec!["\"v", "p"], "n\""),
        (vec!["a", " ", "v"], "pn!"),
        (vec![], "vpn\""),
    ] {
        assert!(!may_follow("vpn", &before, next), "{before:?} {next:?}");
        assert!(!may_follow(" vpn", &before, next), "{before:?} {next:?}");
    }
}

#[test]
fn what_only_holds_the_word_may_be_written() {
    for (word, before, next) in [
        ("vpn", vec![], "xvpn"),
        ("vpn", vec![], "vpns"),
        ("vpn", vec!["v"], "p"),
        ("vpn", vec!["p"], "n"),
        ("he", vec![], "the"),
        ("he", vec!["t"], "h"),
        ("vpn", vec![], END),
    ] {
        assert!(
            may_follow(word, &before, next),
            "{word} {before:?} {next:?}"
        );
    }
    // The token that is written like the word is that word itself.
    assert!(!may_follow("he", &["t"], "he"));
    assert!(!may_follow(END, &[], END));
}

#[test]
fn scripts_without_spaces_have_no_words_inside_words() {
    assert!(!may_follow("码", &[], "密码"));
    assert!(!joins_before("密".as_bytes()) && !joins_before(&"é".as_bytes()[..1]));
    assert!(joins_before("é".as_bytes()) && joins_before(b"1") && !joins_before(b" "));
}

#[test]
fn only_what_is_allowed_is_left_and_the_grammar_decides_on_the_end() {
    let (tokenizer, mut state) = restricted(&["he"], Some(&[104, 101]));
    assert!(state.compute(None));
    let allowed = |state: &Restricted| -> Vec<u32> {
        let ids = 0..u32::try_from(tokenizer.vocab_size()).unwrap();
        ids.filter(|&id| is_set(state.mask(), id)).collect()
    };
    assert_eq!(allowed(&state), [101, 104]);
    state.observe(104);
    state.compute(None);
    assert_eq!(allowed(&state), [104]);
    state.eos = vec![97];
    let mut grammar = vec![0; 4];
    [97, 98].iter().for_each(|&id| set(&mut grammar, id, true));
    assert!(state.compute(Some(&grammar)));
    assert_eq!(allowed(&state), [97], "an end that the grammar allows");
    set(&mut grammar, 97, false);
    assert!(!state.compute(Some(&grammar)));
}

#[test]
fn what_cannot_be_held_is_named() {
    let tokenizer = tokenizer();
    let refused = |allowed: Option<&[u32]>, bad_words: &[&str]| {
        let bad_words: Vec<String> = bad_words.iter().map(|word| (*word).to_owned()).collect();
        let spec = RestrictionSpec {
            allowed,
            bad_words: &bad_words,
        };
        Restriction::new(&tokenizer, 64, spec).unwrap_err().param
    };
    assert_eq!(refused(Some(&[1, 64]), &[]), "allowed_token_ids[1]");
    assert_eq!(refused(None, &["a", " "]), "bad_words[1]");
    assert_eq!(refused(Some(&[33]), &["!"]), "bad_words");
    let all = all(33);
    assert!(is_set(&all, 32) && !is_set(&all, 33));
}

/// The rule in other words: does a word end within the last token, and begin where it counts?
fn writes(words: &[Word], tokens: &[Vec<u8>]) -> bool {
    let text = tokens.concat();
    let last = text.len() - tokens.last().map_or(0, Vec::len);
    let begins: Vec<usize> = tokens
        .iter()
        .scan(0, |at, token| {
            *at += token.len();
            Some(*at - token.len())
        })
        .collect();
    let joins_next = |at: usize| {
        let rest = String::from_utf8_lossy(&text[at..]).into_owned();
        rest.chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == 'é')
    };
    words.iter().any(|word| {
        (0..text.len()).any(|from| {
            let end = from + word.text.len();
            text[from..].starts_with(&word.text)
                && end > last
                && (begins.contains(&from) || !word.bounded.0 || !joins_before(&text[..from]))
                && (end == text.len() || !word.bounded.1 || !joins_next(end))
        })
    })
}

proptest! {
    #[test]
    fn the_mask_is_the_rule(
        bad in prop::collection::vec("[ehnpv!\" é密]{1,4}", 1..4),
        walk in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        prop_assume!(bad.iter().all(|word| !word.trim().is_empty()));
        let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
        let (tokenizer, mut state) = restricted(&bad, None);
        let words = state.restriction.words.clone();
        let pieces: Vec<u32> = "ehnpv!\" x".chars().map(|c| c.to_string())
            .chain(PIECES.iter().map(|&piece| piece.to_owned()))
            .map(|piece| id(&tokenizer, &piece))
            .collect();
        let mut written: Vec<Vec<u8>> = Vec::new();
        for step in walk {
            prop_assert!(state.compute(None));
            for &piece in &pieces {
                written.push(tokenizer.token_bytes(piece));
                prop_assert_eq!(is_set(state.mask(), piece), !writes(&words, &written), "{:?}", written);
                written.pop();
            }
            let open: Vec<u32> = pieces.iter().copied().filter(|&id| is_set(state.mask(), id)).collect();
            prop_assume!(!open.is_empty());
            let next = *step.get(&open);
            state.observe(next);
            written.push(tokenizer.token_bytes(next));
        }
    }
}
