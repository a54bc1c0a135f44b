#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use sluice_gateway::endpoint::{Kind, Protocol, Tensor};

use super::*;

pub(crate) fn answer(text: &str) -> ShadowAnswer {
    ShadowAnswer {
        revision: Arc::from("v1-abcdef"),
        status: 200,
        class: Class::Answered,
        text: text.to_owned(),
        whole: true,
        output_tokens: 0,
        finish: None,
        ttft: None,
        total: Duration::from_millis(5),
    }
}

pub(crate) fn pair(live: ShadowAnswer, candidate: ShadowAnswer) -> ShadowPair {
    ShadowPair {
        release: Arc::from("wo_0"),
        deployment: Arc::from("helpdesk"),
        request_id: Arc::from("req-1"),
        unit: 7,
        kind: Kind::Model(Protocol::Chat),
        ended: SystemTime::UNIX_EPOCH,
        request: Bytes::from_static(b"{\"messages\":[]}"),
        greedy: false,
        live,
        candidate,
    }
}

fn sampled(live: &str, candidate: &str) -> Agreement {
    compare(&pair(answer(live), answer(candidate))).unwrap()
}

fn greedy(live: &str, candidate: &str) -> Agreement {
    let pair = ShadowPair {
        greedy: true,
        ..pair(answer(live), answer(candidate))
    };
    compare(&pair).unwrap()
}

fn numbers(live: &serde_json::Value, candidate: &serde_json::Value) -> Agreement {
    let pair = ShadowPair {
        kind: Kind::Model(Protocol::Embeddings),
        ..pair(answer(&live.to_string()), answer(&candidate.to_string()))
    };
    compare(&pair).unwrap()
}

