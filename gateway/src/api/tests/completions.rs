use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};

use super::rig::{Rig, joined};

#[tokio::test]
async fn a_whole_answer() {
    let rig = Rig::saying("!").await;
    let answer = rig.complete(json!({"max_tokens": 4, "logprobs": 1})).await;
    assert_json_snapshot!("completion_whole", answer.stable());
}

#[tokio::test]
async fn a_stream_with_echo() {
    let rig = Rig::saying("!").await;
    let body = json!({"stream": true, "echo": true, "stream_options": {"include_usage": true}});
    let answer = rig.complete(body).await;
    assert_snapshot!("completion_stream", answer.stable_events());
}

/// What lm-evaluation-harness's `local-completions` sends, and how it reads the answer.
#[tokio::test]
async fn a_prompt_is_scored() {
    let rig = Rig::saying("!").await;
    for (max_tokens, stream) in [(0, false), (1, false), (1, true)] {
        let body = json!({"prompt": [[72, 101, 108, 108, 111]], "echo": true, "logprobs": 1,
            "max_tokens": max_tokens, "seed": 1234, "stream": stream});
        let answer = rig.complete(body).await;
        let lists = |key: &str| -> Vec<Value> {
            let pointer = format!("/choices/0/logprobs/{key}");
            let parts = if stream {
                answer.events()
            } else {
                vec![answer.json()]
            };
            let lists = parts
                .iter()
                .filter_map(|part| part.pointer(&pointer)?.as_array().cloned());
            lists.flatten().collect()
        };
        let (tokens, logprobs, top) = (
            lists("tokens"),
            lists("token_logprobs"),
            lists("top_logprobs"),
        );
        assert_eq!(tokens.len(), 5 + max_tokens);
        assert_eq!((logprobs.len(), top.len()), (tokens.len(), tokens.len()));
        assert_eq!((&logprobs[0], &top[0]), (&Value::Null, &Value::Null));
        assert_eq!(lists("text_offset")[..3], [0, 1, 2]);
        for place in 1..tokens.len() {
            let own = logprobs[place].as_f64().unwrap();
            let best = top[place]
                .as_object()
                .unwrap()
                .values()
                .map(|v| v.as_f64().unwrap());
            assert!(own <= best.fold(f64::NEG_INFINITY, f64::max));
            assert!(top[place].get(tokens[place].as_str().unwrap()).is_some());
        }
    }
}

#[tokio::test]
async fn every_form_of_prompt_is_answered_in_order() {
    let rig = Rig::saying("!").await;
    let forms = [
        (json!("ab"), vec!["ab"]),
        (json!(["ab", "cd"]), vec!["ab", "cd"]),
        (json!([97, 98]), vec!["ab"]),
        (json!([[97, 98], [99, 100]]), vec!["ab", "cd"]),
    ];
    for (prompt, echoes) in forms {
        let body = json!({"prompt": prompt, "echo": true, "n": 2, "max_tokens": 1});
        let answer = rig.complete(body).await.json();
        let texts: Vec<&str> = answer["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["text"].as_str().unwrap())
            .collect();
        let wanted: Vec<String> = echoes
            .iter()
            .flat_map(|echo| [format!("{echo}!"), format!("{echo}!")])
            .collect();
        assert_eq!(texts, wanted);
        assert_eq!(answer["usage"]["prompt_tokens"], 2 * echoes.len());
        assert_eq!(answer["usage"]["completion_tokens"], 2 * echoes.len());
    }
}

#[tokio::test]
async fn constraints_hold() {
    let rig = Rig::saying("anything").await;
    let answer = rig
        .complete(json!({"guided_choice": ["yes", "no"], "max_tokens": 9}))
        .await
        .json();
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(["yes", "no"].contains(&text), "{text}");
}

#[tokio::test]
async fn sixteen_tokens_are_the_default() {
    let rig = Rig::saying(&"x".repeat(100)).await;
    let answer = rig.complete(json!({})).await.json();
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let events = rig.complete(json!({"stream": true})).await.events();
    assert_eq!(joined(&events, 0, "/text"), "x".repeat(16));
    assert_eq!(joined(&events, 0, "/finish_reason"), "length");
}

/// A byte is a token here, so that characters take several.
#[tokio::test]
async fn offsets_count_characters_of_the_text() {
    let said = "é😀 b中c";
    let rig = Rig::saying(said).await;
    for (echo, prompt, text) in [
        (false, json!("x"), said.to_owned()),
        (true, json!("😀 a"), format!("😀 a{said}")),
        (true, json!([240, 159, 152, 128, 97]), format!("😀a{said}")),
    ] {
        for stream in [false, true] {
            let body = json!({"prompt": prompt, "echo": echo, "logprobs": 0, "max_tokens": 40, "stream": stream});
            let answer = rig.complete(body).await;
            let parts = match stream {
                true => answer.events(),
                false => vec![answer.json()],
            };
            let offsets: Vec<u64> = parts
                .iter()
                .filter_map(|part| part.pointer("/choices/0/logprobs/text_offset")?.as_array())
                .flatten()
                .map(|offset| offset.as_u64().unwrap())
                .collect();
            // Every byte of a character begins where the character does.
            let mut expected: Vec<u64> = Vec::new();
            for (at, c) in text.chars().enumerate() {
                expected.extend(vec![u64::try_from(at).unwrap(); c.len_utf8()]);
            }
            let ends = offsets.len() - expected.len();
            assert!(ends <= 1, "{offsets:?}");
            assert_eq!(offsets[..expected.len()], expected, "{text} {stream}");
        }
    }
}

#[tokio::test]
async fn prompts_of_two_kinds_are_refused() {
    let rig = Rig::saying("!").await;
    for prompt in [json!(["a", [98]]), json!([[98], "a"])] {
        let answer = rig.complete(json!({"prompt": prompt})).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["param"], "prompt[1]");
    }
}
