//! Fields of vLLM's that are done: what each of them changes.

use serde_json::{Value, json};
use sluice_engine::backend::fake::FakeTokens;
use sluice_engine::generator::GeneratorOptions;

use super::rig::{Answer, END, Rig, joined};

/// What an answer says, and how it ended, whichever way it came.
fn said(answer: &Answer, stream: bool) -> (String, Value) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    if stream {
        let events = answer.events();
        let reason = joined(&events, 0, "/finish_reason");
        return (joined(&events, 0, "/delta/content"), json!(reason));
    }
    let choice = answer.json()["choices"][0].take();
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    (text.to_owned(), choice["finish_reason"].clone())
}

/// A model that writes anything.
async fn random() -> Rig {
    let tokens = FakeTokens::Hash { low: 0, high: 256 };
    Rig::start(tokens, GeneratorOptions::default(), 4).await
}

#[tokio::test]
async fn bad_words_are_never_written() {
    let rig = Rig::saying("use vpn now").await;
    assert_eq!(said(&rig.chat(json!({})).await, false).0, "use vpn now");
    for stream in [false, true] {
        let body = json!({"bad_words": ["vpn", " now"], "max_tokens": 60, "stream": stream});
        let (text, _) = said(&rig.chat(body).await, stream);
        assert!(text.starts_with("use vp"), "{text}");
        assert!(!text.contains("vpn") && !text.contains("now"), "{text}");
    }
    let body = json!({"bad_words": ["vpn"], "max_tokens": 60, "n": 2});
    let answer = rig.complete(body).await.json();
    for choice in answer["choices"].as_array().unwrap() {
        assert!(
            !choice["text"].as_str().unwrap().contains("vpn"),
            "{choice}"
        );
    }
}

#[tokio::test]
async fn only_allowed_tokens_are_written() {
    let rig = random().await;
    for stream in [false, true] {
        let body = json!({"allowed_token_ids": [97, 98], "max_tokens": 12, "stream": stream});
        let (text, reason) = said(&rig.chat(body).await, stream);
        assert_eq!((text.len(), &reason), (12, &json!("length")));
        assert!(
            text.bytes().all(|byte| matches!(byte, b'a' | b'b')),
            "{text}"
        );
    }
    // A bias cannot bring back what is not allowed; the end comes where it is in the list.
    let body = json!({"allowed_token_ids": [END, 97], "logit_bias": {"98": 100, "258": 100}});
    let (text, reason) = said(&rig.chat(body).await, false);
    assert_eq!((text.as_str(), &reason), ("", &json!("stop")));
    let body = json!({"allowed_token_ids": [END, 97], "logit_bias": {"258": 100},
        "min_tokens": 3, "max_tokens": 9});
    assert_eq!(said(&rig.chat(body).await, false).0, "aaa");
}

#[tokio::test]
async fn a_grammar_holds_beside_allowed_tokens_and_bad_words() {
    let rig = random().await;
    // Where the text may end says the grammar, so that the end need not be in the list.
    let body = json!({"guided_choice": ["abba", "baab", "cab"], "allowed_token_ids": [97, 98]});
    let (text, reason) = said(&rig.chat(body).await, false);
    assert!(["abba", "baab"].contains(&text.as_str()), "{text}");
    assert_eq!(reason, "stop");
    let body = json!({"guided_regex": "[a-c]{6}", "bad_words": ["a", "cb", "bb"]});
    let (text, _) = said(&rig.chat(body).await, false);
    assert!(
        text.len() == 6 && !text.contains('a') && !text.contains("cb"),
        "{text}"
    );
}

#[tokio::test]
async fn what_excludes_each_other_is_a_mistake_of_the_client() {
    let rig = random().await;
    for (body, param) in [
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (
            json!({"allowed_token_ids": [1, 9999]}),
            "allowed_token_ids[1]",
        ),
        (
            json!({"allowed_token_ids": [1, "2"]}),
            "allowed_token_ids[1]",
        ),
        (
            json!({"allowed_token_ids": [END], "min_tokens": 1}),
            "allowed_token_ids",
        ),
        (
            json!({"allowed_token_ids": [33], "bad_words": ["!"]}),
            "bad_words",
        ),
        (json!({"bad_words": ["a", ""]}), "bad_words[1]"),
        (json!({"bad_words": [7]}), "bad_words[0]"),
        (json!({"bad_words": vec!["x"; 129]}), "bad_words"),
        (json!({"bad_words": ["x".repeat(129)]}), "bad_words[0]"),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = json!(stream);
            let refused = rig.chat(body.clone()).await;
            assert_eq!(refused.status, 400, "{body}: {}", refused.text);
            assert_eq!(refused.error()["param"], param, "{body}");
            let refused = rig.complete(body.clone()).await;
            assert_eq!(refused.status, 400, "{body}: {}", refused.text);
        }
    }
    // Found out only as the text comes: no token is left that both would have.
    for body in [
        json!({"guided_choice": ["vpn"], "bad_words": ["vpn"]}),
        json!({"guided_choice": ["vpn"], "allowed_token_ids": [97]}),
    ] {
        let refused = rig.chat(body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
        assert!(refused.text.contains("bad_words"), "{}", refused.text);
    }
}

