#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/helpdesk/models/v2"
    );
    TextTokenizer::from_folder(Path::new(folder)).unwrap()
});

fn token(id: u32) -> SampledToken {
    SampledToken {
        id,
        logprob: f32::NAN,
        top: Vec::new(),
    }
}

/// Everything that comes out for a text cut into its tokens: the text, the ids
/// reported with it, and whether a stop string ended it.
fn run(text: &str, stop: &[&str], include_stop: bool) -> (String, Vec<u32>, bool) {
    let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
    let mut state = Text::new(TextOptions {
        stop,
        include_stop,
        ..TextOptions::default()
    });
    let (mut out, mut ids) = (String::new(), Vec::new());
    let mut take = |state: &mut Text| {
        if let Some((text, tokens)) = state.take_delta() {
            out.push_str(&text);
            ids.extend(tokens.iter().map(|token| token.id));
        }
    };
    let mut stopped = false;
    for id in TOKENIZER.encode(text, false).unwrap() {
        stopped = state.push(&TOKENIZER, token(id));
        take(&mut state);
        if stopped {
            break;
        }
    }
    if !stopped {
        stopped = state.finish();
        take(&mut state);
    }
    (out, ids, stopped)
}

#[test]
fn a_stop_string_that_spans_tokens_does_not_leak() {
    let (text, ids, stopped) = run("The printer is offline today", &["is off"], false);
    assert_eq!((text.as_str(), stopped), ("The printer ", true));
    let reported = TOKENIZER.decode(&ids, false);
    assert!("The printer ".starts_with(&reported), "{reported:?}");
}

#[test]
fn a_stop_string_is_kept_when_asked_for() {
    let (text, _, stopped) = run("one two three", &["two"], true);
    assert_eq!((text.as_str(), stopped), ("one two", true));
}

#[test]
fn held_text_comes_out_at_the_end() {
    let (text, ids, stopped) = run("half a stop: END", &["ENDING"], false);
    assert_eq!((text.as_str(), stopped), ("half a stop: END", false));
    assert_eq!(ids, TOKENIZER.encode("half a stop: END", false).unwrap());
}

#[test]
fn tokens_of_an_unfinished_character_wait_for_it() {
    // Rare characters are several byte tokens each.
    let ids = TOKENIZER.encode("🜁", false).unwrap();
    assert!(
        ids.len() > 1,
        "the test needs a character of several tokens"
    );
    let mut state = Text::new(TextOptions::default());
    for (position, &id) in ids.iter().enumerate() {
        assert!(!state.push(&TOKENIZER, token(id)));
        let last = position + 1 == ids.len();
        let delta = state.take_delta();
        assert_eq!(delta.is_some(), last, "after token {position}");
        if let Some((text, tokens)) = delta {
            assert_eq!((text.as_str(), tokens.len()), ("🜁", ids.len()));
        }
    }
}

proptest! {
    #[test]
    fn text_equals_a_naive_cut(
        text in "[ab 打印é🙂]{0,40}",
        stop in prop::collection::vec("[ab 打🙂]{1,4}", 0..3),
    ) {
        let patterns: Vec<&str> = stop.iter().map(String::as_str).collect();
        let (out, ids, stopped) = run(&text, &patterns, false);
        // The match that is complete first wins, the longest of those.
        let cut = patterns
            .iter()
            .filter_map(|pattern| text.find(pattern).map(|start| (start + pattern.len(), start)))
            .min();
        prop_assert_eq!(stopped, cut.is_some());
        prop_assert_eq!(&out, cut.map_or(text.as_str(), |(_, start)| &text[..start]));
        let reported = TOKENIZER.decode(&ids, false);
        let whole = reported.trim_end_matches(char::REPLACEMENT_CHARACTER);
        prop_assert!(out.starts_with(whole), "{whole:?} is not in {out:?}");
        if !stopped {
            prop_assert_eq!(ids, TOKENIZER.encode(&text, false).unwrap());
        }
    }
}
