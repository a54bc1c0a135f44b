#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::detokenizer::{Detokenizer, DetokenizerOptions};
use super::stop::{StopOutcome, StopStrings};
use super::*;
use crate::testing::{all_kinds, byte_fallback, byte_level, metaspace, word_piece};

/// Streams `ids`; checks that every delta stands on its own.
fn stream(tokenizer: &TextTokenizer, ids: &[u32], options: DetokenizerOptions) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(options);
    let mut deltas = Vec::new();
    for &id in ids {
        let mut delta = String::new();
        detokenizer.push(tokenizer, id, &mut delta);
        deltas.push(delta);
    }
    let mut rest = String::new();
    detokenizer.finish(&mut rest);
    deltas.push(rest);
    deltas
}

/// Hugging Face's own decoding.
fn reference(tokenizer: &TextTokenizer, ids: &[u32], skip_special: bool) -> String {
    tokenizer.inner.decode(ids, skip_special).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn deltas_concatenate_to_the_reference(raw in prop::collection::vec(any::<u32>(), 0..40),
                                           skip_special in any::<bool>()) {
        for (kind, tokenizer) in kinds() {
            let size = u32::try_from(tokenizer.vocab_size()).unwrap();
            let ids: Vec<u32> = raw.iter().map(|id| id % size).collect();
            let options = DetokenizerOptions { skip_special, ..DetokenizerOptions::default() };
            let text = stream(tokenizer, &ids, options).concat();
            prop_assert_eq!(&text, &tokenizer.decode(&ids, skip_special));
            let expected = reference(tokenizer, &ids, skip_special);
            // Byte fallback in Hugging Face's crate turns a whole run of bytes into
            // U+FFFD when any of them is wrong, which no stream can know.
            if *kind != "byte fallback" || !expected.contains(char::REPLACEMENT_CHARACTER) {
                prop_assert_eq!(text, expected, "{}", kind);
            }
        }
    }

    #[test]
    fn valid_text_streams_without_replacement(text in "[a-zé你好😀 ]{0,24}") {
        for tokenizer in [&byte_level(), &byte_fallback()] {
            let ids = tokenizer.encode(&text, false).unwrap();
            let deltas = stream(tokenizer, &ids, DetokenizerOptions::default());
            prop_assert!(deltas.iter().all(|d| !d.contains('\u{FFFD}')), "{:?}", deltas);
            prop_assert_eq!(deltas.concat(), text.clone());
        }
    }

    #[test]
    fn stop_strings_do_not_depend_on_the_cuts(
        text in "[abc]{0,20}",
        cuts in prop::collection::vec(0usize..4, 0..20),
        patterns in prop::collection::vec("[abc]{1,4}", 0..4),
    ) {
        let mut stops = StopStrings::new(&patterns);
        let (mut delivered, mut stopped, mut rest) = (String::new(), None, text.as_str());
        let mut cuts = cuts.into_iter();
        while !rest.is_empty() && stopped.is_none() {
            let cut = cuts.next().unwrap_or(1).min(rest.len());
            let piece;
            (piece, rest) = rest.split_at(cut);
            match stops.push(piece) {
                StopOutcome::Continue(text) => delivered.push_str(&text),
                StopOutcome::Stopped { text, stop } => {
                    delivered.push_str(&text);
                    stopped = Some(stop);
                }
            }
        }
        if stopped.is_none() {
            delivered.push_str(&stops.finish());
        }
        let (expected, stop) = naive_stop(&text, &patterns);
        prop_assert_eq!(delivered, expected);
        prop_assert_eq!(stopped, stop);
    }

    #[test]
    fn nothing_is_held_that_cannot_be_a_stop_string(text in "[ab<|]{0,12}") {
        let patterns = ["<|end|>".to_owned(), "ab|".to_owned()];
        let mut stops = StopStrings::new(&patterns);
        if let StopOutcome::Continue(_) = stops.push(&text) {
            let held = &text[text.len() - stops.held()..];
            prop_assert!(held.is_empty() || patterns.iter().any(|p| p.starts_with(held)));
        }
    }
}

