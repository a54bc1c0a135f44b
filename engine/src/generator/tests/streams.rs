//! What clients get.

use std::sync::Arc;

use super::*;
use crate::grammar::{GrammarCompiler, GrammarSpec};
use crate::request::FinishReason;
use crate::tokenizer::TextTokenizer;

#[tokio::test]
async fn one_sequence_is_what_the_model_says() {
    let (handle, _) = start(&model(), options());
    let got = collect(handle.submit(request(&[1, 2, 3], 20)).unwrap()).await;
    assert_eq!(got.ids(), alone(&model(), &[1, 2, 3], 20));
    let end = got.end.unwrap();
    assert_eq!(end.reason, FinishReason::Length);
    assert_eq!((end.usage.prompt, end.usage.completion), (3, 20));
    assert_eq!(got.prompt, None);
}

#[tokio::test]
async fn sixty_four_at_once_are_never_mixed_up() {
    let (handle, control) = start(&model(), options());
    let prompts: Vec<Vec<u32>> = (0..64u32)
        .map(|i| {
            // Half of them share a long prefix.
            let shared = (i % 2) * 100;
            let own = (0..1 + i * 3).map(|j| (i * 31 + j) % 256);
            (0..shared).chain(own).collect()
        })
        .collect();
    let tasks: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(i, prompt)| tokio::spawn(collect(handle.submit(request(prompt, 5 + i)).unwrap())))
        .collect();
    for (i, (task, prompt)) in tasks.into_iter().zip(&prompts).enumerate() {
        let got = task.await.unwrap();
        assert_eq!(got.ids(), alone(&model(), prompt, 5 + i), "sequence {i}");
    }
    let stats = handle.stats().snapshot();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_tokens_used),
        (0, 0, 0)
    );
    assert_eq!(stats.finished_length, 64);
    assert_eq!(stats.generated_tokens, (0..64).map(|i| 5 + i).sum::<u64>());
    assert!(stats.prefix_hits > 0 && stats.prefix_hits < stats.prefix_queries);
    assert_eq!(stats.batch_sizes.iter().sum::<u64>(), stats.steps);
    assert!(control.most_rows() > 1, "they were batched");
}

#[tokio::test]
async fn a_script_ends_with_its_end_token_which_is_not_published() {
    let fake = FakeOptions {
        tokens: FakeTokens::text("hello", EOS),
        ..model()
    };
    let (handle, _) = start(&fake, options());
    let got = collect(handle.submit(request(&[200, 201], 50)).unwrap()).await;
    assert_eq!(got.ids(), b"hello".map(u32::from));
    let end = got.end.unwrap();
    assert_eq!(end.reason, FinishReason::Stop);
    assert_eq!(end.usage.completion, 6, "the end token is counted");
}

#[tokio::test]
async fn end_of_sequence_can_be_ignored_and_other_tokens_can_end() {
    let fake = FakeOptions {
        tokens: FakeTokens::text("abc", EOS),
        ..model()
    };
    let (handle, _) = start(&fake, options());
    let mut ignoring = request(&[200], 8);
    ignoring.params.ignore_eos = true;
    let got = collect(handle.submit(ignoring).unwrap()).await;
    assert_eq!(got.tokens.len(), 8);
    assert_eq!(got.end.unwrap().reason, FinishReason::Length);

    let mut stopping = request(&[200], 8);
    stopping.params.stop_token_ids = Arc::from([u32::from(b'c')]);
    let got = collect(handle.submit(stopping).unwrap()).await;
    assert_eq!(got.ids(), b"ab".map(u32::from));
    assert_eq!(got.end.unwrap().reason, FinishReason::Stop);
}

#[tokio::test]
async fn end_of_sequence_waits_for_min_tokens() {
    let fake = FakeOptions {
        tokens: FakeTokens::text("ab", EOS),
        ..model()
    };
    let (handle, _) = start(&fake, options());
    let mut long = request(&[200], 8);
    long.params.min_tokens = 5;
    let got = collect(handle.submit(long).unwrap()).await;
    assert!(got.tokens.len() >= 5, "{:?}", got.ids());
    assert!(!got.ids().contains(&EOS));
}

#[tokio::test]
async fn the_context_bounds_the_answer() {
    let fake = FakeOptions {
        capacity: 32,
        ..model()
    };
    let (handle, _) = start(&fake, options());
    let got = collect(handle.submit(request(&[1; 20], 1000)).unwrap()).await;
    assert_eq!(got.ids(), alone(&fake, &[1; 20], 12));
    assert_eq!(got.end.unwrap().reason, FinishReason::Length);
    // The slot was full to the brim; what is reused of it is right.
    let got = collect(handle.submit(request(&[1; 20], 1000)).unwrap()).await;
    assert_eq!(got.ids(), alone(&fake, &[1; 20], 12));
}