/// The text of a chat's prompt, by the tokens that `/tokenize` gives.
async fn prompt(rig: &Rig, extra: &Value) -> (String, usize) {
    let mut body = json!({"model": "fake"});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let tokens = rig.post("/tokenize", &body).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let tokens = tokens.json();
    let ids = json!({"model": "fake", "tokens": tokens["tokens"]});
    let text = rig.post("/detokenize", &ids).await.json()["prompt"].take();
    let count = usize::try_from(tokens["count"].as_u64().unwrap()).unwrap();
    (text.as_str().unwrap().to_owned(), count)
}

#[tokio::test]
async fn the_last_message_is_continued() {
    let rig = Rig::saying("and so on").await;
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So "}]);
    let body = json!({"messages": messages, "continue_final_message": true});
    let (text, count) = prompt(&rig, &body).await;
    assert_eq!(
        text,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSo "
    );
    for stream in [false, true] {
        let mut body = body.clone();
        body["stream"] = json!(stream);
        let answer = rig.chat(body.clone()).await;
        assert_eq!(said(&answer, stream).0, "and so on");
        if !stream {
            assert_eq!(answer.json()["usage"]["prompt_tokens"], count);
        }
        body["echo"] = json!(true);
        assert_eq!(
            said(&rig.chat(body.clone()).await, stream).0,
            "So and so on"
        );
        // What the user has said is not what the assistant says.
        body["messages"] = json!([{"role": "user", "content": "So "}]);
        assert_eq!(said(&rig.chat(body).await, stream).0, "and so on");
    }
    for (extra, param) in [
        (
            json!({"add_generation_prompt": true}),
            "continue_final_message",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
            "continue_final_message",
        ),
    ] {
        let mut body = body.clone();
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        let refused = rig.chat(body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.error()["param"]),
            (400, &json!(param))
        );
    }
}

#[tokio::test]
async fn special_tokens_and_ends_of_prompts_are_as_asked_for() {
    let rig = Rig::saying("ok").await;
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"messages": messages, "add_generation_prompt": false});
    let (text, count) = prompt(&rig, &body).await;
    assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n");
    let answer = rig.chat(body).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], count);
}

#[tokio::test]
async fn usage_comes_with_each_chunk_where_it_is_asked_for() {
    let rig = Rig::saying("Hello").await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = json!({"stream": true, "stream_options": options, "n": 2});
    for answer in [rig.chat(body.clone()).await, rig.complete(body).await] {
        let events = answer.events();
        let (last, chunks) = events.split_last().unwrap();
        let prompt = &last["usage"]["prompt_tokens"];
        assert!(prompt.is_u64());
        for index in 0..2 {
            let own = chunks
                .iter()
                .filter(|chunk| chunk["choices"][0]["index"] == index);
            let counts: Vec<u64> = own
                .map(|chunk| {
                    assert_eq!(&chunk["usage"]["prompt_tokens"], prompt);
                    chunk["usage"]["completion_tokens"].as_u64().unwrap()
                })
                .collect();
            assert!(
                counts.is_sorted() && *counts.last().unwrap() >= 5,
                "{counts:?}"
            );
        }
    }
}

#[tokio::test]
async fn token_ids_of_prompt_and_answer_are_told() {
    let rig = Rig::saying("ab").await;
    let body = json!({"prompt": ["x", "yz"], "return_token_ids": true});
    let whole = rig.complete(body.clone()).await.json();
    assert_eq!(whole["choices"][0]["prompt_token_ids"], json!([120]));
    assert_eq!(whole["choices"][1]["prompt_token_ids"], json!([121, 122]));
    assert_eq!(whole["choices"][1]["token_ids"], json!([97, 98]));
    let mut body = body;
    body["stream"] = json!(true);
    let events = rig.complete(body).await.events();
    let told: Vec<&Value> = events
        .iter()
        .filter(|event| event["choices"][0]["index"] == 1)
        .filter_map(|event| event["choices"][0].get("prompt_token_ids"))
        .collect();
    assert_eq!(told, [&json!([121, 122])], "once");
}

/// Others' fields are refused by name; what nobody documents is left alone.
#[tokio::test]
async fn fields_of_others_are_refused_by_name() {
    let rig = Rig::saying("ok").await;
    for (body, param) in [
        (json!({"mirostat": 2}), "mirostat"),
        (json!({"use_beam_search": true}), "use_beam_search"),
        (
            json!({"truncate_prompt_tokens": 5}),
            "truncate_prompt_tokens",
        ),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
            "stream_options.include_obfuscation",
        ),
        (
            json!({"structured_outputs": {"json_object": true, "whitespace_pattern": " "}}),
            "structured_outputs.whitespace_pattern",
        ),
    ] {
        for refused in [
            rig.chat(body.clone()).await,
            rig.complete(body.clone()).await,
        ] {
            assert_eq!(refused.status, 400, "{body}: {}", refused.text);
            let error = refused.error();
            assert_eq!(
                (&error["param"], &error["code"]),
                (&json!(param), &json!("unsupported_parameter"))
            );
        }
    }
    let nothing = json!({"mirostat": 0, "use_beam_search": false, "length_penalty": 1,
        "spaces_between_special_tokens": true, "best_of": null, "of_my_own": [1]});
    assert_eq!(rig.chat(nothing.clone()).await.status, 200);
    assert_eq!(rig.complete(nothing).await.status, 200);
}
