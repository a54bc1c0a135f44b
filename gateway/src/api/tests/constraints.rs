//! Grammars of clients: what they are refused for, and what they hold.

use serde_json::{Value, json};

use super::rig::Rig;

fn format(schema: &Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}})
}

fn tool(name: &str, parameters: &Value) -> Value {
    json!({"type": "function", "function": {"name": name, "strict": true, "parameters": parameters}})
}

#[tokio::test]
async fn an_error_names_the_field_and_does_not_quote_the_grammar() {
    let rig = Rig::saying("anything").await;
    let bad = json!({"type": "object", "properties": {"a": {"not": {"const": "q".repeat(60)}}}});
    let good = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let long = "q".repeat(300);
    let cases = [
        (json!({"guided_regex": format!("({long}")}), "guided_regex"),
        (
            json!({"guided_grammar": format!("start: \"{long}\" missing")}),
            "guided_grammar",
        ),
        (
            json!({"guided_grammar": "start: a\na: b\nb: a\n"}),
            "guided_grammar",
        ),
        (json!({"guided_json": bad}), "guided_json"),
        (
            json!({"guided_choice": vec![long.clone(); 1000]}),
            "guided_choice",
        ),
        (
            json!({"structured_outputs": {"regex": "("}}),
            "structured_outputs.regex",
        ),
        (
            json!({"structured_outputs": {"json": bad}}),
            "structured_outputs.json",
        ),
        (format(&bad), "response_format"),
        (
            json!({"tools": [tool("f", &good), tool("g", &bad)]}),
            "tools[1].function.parameters",
        ),
        (
            json!({"tools": [tool("f", &good), tool("g", &bad)], "tool_choice": "required"}),
            "tools[1].function.parameters",
        ),
        (
            {
                let mut request = format(&bad);
                request["tools"] = json!([tool("f", &good)]);
                request
            },
            "response_format",
        ),
    ];
    for (request, param) in cases {
        for path in ["chat", "completions"] {
            if path == "completions" && request.get("tools").is_some() {
                continue;
            }
            let answer = match path {
                "chat" => rig.chat(request.clone()).await,
                _ => rig.complete(request.clone()).await,
            };
            assert_eq!(answer.status, 400, "{path} {param}");
            let error = answer.error();
            assert_eq!(error["param"], param, "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.len() < 300 && !message.contains("qqq"), "{message}");
            assert!(message.contains(param), "{message}");
        }
    }
}

#[tokio::test]
async fn many_choices_are_as_good_as_few() {
    let rig = Rig::saying("anything").await;
    let choices: Vec<String> = (0..2000).map(|n| format!("c{n}")).collect();
    let answer = rig
        .chat(json!({"guided_choice": choices, "max_tokens": 8}))
        .await
        .json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(choices.iter().any(|choice| choice == text), "{text}");
}

#[tokio::test]
async fn a_number_ends_though_only_digits_are_liked() {
    let rig = Rig::saying(&"7".repeat(400)).await;
    let digits: serde_json::Map<String, Value> = (b'0'..=b'9')
        .map(|byte| (byte.to_string(), json!(100)))
        .collect();
    for number in [
        json!({"type": "number"}),
        json!({"type": "number", "minimum": 0}),
        json!({"type": "integer", "multipleOf": 3}),
        json!({"type": "string", "format": "duration"}),
        json!({}),
    ] {
        let schema = json!({"type": "object", "properties": {"n": number}, "required": ["n"]});
        let mut request = format(&schema);
        request["logit_bias"] = Value::Object(digits.clone());
        request["max_tokens"] = json!(200);
        let answer = rig.chat(request).await.json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
    }
}

#[tokio::test]
async fn a_stop_string_waits_for_min_tokens() {
    let rig = Rig::saying(&"abc ".repeat(30)).await;
    for stream in [false, true] {
        let request = json!({"stop": ["b"], "min_tokens": 30, "max_tokens": 60, "stream": stream,
            "temperature": 0});
        let answer = rig.complete(request.clone()).await;
        let text = match stream {
            false => answer.json()["choices"][0]["text"]
                .as_str()
                .unwrap()
                .to_owned(),
            true => super::rig::joined(&answer.events(), 0, "/text"),
        };
        assert!(
            (30..34).contains(&text.len()) && !text[30..].contains('b'),
            "{text}"
        );
    }
}
