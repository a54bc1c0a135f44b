#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::testing::byte_level;

fn tokenizer() -> &'static Arc<TextTokenizer> {
    static TOKENIZER: OnceLock<Arc<TextTokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| Arc::new(byte_level()))
}

fn token(id: u32) -> SampledToken {
    SampledToken {
        id,
        logprob: -1.0,
        top: Vec::new(),
    }
}

/// All pieces, and whether a stop string was met.
fn assemble(ids: &[u32], options: &TextOptions) -> (Vec<TextPiece>, bool) {
    let mut assembler = TextAssembler::new(Arc::clone(tokenizer()), options);
    let mut pieces: Vec<TextPiece> = ids.iter().map(|&id| assembler.push(token(id))).collect();
    pieces.push(assembler.finish());
    (pieces, assembler.stopped())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn tokens_and_text_stay_together(
        ids in prop::collection::vec(prop_oneof![
            0u32..290, Just(0xE4), Just(0xBD), Just(0xA0), 0x61u32..0x64], 0..30),
        stop in prop::collection::vec("[abc你]{1,3}", 0..3),
        include_stop in any::<bool>(),
    ) {
        let tokenizer = tokenizer();
        let ids: Vec<u32> =
            ids.into_iter().filter(|&id| (id as usize) < tokenizer.vocab_size()).collect();
        let options = TextOptions { stop: stop.clone(), skip_special: true, include_stop, min_tokens: 0 };
        let (pieces, stopped) = assemble(&ids, &options);
        let whole = tokenizer.decode(&ids, true);
        let text: String = pieces.iter().map(|p| p.text.as_str()).collect();
        prop_assert!(whole.starts_with(&text));
        prop_assert_eq!(stopped, stop.iter().any(|s| whole.contains(s)));
        if !stopped {
            prop_assert_eq!(&text, &whole);
        } else if !include_stop {
            prop_assert!(stop.iter().all(|s| !text.contains(s)));
        }
        // The tokens delivered are a beginning of all tokens, and cover the text.
        let delivered: Vec<u32> = pieces.iter().flat_map(|p| &p.tokens).map(|t| t.id).collect();
        prop_assert!(ids.starts_with(&delivered));
        prop_assert!(stopped || delivered.len() == ids.len());
        let covered = tokenizer.decode(&delivered, true);
        let whole_characters = |text: &str| text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        prop_assert!(whole_characters(&covered) >= whole_characters(&text));
        // At any moment no token is ahead of the text.
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for piece in &pieces {
            text.push_str(&piece.text);
            tokens.extend(piece.tokens.iter().map(|t| t.id));
            let covered = tokenizer.decode(&tokens, true);
            prop_assert!(stopped || covered.len() <= text.len(), "{:?} {:?}", covered, text);
        }
    }
}

#[test]
fn a_token_that_reaches_into_the_stop_string_is_reported_with_its_text() {
    let the = tokenizer().token_id("Ġthe").unwrap();
    let a = u32::from(b'a');
    let options = TextOptions {
        stop: vec!["he".to_owned()],
        ..TextOptions::default()
    };
    let (pieces, stopped) = assemble(&[a, the, a], &options);
    assert!(stopped);
    assert_eq!(pieces[0].text, "a");
    assert_eq!(pieces[1].text, " t");
    assert_eq!(pieces[1].tokens, [token(the)]);
    assert_eq!(pieces[2], TextPiece::default());
}

#[test]
fn bytes_of_a_stop_string_are_not_reported_before_it_is_known() {
    let options = TextOptions {
        stop: vec!["你".to_owned()],
        ..TextOptions::default()
    };
    let (pieces, stopped) = assemble(&[0x61, 0xE4, 0xBD, 0xA0], &options);
    assert!(stopped);
    let tokens: Vec<u32> = pieces
        .iter()
        .flat_map(|p| &p.tokens)
        .map(|t| t.id)
        .collect();
    assert_eq!(tokens, [0x61]);
}

#[test]
fn a_stop_string_ends_nothing_before_the_least_number_of_tokens() {
    let bytes = |text: &str| -> Vec<u32> { text.bytes().map(u32::from).collect() };
    let text_of = |text: &str, stop: &[&str], min_tokens: usize| {
        let options = TextOptions {
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            min_tokens,
            ..TextOptions::default()
        };
        let (pieces, stopped) = assemble(&bytes(text), &options);
        let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        (text, stopped)
    };
    let got = |text: &str, stopped| (text.to_owned(), stopped);
    assert_eq!(text_of("abcabc", &["c"], 0), got("ab", true));
    assert_eq!(text_of("abcabc", &["c"], 2), got("ab", true));
    assert_eq!(text_of("abcabc", &["c"], 3), got("abcab", true));
    assert_eq!(text_of("abcabc", &["c"], 6), got("abcabc", false));
    // One that begins among them and ends behind them ends the text.
    assert_eq!(text_of("abcabc", &["bca"], 3), got("a", true));
    // One that is within another that is held back has passed.
    assert_eq!(text_of("abcabd", &["ab", "abcx"], 3), got("abc", true));
}
