//! Templates in the style of every family that people serve, against what `transformers` renders.
//!
//! `testdata/families.json` holds conversations in OpenAI's form, and for each template the text that `transformers`
//! makes of them; `tests/python/test_templates.py` wrote it and holds it to the `transformers` at hand.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{ArgumentForm, ChatTemplate, TemplateError};
use crate::tokenizer::SpecialTokens;

fn testdata() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tokenizer/template/testdata")
}

fn template(name: &str) -> ChatTemplate {
    let special = SpecialTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        others: BTreeMap::new(),
    };
    let mut path = testdata().join(format!("families/{name}.jinja"));
    if !path.exists() {
        path = testdata().join(format!("{name}.jinja"));
    }
    ChatTemplate::new(&std::fs::read_to_string(path).unwrap(), special).unwrap()
}

#[test]
fn every_family_renders_as_in_transformers() {
    let text = std::fs::read_to_string(testdata().join("families.json")).unwrap();
    let data: Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for (family, expected) in data["families"].as_object().unwrap() {
        let template = template(family);
        for (name, expected) in expected.as_object().unwrap() {
            let conversation = &data["conversations"][name];
            let tools = conversation["tools"].as_array();
            let mut extra: Map<String, Value> = Map::new();
            extra.insert("date_string".to_owned(), "1 Jan 2026".into());
            extra.extend(
                conversation["kwargs"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            );
            let rendered = template.render(
                conversation["messages"].as_array().unwrap(),
                tools.map(Vec::as_slice),
                conversation["add_generation_prompt"]
                    .as_bool()
                    .unwrap_or(true),
                &extra,
            );
            match expected["raised"].as_str() {
                Some(raised) => assert_eq!(
                    rendered,
                    Err(TemplateError::Raised(raised.to_owned())),
                    "{family}/{name}"
                ),
                None => assert_eq!(
                    rendered.as_deref(),
                    Ok(expected["text"].as_str().unwrap()),
                    "{family}/{name}"
                ),
            }
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn each_template_gets_arguments_as_it_takes_them() {
    for (name, form) in [
        ("deepseek-v3", ArgumentForm::Text),
        ("deepseek-r1", ArgumentForm::Text),
        ("qwen2.5", ArgumentForm::Object),
        ("llama3", ArgumentForm::Object),
        ("llama4", ArgumentForm::Object),
        ("mistral", ArgumentForm::Object),
        ("mistral-v7", ArgumentForm::Object),
        ("glm4", ArgumentForm::Object),
        ("granite", ArgumentForm::Object),
        ("gpt-oss", ArgumentForm::Object),
        ("hermes", ArgumentForm::Object),
        ("qwen3-coder", ArgumentForm::Object),
    ] {
        assert_eq!(template(name).form().arguments, form, "{name}");
    }
    let special = SpecialTokens::default;
    let fromjson = "{% for m in messages %}{% for c in m.tool_calls or [] %}{% for k, v in (c.function.arguments | fromjson).items() %}[{{ k }}={{ v }}]{% endfor %}{% endfor %}{% endfor %}";
    let joined = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments ~ '' }}{% endfor %}{% endfor %}";
    let either = "{% for m in messages %}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}{{ a if a is string else a | tojson }}{% endfor %}{% endfor %}";
    let call = serde_json::json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": \"中\",\"b\":1}"}});
    let messages =
        [serde_json::json!({"role": "assistant", "content": null, "tool_calls": [call]})];
    for (source, expected) in [
        (fromjson, "[a=中][b=1]"),
        (joined, "{\"a\": \"中\",\"b\":1}"),
        (either, "{\"a\": \"中\", \"b\": 1}"),
    ] {
        let template = ChatTemplate::new(source, special()).unwrap();
        assert_eq!(
            template.render(&messages, None, true, &Map::new()).unwrap(),
            expected
        );
    }
}

#[test]
fn arguments_that_are_sent_as_an_object_become_text_where_it_is_joined() {
    let call = serde_json::json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": "中", "b": 1.0}}});
    let messages = [
        serde_json::json!({"role": "user", "content": "u"}),
        serde_json::json!({"role": "assistant", "content": null, "tool_calls": [call]}),
    ];
    let prompt = template("deepseek-v3")
        .render(&messages, None, true, &Map::new())
        .unwrap();
    assert!(
        prompt.contains("```json\n{\"a\": \"中\", \"b\": 1.0}\n```"),
        "{prompt}"
    );
}