#[test]
fn at_temperature_zero_texts_are_equal_or_they_disagree() {
    for (live, candidate, how) in [
        ("Restart the router.", " Restart the router.\n", "exact"),
        ("caf\u{e9}", "cafe\u{301}", "exact"),
        ("", "  ", "exact"),
        (r#"{"a": 1, "b": [2.0]}"#, r#"{"b":[2],"a":1}"#, "json"),
        (
            r#"weather({"city": "Oslo"})"#,
            r#"weather({"city":"Oslo"})"#,
            "json",
        ),
        ("a({\"x\": 1})\nb.c([])", "a({\"x\":1})\nb.c([ ])", "json"),
    ] {
        let found = greedy(live, candidate);
        assert_eq!(
            (found.agrees, found.similarity, found.how),
            (true, 1.0, how),
            "{candidate}"
        );
    }
    for (live, candidate) in [
        ("The fee is 10 euros.", "The fee is 90 euros."),
        (r#"{"a": 1}"#, r#"{"a": "1"}"#),
        (r#"{"a": [1, 2]}"#, r#"{"a": [2, 1]}"#),
        (
            r#"weather({"city": "Oslo"})"#,
            r#"forecast({"city": "Oslo"})"#,
        ),
        (
            r#"weather({"city": "Oslo"})"#,
            r#"weather({"city": "Oslo"}"#,
        ),
        ("Yes.", "yes."),
    ] {
        let found = greedy(live, candidate);
        assert_eq!((found.agrees, found.how), (false, "tokens"), "{candidate}");
        assert!(greedy(candidate, live) == found, "{candidate}");
    }
    assert!(greedy("The fee is 10 euros.", "The fee is 90 euros.").similarity > 0.6);
}

#[test]
fn sampled_texts_agree_when_they_share_words_and_their_order() {
    for (live, candidate) in [
        (
            "To reset your password, open the portal and choose Forgot password.",
            "Open the portal, choose \"Forgot password\" and follow the steps to reset your password.",
        ),
        (
            "请打开门户网站，点击忘记密码，然后按照提示重置。",
            "打开门户，选择忘记密码并按提示重置即可。",
        ),
        (
            "ログイン画面でパスワードを再設定してください。",
            "パスワードをログイン画面から再設定してください。",
        ),
        (
            "비밀번호를 재설정하려면 포털을 여세요",
            "포털을 열어 비밀번호를 재설정하세요",
        ),
        (
            "Да, перезагрузите роутер",
            "да, перезагрузите, пожалуйста, роутер",
        ),
    ] {
        let found = sampled(live, candidate);
        assert!(found.agrees, "{found:?} {candidate}");
    }
    for (live, candidate) in [
        ("Yes.", "No."),
        ("42", "41"),
        (
            "To reset your password, open the portal and choose Forgot password.",
            "The printer on the third floor is out of toner; please use the one next to the kitchen.",
        ),
        (
            "请打开门户网站，点击忘记密码。",
            "三楼的打印机缺墨，请使用厨房旁边的那台。",
        ),
        ("Restart the router.", ""),
        (
            "Restart the router.",
            "router router router router router router router router router",
        ),
    ] {
        let found = sampled(live, candidate);
        assert!(!found.agrees, "{found:?} {candidate}");
    }
    assert!(similarity("a before b", "b before a") < similarity("a before b", "a before b"));
}

#[test]
fn a_refusal_agrees_only_with_a_refusal() {
    let refusal =
        "I'm sorry, but I can't help with that: open the portal and choose Forgot password.";
    let help = "Open the portal and choose Forgot password: that I can help with, but I am sorry.";
    let found = sampled(help, refusal);
    assert!(found.similarity >= SAMPLED_AGREES && !found.agrees && found.refusal_drifts());
    let both = sampled(refusal, &format!("{refusal} Good bye."));
    assert!(both.agrees && both.live_refuses && !both.refusal_drifts());
}

#[test]
fn who_fails_alone_disagrees_and_two_failures_are_no_pair() {
    let failed = || ShadowAnswer {
        class: Class::Failed,
        status: 502,
        ..answer("")
    };
    let refused = ShadowAnswer {
        class: Class::Rejected,
        status: 400,
        ..answer("{\"error\":{}}")
    };
    assert_eq!(compare(&pair(failed(), failed())), None);
    assert_eq!(compare(&pair(failed(), refused.clone())), None);
    for candidate in [failed(), refused] {
        let found = compare(&pair(answer("Yes."), candidate.clone())).unwrap();
        assert_eq!((found.agrees, found.how), (false, "failed"));
        assert_eq!(compare(&pair(candidate, answer("Yes."))), Some(found));
    }
}

#[test]
fn the_length_is_of_tokens_or_of_words() {
    assert_eq!(sampled("one two", "one two three four").length, Some(2.0));
    assert_eq!(sampled("one two", "").length, None);
    let counted = |text, output_tokens| ShadowAnswer {
        output_tokens,
        ..answer(text)
    };
    let found = compare(&pair(counted("one two", 10), counted("one two three", 5))).unwrap();
    assert_eq!(found.length, Some(0.5));
    let cut = ShadowAnswer {
        whole: false,
        ..answer("one")
    };
    assert_eq!(compare(&pair(answer("one two"), cut)).unwrap().length, None);
}

#[test]
fn of_an_answer_that_was_cut_off_the_beginning_counts() {
    let cut = |text: &str| ShadowAnswer {
        whole: false,
        ..answer(text)
    };
    let found = compare(&pair(
        answer("Restart the router and wait."),
        cut("Restart the rou"),
    ))
    .unwrap();
    assert_eq!((found.agrees, found.how), (true, "exact"));
    // The whole one ends before: the other has said more, whatever comes.
    let found = compare(&pair(answer("Yes."), cut("Yes. To begin with the"))).unwrap();
    assert_ne!(found.how, "exact");
    // A document that could not be read as one holds ids and more.
    let half = "{\"id\":\"chatcmpl-1\",\"choices\":[{\"message\":{\"content\":\"Yes, but the";
    assert_eq!(compare(&pair(answer("Yes."), cut(half))), None);
    let long = "word ".repeat(MAX_COMPARED / 5 + 1);
    assert_eq!(
        sampled(&format!("{long}a b c"), &format!("{long}x")).how,
        "exact"
    );
}

#[test]
fn vectors_agree_by_their_direction_however_they_are_written() {
    let floats: Vec<f32> = (0..384)
        .map(|n| ((n * 37 % 101) as f32 - 50.0) / 400.0)
        .collect();
    let noisy: Vec<f32> = floats
        .iter()
        .enumerate()
        .map(|(n, it)| it + (n % 7) as f32 * 1e-3)
        .collect();
    let other: Vec<f32> = floats.iter().rev().copied().collect();
    let bytes: Vec<u8> = floats.iter().flat_map(|it| it.to_le_bytes()).collect();
    let one = |embedding: serde_json::Value| {
        json!({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    };
    let live = one(json!(floats));
    for (candidate, agrees) in [
        (one(json!(floats)), true),
        (one(json!(STANDARD.encode(bytes))), true),
        (one(json!(noisy)), true),
        (one(json!(other)), false),
        (one(json!(floats[1..])), false),
        (json!({"data": []}), false),
    ] {
        let found = numbers(&live, &candidate);
        assert_eq!((found.agrees, found.how), (agrees, "cosine"), "{found:?}");
    }
    let cut = |value: &serde_json::Value| {
        let text = value.to_string();
        ShadowAnswer {
            whole: false,
            ..answer(&text[..text.len() / 2])
        }
    };
    let compared = |candidate| {
        let pair = ShadowPair {
            kind: Kind::Model(Protocol::Embeddings),
            ..pair(cut(&live), cut(&candidate))
        };
        compare(&pair)
    };
    assert!(compared(one(json!(noisy))).unwrap().agrees);
    assert!(!compared(one(json!(other))).unwrap().agrees);
    assert_eq!(compared(one(json!("AAAA"))), None);
}

#[test]
fn scores_agree_item_by_item_in_the_order_of_the_request() {
    let ranked = |scores: [(usize, f64); 3]| {
        let results =
            scores.map(|(index, score)| json!({"index": index, "relevance_score": score}));
        json!({"id": format!("rerank-{}", scores[0].1), "results": results})
    };
    let live = ranked([(2, 0.90), (0, 0.88), (1, 0.01)]);
    let found = numbers(&live, &ranked([(0, 0.89), (2, 0.88), (1, 0.02)]));
    assert_eq!((found.agrees, found.how), (true, "scores"), "{found:?}");
    assert!(!numbers(&live, &ranked([(0, 0.90), (2, 0.70), (1, 0.01)])).agrees);
    assert!(!numbers(&live, &json!({"results": []})).agrees);

    let classified = |label: &str, probs: [f64; 2]| json!({"id": "c-1", "created": 17, "data": [{"index": 0, "label": label, "probs": probs, "num_classes": 2}]});
    let live = classified("urgent", [0.52, 0.48]);
    assert!(numbers(&live, &classified("urgent", [0.54, 0.46])).agrees);
    let turned = numbers(&live, &classified("normal", [0.48, 0.52]));
    assert!(!turned.agrees && turned.similarity == 0.0, "{turned:?}");
    // Without numbers it is a text like any other.
    let found = numbers(&json!({"label": "urgent"}), &json!({"label": "urgent"}));
    assert_eq!((found.agrees, found.how), (true, "exact"));
}

fn spoken() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-zA-Z]{1,6}",
        "[一-龥]{1,4}",
        "[0-9]{1,3}",
        "\\PC{0,3}",
        Just("कि".to_owned())
    ];
    prop::collection::vec(word, 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn the_order_of_the_two_does_not_matter(a in spoken(), b in spoken(), greedy in any::<bool>()) {
        let one = compare(&ShadowPair { greedy, ..pair(answer(&a), answer(&b)) }).unwrap();
        let other = compare(&ShadowPair { greedy, ..pair(answer(&b), answer(&a)) }).unwrap();
        prop_assert_eq!((one.agrees, one.how), (other.agrees, other.how));
        prop_assert!((one.similarity - other.similarity).abs() < 1e-12);
        prop_assert!((0.0..=1.0).contains(&one.similarity));
        prop_assert_eq!(one.live_refuses, other.candidate_refuses);
    }

    #[test]
    fn a_text_agrees_with_itself_and_with_its_beginning(text in "\\PC{0,60}", end in 0_usize..60, route in 0_usize..3) {
        let kind = [Kind::Model(Protocol::Chat), Kind::Model(Protocol::Embeddings), Kind::Tensor(Tensor::Infer)][route];
        let whole = ShadowPair { kind, ..pair(answer(&text), answer(&text)) };
        let found = compare(&whole).unwrap();
        prop_assert!(found.agrees && found.similarity == 1.0);
        let cut = ShadowAnswer { whole: false, ..answer(beginning(&text, end)) };
        if let Some(found) = compare(&ShadowPair { greedy: true, ..pair(answer(&text), cut) }) {
            prop_assert!(found.agrees, "{:?}", found);
        }
    }

    #[test]
    fn words_that_were_not_there_lower_the_similarity(text in spoken(), more in 1_usize..40) {
        let longer = format!("{text} {}", "unheardof ".repeat(more));
        let (less, least) = (similarity(&text, &longer), similarity(&text, &"unheardof ".repeat(more)));
        prop_assert!(least <= less && less < 1.0, "{} {}", least, less);
    }

    #[test]
    fn a_vector_is_compared_by_direction_only(
        vector in prop::collection::vec(-1e3_f64..1e3, 2..50), scale in 1e-150_f64..1e150,
    ) {
        let scaled: Vec<f64> = vector.iter().map(|it| it * scale).collect();
        let found = numbers(&json!({"data": [{"embedding": vector}]}), &json!({"data": [{"embedding": scaled}]}));
        prop_assert!(found.agrees && found.similarity > 0.999, "{:?}", found);
        let opposite: Vec<f64> = vector.iter().map(|it| -it).collect();
        let found = numbers(&json!({"data": [{"embedding": vector}]}), &json!({"data": [{"embedding": opposite}]}));
        prop_assert!(!found.agrees || vector.iter().all(|it| *it == 0.0));
    }

    #[test]
    fn nothing_panics(live in "\\PC{0,80}", candidate in "[\\[\\]{}\",:.0-9e a-z(]{0,80}", whole in any::<bool>()) {
        for kind in [Kind::Model(Protocol::Chat), Kind::Model(Protocol::Rerank)] {
            let candidate = ShadowAnswer { whole, ..answer(&candidate) };
            let found = compare(&ShadowPair { kind, ..pair(answer(&live), candidate) });
            prop_assert!(found.is_none_or(|found| (0.0..=1.0).contains(&found.similarity)));
        }
    }
}