/// Built once: a proptest case should not build tokenizers.
fn kinds() -> &'static [(&'static str, TextTokenizer)] {
    static KINDS: std::sync::OnceLock<[(&'static str, TextTokenizer); 4]> =
        std::sync::OnceLock::new();
    KINDS.get_or_init(all_kinds)
}

/// Looks at every beginning of the text, shortest first.
fn naive_stop(text: &str, patterns: &[String]) -> (String, Option<String>) {
    for end in 0..=text.len() {
        let mut matches: Vec<&String> = patterns
            .iter()
            .filter(|p| text[..end].ends_with(*p))
            .collect();
        matches.sort_by_key(|p| p.len());
        if let Some(stop) = matches.last() {
            return (text[..end - stop.len()].to_owned(), Some((*stop).clone()));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn bytes_of_tokens_are_exact() {
    let tokenizer = byte_level();
    for byte in 0..=255u32 {
        assert_eq!(tokenizer.token_bytes(byte), [u8::try_from(byte).unwrap()]);
    }
    let fallback = byte_fallback();
    let id = fallback.token_id("<0xE4>").unwrap();
    assert_eq!(fallback.token_bytes(id), [0xE4]);
    assert_eq!(fallback.token_text(id), "\u{FFFD}");
    let id = fallback.token_id("▁the").unwrap();
    assert_eq!(fallback.token_bytes(id), b" the");
    let words = word_piece();
    assert_eq!(words.token_bytes(words.token_id("##s").unwrap()), b"s");
    assert_eq!(words.token_bytes(words.token_id("cat").unwrap()), b" cat");
    assert_eq!(words.token_bytes(9_999), b"");
}

#[test]
fn an_unfinished_character_waits_and_becomes_one_replacement_at_the_end() {
    let tokenizer = byte_level();
    let deltas = stream(
        &tokenizer,
        &[0xF0, 0x9F, 0x98],
        DetokenizerOptions::default(),
    );
    assert_eq!(deltas, ["", "", "", "\u{FFFD}"]);
    let deltas = stream(
        &tokenizer,
        &[0xF0, 0x9F, 0x98, 0x80],
        DetokenizerOptions::default(),
    );
    assert_eq!(deltas, ["", "", "", "😀", ""]);
    let deltas = stream(&tokenizer, &[0xE4, 0x41], DetokenizerOptions::default());
    assert_eq!(deltas, ["", "\u{FFFD}A", ""]);
}

#[test]
fn a_continuation_keeps_its_leading_space() {
    for tokenizer in [byte_fallback(), metaspace()] {
        let ids = [tokenizer.token_id("▁cat").unwrap()];
        assert_eq!(tokenizer.decode(&ids, true), "cat");
        let options = DetokenizerOptions {
            continuation: true,
            ..DetokenizerOptions::default()
        };
        assert_eq!(stream(&tokenizer, &ids, options).concat(), " cat");
    }
}

#[test]
fn special_tokens_are_skipped_unless_kept() {
    let tokenizer = byte_level();
    let start = tokenizer.token_id("<|im_start|>").unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    let ids = [start, u32::from(b'a'), end];
    assert_eq!(tokenizer.decode(&ids, true), "a");
    assert_eq!(tokenizer.decode(&ids, false), "<|im_start|>a<|im_end|>");
    let options = DetokenizerOptions {
        skip_special: true,
        keep: Arc::new(HashSet::from([start])),
        continuation: false,
    };
    assert_eq!(stream(&tokenizer, &ids, options).concat(), "<|im_start|>a");
}

#[test]
fn special_tokens_in_text_become_ids_and_post_processing_is_optional() {
    let tokenizer = byte_level();
    let ids = tokenizer.encode("<|im_start|>x", true).unwrap();
    assert_eq!(
        ids,
        [tokenizer.token_id("<|im_start|>").unwrap(), u32::from(b'x')]
    );
    let words = word_piece();
    assert_eq!(words.encode("the cats", true).unwrap(), [2, 4, 5, 6, 3]);
    assert_eq!(words.encode("the cats", false).unwrap(), [4, 5, 6]);
}

#[test]
fn too_long_a_text_is_refused_without_tokenising_it() {
    let tokenizer = byte_level();
    let huge = "a".repeat(tokenizer.max_bytes(8) + 1);
    let error = tokenizer.encode_bounded(&huge, false, 8).unwrap_err();
    assert!(matches!(error, TokenizeError::TooLong { at_least, limit: 8 } if at_least >= 8));
    let error = tokenizer.encode_bounded("123456789", false, 8).unwrap_err();
    assert_eq!(
        error,
        TokenizeError::TooLong {
            at_least: 9,
            limit: 8
        }
    );
    assert_eq!(
        tokenizer
            .encode_bounded("12345678", false, 8)
            .unwrap()
            .len(),
        8
    );
}

#[test]
fn end_tokens_are_gathered_from_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    byte_level()
        .inner
        .save(dir.path().join("tokenizer.json"), false)
        .unwrap();
    write("generation_config.json", r#"{"eos_token_id": [7, 5]}"#);
    write("genai_config.json", r#"{"model": {"eos_token_id": 7}}"#);
    write(
        "config.json",
        r#"{"eos_token_id": 9, "text_config": {"eos_token_id": 5}}"#,
    );
    write(
        "tokenizer_config.json",
        r#"{"eos_token": {"content": "<|im_end|>"}, "bos_token": null, "pad_token": "<|endoftext|>"}"#,
    );
    write(
        "special_tokens_map.json",
        r#"{"bos_token": "<|im_start|>", "eos_token": "x"}"#,
    );
    let tokenizer = TextTokenizer::from_folder(dir.path()).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.eos(), [7, 5, 9, end]);
    assert_eq!(tokenizer.bos(), tokenizer.token_id("<|im_start|>"));
    let special = tokenizer.special_tokens();
    assert_eq!(special.others["pad_token"], "<|endoftext|>");

    write("generation_config.json", "{");
    let error = TextTokenizer::from_folder(dir.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("generation_config.json"), "{error}");
}

#[test]
fn a_decoder_that_cannot_be_streamed_is_named() {
    let mut inner = byte_level().inner;
    inner.with_decoder(Some(tokenizers::decoders::ctc::CTC::default()));
    let error = TextTokenizer::new(inner, &TokenizerFiles::default()).unwrap_err();
    assert!(error.contains("CTC"), "{error}");
}