#[tokio::test]
async fn a_prompt_is_scored_without_generating() {
    let mut small = options();
    // Room for the logits of 8 tokens a step, so the prompt takes several.
    small.logits_bytes = 8 * 256 * 4;
    let (handle, control) = start(&model(), small);
    let prompt: Vec<u32> = (1..=50).collect();
    let mut scoring = request(&prompt, 0);
    scoring.params.prompt_logprobs = Some(2);
    for round in 0..2 {
        let got = collect(handle.submit(scoring.clone()).unwrap()).await;
        let scored = got.prompt.unwrap();
        assert_eq!(scored.len(), 50);
        assert_eq!(scored[0], None);
        for (at, token) in scored.iter().enumerate().skip(1) {
            let token = token.as_ref().unwrap();
            assert_eq!(token.id, prompt[at]);
            assert!(token.logprob < 0.0);
            let likeliest = next_token(&model().tokens, 256, &prompt[..at]);
            assert_eq!(token.top[0].0, likeliest, "position {at}");
        }
        let end = got.end.unwrap();
        assert_eq!(end.reason, FinishReason::Length);
        assert_eq!(
            (end.usage.completion, end.usage.cached),
            (0, 0),
            "round {round}"
        );
    }
    assert!(control.most_new_tokens() <= 8);
}

#[tokio::test]
async fn prompt_logprobs_come_before_the_tokens() {
    let (handle, _) = start(&model(), options());
    let mut both = request(&[1, 2, 3], 4);
    both.params.prompt_logprobs = Some(0);
    both.params.logprobs = Some(1);
    let got = collect(handle.submit(both).unwrap()).await;
    assert_eq!(got.prompt.as_ref().unwrap().len(), 3);
    assert_eq!(got.ids(), alone(&model(), &[1, 2, 3], 4));
    for token in &got.tokens {
        assert_eq!(token.top.len(), 1);
        assert!(token.logprob <= 0.0 && token.logprob.is_finite());
    }
}

#[tokio::test]
async fn samples_of_one_prompt_share_its_prefill() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let prompt: Vec<u32> = (1..=200).collect();
    let all: Vec<_> = (0..4)
        .map(|_| handle.submit(request(&prompt, 3)).unwrap())
        .collect();
    control.release();
    let mut cached = 0;
    for generation in all {
        let got = collect(generation).await;
        assert_eq!(got.ids(), alone(&model(), &prompt, 3));
        cached += got.end.unwrap().usage.cached;
    }
    assert_eq!(cached, 3 * 199);
}

#[tokio::test]
async fn timings_add_up() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let before = std::time::Instant::now();
    let generation = handle.submit(request(&[1, 2], 5)).unwrap();
    control.release();
    let got = collect(generation).await;
    let timings = got.end.unwrap().timings;
    assert!(timings.queue + timings.prefill + timings.decode <= before.elapsed());
    assert!(timings.prefill > std::time::Duration::ZERO);
}

#[tokio::test]
async fn a_grammar_holds_with_any_weights_and_ends_the_sequence() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/helpdesk/models/v1"
    );
    let tokenizer = TextTokenizer::from_folder(folder.as_ref()).unwrap();
    let compiler = GrammarCompiler::new(&tokenizer).unwrap();
    let choices = ["printer is broken", "password reset", "vpn"];
    let spec = GrammarSpec::Choice(choices.map(str::to_owned).to_vec());
    let vocab = tokenizer.vocab_size() as u32;
    let fake = FakeOptions {
        vocab,
        tokens: FakeTokens::Hash {
            low: 0,
            high: vocab,
        },
        ..model()
    };
    let mut with_eos = options();
    with_eos.eos = tokenizer.eos().to_vec();
    let (handle, _) = start(&fake, with_eos);
    for salt in 0..8 {
        let mut constrained = request(&[10 + salt, 20], 100);
        constrained.grammar = Some(compiler.compile(&spec).unwrap());
        let got = collect(handle.submit(constrained).unwrap()).await;
        let text = tokenizer.decode(&got.ids(), true);
        assert!(choices.contains(&text.as_str()), "{text:?}");
        assert_eq!(got.end.unwrap().reason, FinishReason::Stop);
    }
}

#[tokio::test]
async fn a_stop_token_within_a_grammar_ends_nothing_before_the_least_number_of_tokens() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/helpdesk/models/v1"
    );
    let tokenizer = TextTokenizer::from_folder(folder.as_ref()).unwrap();
    let compiler = GrammarCompiler::new(&tokenizer).unwrap();
    let text = "{\"a\": 1}";
    let grammar = compiler
        .compile(&GrammarSpec::Choice(vec![text.to_owned()]))
        .unwrap();
    let vocab = tokenizer.vocab_size() as u32;
    let fake = FakeOptions {
        vocab,
        tokens: FakeTokens::Hash {
            low: 0,
            high: vocab,
        },
        ..model()
    };
    let mut with_eos = options();
    with_eos.eos = tokenizer.eos().to_vec();
    let (handle, _) = start(&fake, with_eos);
    let mut constrained = request(&[10, 20], 100);
    constrained.grammar = Some(grammar);
    constrained.params.min_tokens = 60;
    // Every token is a stop token, so that the grammar has no other.
    constrained.params.stop_token_ids = (0..vocab).collect();
    let got = collect(handle.submit(constrained).unwrap()).await;
    assert_eq!(tokenizer.decode(&got.ids(), true), text);
    assert_eq!(got.end.unwrap().reason, FinishReason::Stop);
}
