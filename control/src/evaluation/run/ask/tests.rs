#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::evaluation::run::compile;

fn row(columns: Value) -> Row {
    let Value::Object(columns) = columns else {
        panic!("not an object")
    };
    Row {
        ordinal: 0,
        item: "r".into(),
        tags: Vec::new(),
        columns,
    }
}

fn ask(value: Value) -> Ask {
    serde_json::from_value(value).unwrap()
}

fn sent(ask: &Ask, case: &Case) -> (&'static str, Value) {
    request(ask.kind, "m@v1", case, &ask.sampling)
}

#[test]
fn each_kind_asks_its_endpoint() {
    let chat = ask(json!({"sampling": {"temperature": 0.7, "max_tokens": 9}}));
    let of = case(
        &chat,
        &row(json!({"messages": "Hi", "reference": ["a", "b"]})),
        None,
    )
    .unwrap();
    assert_eq!(of.reference, Reference::Texts(vec!["a".into(), "b".into()]));
    let (path, body) = sent(&chat, &of);
    assert_eq!(path, "/v1/chat/completions");
    let messages = json!([{"role": "user", "content": "Hi"}]);
    assert_eq!(
        body,
        json!({"model": "m@v1", "temperature": 0.7, "max_tokens": 9, "messages": messages})
    );

    let completion = ask(json!({"kind": "completion"}));
    let prompt = compile("Say {{ word }}").unwrap();
    let asked = row(json!({"word": "x", "reference": {"b": 1, "a": [2]}}));
    let messages = prompt.render(&asked.item, &asked.columns).unwrap();
    let of = case(&completion, &asked, Some(messages)).unwrap();
    let (path, body) = sent(&completion, &of);
    assert_eq!(
        (path, &body["prompt"], &body["temperature"]),
        ("/v1/completions", &json!("Say x"), &json!(0))
    );
    let Reference::Texts(texts) = &of.reference else {
        panic!("{of:?}")
    };
    assert_eq!(
        serde_json::from_str::<Value>(&texts[0]).unwrap(),
        json!({"a": [2], "b": 1})
    );

    let rank = ask(json!({"kind": "rank"}));
    let columns = json!({"query": "q", "documents": [{"id": "d1", "text": "t1"}, {"id": "d2", "text": "t2"}], "relevance": {"d2": 2}});
    let of = case(&rank, &row(columns), None).unwrap();
    assert_eq!(
        sent(&rank, &of).1,
        json!({"model": "m@v1", "query": "q", "documents": ["t1", "t2"]})
    );
    let answer = json!({"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]});
    let said = read(AskKind::Rank, &of, answer.to_string().as_bytes()).unwrap();
    let ranking = [("d1".to_owned(), 0.25), ("d2".to_owned(), 0.5)].into();
    assert_eq!(said.output, Output::Ranking(ranking));
}

#[test]
fn rows_that_cannot_be_asked_name_the_column() {
    for (asked, columns, said) in [
        (
            json!({}),
            json!({"messages": []}),
            "row r: `messages` should be a list of messages, or a text",
        ),
        (
            json!({}),
            json!({}),
            "row r: has no column `messages`; it has none",
        ),
        (
            json!({"columns": {"input": "frage"}}),
            json!({"messages": "a", "reference": "b"}),
            "row r: has no column `frage`; it has messages, reference",
        ),
        (
            json!({"kind": "classify"}),
            json!({"id": 1}),
            "row r: has no column `text`; it has id",
        ),
        (
            json!({"kind": "rank"}),
            json!({"query": "q"}),
            "row r: has no column `documents`; it has query",
        ),
        (
            json!({"columns": {"reference": "gold"}}),
            json!({"messages": "a", "gold": null}),
            "row r: the reference: the column `gold` is null",
        ),
        (
            json!({}),
            json!({"messages": [{"role": "user"}]}),
            "missing field `content`",
        ),
        (
            json!({"kind": "classify"}),
            json!({"text": 1}),
            "row r: `text` should be a text that is not empty",
        ),
        (
            json!({"columns": {"reference": "gold"}}),
            json!({"messages": "a"}),
            "row r: the reference: has no column `gold`; it has messages",
        ),
        (
            json!({"kind": "rank"}),
            json!({"query": "q", "documents": []}),
            "`documents` should be an object of ids",
        ),
        (
            json!({"kind": "retrieve"}),
            json!({"query": "q", "relevance": "d1"}),
            "`relevance` should be an object",
        ),
    ] {
        let fault = case(&ask(asked), &row(columns), None).unwrap_err();
        assert!(fault.contains(said), "{fault}");
    }
    let two = compile(r#"[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]"#)
        .unwrap();
    let messages = two.render("r", &Map::new()).unwrap();
    let fault = case(
        &ask(json!({"kind": "completion"})),
        &row(json!({})),
        Some(messages),
    )
    .unwrap_err();
    assert!(
        fault.contains("the prompt has 2 messages; a completion takes one"),
        "{fault}"
    );
}

#[test]
fn a_likelihood_counts_the_texts_tokens_and_bytes_only() {
    let likelihood = ask(json!({"kind": "likelihood"}));
    let logprobs = |tokens: Value, values: Value, offsets: Value| json!({"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": values, "text_offset": offsets}}]});
    let of = |columns: Value, answer: Value| {
        let case = case(&likelihood, &row(columns), None).unwrap();
        let said = read(AskKind::Likelihood, &case, answer.to_string().as_bytes()).unwrap();
        match said.output {
            Output::Logprobs { tokens, bytes } => (tokens, bytes),
            other => panic!("{other:?}"),
        }
    };
    // Without a token that marks the beginning, the first one cannot be predicted.
    let answer = logprobs(
        json!(["é", "b", "c"]),
        json!([null, -1, -2]),
        json!([0, 1, 2]),
    );
    assert_eq!(
        of(json!({"text": "ébc"}), answer.clone()),
        (vec![-1.0, -2.0], 2)
    );
    // With one, all of the text counts.
    let marked = logprobs(
        json!(["<s>", "é", "b"]),
        json!([null, -1, -2]),
        json!([0, 3, 4]),
    );
    assert_eq!(of(json!({"text": "éb"}), marked), (vec![-1.0, -2.0], 3));
    // What is given is not scored.
    assert_eq!(
        of(json!({"context": "éb", "text": "c"}), answer),
        (vec![-2.0], 1)
    );
}

#[test]
fn answers_that_are_none_are_faults() {
    let chat = ask(json!({}));
    let of = case(&chat, &row(json!({"messages": "Hi"})), None).unwrap();
    let said = |body: Value| read(AskKind::Chat, &of, body.to_string().as_bytes());
    let calls = json!([{"function": {"name": "f", "arguments": "{}"}}]);
    let called = said(json!({"choices": [{"message": {"content": null, "tool_calls": calls}, "finish_reason": "tool_calls"}]})).unwrap();
    assert_eq!(called.output, Output::Text(calls.to_string()));
    assert_eq!(
        said(json!({"choices": []})).unwrap_err(),
        "the answer has no text"
    );
    assert!(
        read(AskKind::Chat, &of, b"<html>")
            .unwrap_err()
            .contains("not JSON")
    );
    let told = json!({"error": {"message": "too long"}}).to_string();
    assert_eq!(error_text(400, told.as_bytes()), "HTTP 400: too long");
}
