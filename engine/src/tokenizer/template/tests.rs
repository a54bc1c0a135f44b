#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

// The expected prompts are what Jinja2 makes of the same templates, set up as
// transformers' `apply_chat_template` sets it up.
const QWEN2: &str = include_str!("testdata/qwen2.5.jinja");
const QWEN3: &str = include_str!("testdata/qwen3.jinja");
const LLAMA3: &str = include_str!("testdata/llama3.jinja");
const MISTRAL: &str = include_str!("testdata/mistral.jinja");
const GEMMA: &str = include_str!("testdata/gemma.jinja");
const PHI3: &str = include_str!("testdata/phi3.jinja");
const PARTS: &str = include_str!("testdata/parts.jinja");

fn template(source: &str) -> ChatTemplate {
    let special = SpecialTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        others: BTreeMap::from([("pad_token".to_owned(), "<pad>".to_owned())]),
    };
    ChatTemplate::new(source, special).unwrap()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Renders `messages` (a JSON array) with a generation prompt.
fn render(source: &str, messages: &Value) -> Result<String, TemplateError> {
    template(source).render(messages.as_array().unwrap(), None, true, &Map::new())
}

/// Renders an expression.
fn eval(expression: &str, variables: &Value) -> String {
    let source = format!("{{{{ {expression} }}}}");
    template(&source)
        .render(&[], None, false, &object(variables))
        .unwrap()
}

fn conversation() -> Value {
    json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b> 你好"},
           {"role": "assistant", "content": "Hello"}, {"role": "user", "content": " Bye "}])
}

fn weather_tools() -> Vec<Value> {
    vec![
        json!({"type": "function", "function": {"name": "weather", "description": "It's <hot>?",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}),
    ]
}

/// A call with arguments as OpenAI sends them, its result, and a question.
fn tool_conversation() -> Value {
    json!([{"role": "user", "content": "Weather in 北京?"},
           {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdefghi", "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\": \"北京\", \"n\": 1.0}"}}]},
           {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"}])
}

#[test]
fn qwen2_without_and_with_tools() {
    assert_eq!(
        render(QWEN2, &conversation()).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b> 你好<|im_end|>\n\
         <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n Bye <|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let messages = tool_conversation();
    let prompt = template(QWEN2)
        .render(
            messages.as_array().unwrap(),
            Some(&weather_tools()),
            true,
            &Map::new(),
        )
        .unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>system\nYou are a helpful assistant.\n\n# Tools\n\nYou may call one or more \
         functions.\n\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \
         \"description\": \"It's <hot>?\", \"parameters\": {\"type\": \"object\", \"properties\": \
         {\"city\": {\"type\": \"string\"}}}}}\n</tools>\n\nReturn <tool_call></tool_call> \
         tags.<|im_end|>\n<|im_start|>user\nWeather in 北京?<|im_end|>\n<|im_start|>assistant\n\
         <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"北京\", \"n\": 1.0}}\n\
         </tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n\
         <|im_start|>assistant\n"
    );
}

#[test]
fn qwen3_keeps_only_the_last_turns_thoughts() {
    let messages = json!([
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nA"},
        {"role": "user", "content": "2"},
        {"role": "assistant", "content": "<think>\nnew\n</think>\n\nB"},
    ]);
    let render = |extra: Value, add| {
        template(QWEN3)
            .render(messages.as_array().unwrap(), None, add, &object(&extra))
            .unwrap()
    };
    let expected = "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n\
                    <|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n<think>\nnew\n</think>\n\n\
                    B<|im_end|>\n";
    assert_eq!(render(json!({}), false), expected);
    let quiet = render(json!({"enable_thinking": false}), true);
    assert_eq!(
        quiet,
        format!("{expected}<|im_start|>assistant\n<think>\n\n</think>\n\n")
    );
}

#[test]
fn llama3_with_tools_and_a_given_date() {
    let extra = object(&json!({"date_string": "01 Jan 2026"}));
    let messages = tool_conversation();
    let prompt = template(LLAMA3)
        .render(
            messages.as_array().unwrap(),
            Some(&weather_tools()),
            true,
            &extra,
        )
        .unwrap();
    assert_eq!(
        prompt,
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nToday Date: \
         01 Jan 2026\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nRespond in the format \
         {\"name\": function name, \"parameters\": dictionary}.\n\n{\n    \"type\": \"function\",\n    \
         \"function\": {\n        \"name\": \"weather\",\n        \"description\": \"It's <hot>?\",\n        \
         \"parameters\": {\n            \"type\": \"object\",\n            \"properties\": {\n                \
         \"city\": {\n                    \"type\": \"string\"\n                }\n            }\n        }\n    \
         }\n}\n\nWeather in 北京?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n\
         {\"name\": \"weather\", \"parameters\": {\"city\": \"北京\", \"n\": 1.0}}<|eot_id|>\
         <|start_header_id|>ipython<|end_header_id|>\n\n\"sunny\"<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    // Without the variable, today's date is there.
    let today = eval("strftime_now('%d %b %Y')", &json!({}));
    assert!(
        render(LLAMA3, &conversation())
            .unwrap()
            .contains(&today[3..])
    );
}

#[test]
fn llama3_raises_for_parallel_calls() {
    let call = json!({"function": {"name": "f", "arguments": "{}"}});
    let messages = json!([{"role": "user", "content": "x"},
                          {"role": "assistant", "tool_calls": [call, call]}]);
    assert_eq!(
        render(LLAMA3, &messages),
        Err(TemplateError::Raised(
            "This model only supports single tool-calls at once!".to_owned()
        ))
    );
}

#[test]
fn mistral_with_tools() {
    let messages = tool_conversation();
    let prompt = template(MISTRAL)
        .render(
            messages.as_array().unwrap(),
            Some(&weather_tools()),
            true,
            &Map::new(),
        )
        .unwrap();
    assert_eq!(
        prompt,
        "<s>[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"weather\", \
         \"description\": \"It's <hot>?\", \"parameters\": {\"type\": \"object\", \"properties\": \
         {\"city\": {\"type\": \"string\"}}}}}][/AVAILABLE_TOOLS][INST] Weather in 北京?[/INST]\
         [TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"北京\", \"n\": 1.0}, \
         \"id\": \"abcdefghi\"}]</s>[TOOL_RESULTS] {\"content\": sunny, \"call_id\": \"abcdefghi\"}\
         [/TOOL_RESULTS]"
    );
    assert_eq!(
        render(MISTRAL, &conversation()).unwrap(),
        "<s>[INST] Hi <b> 你好[/INST] Hello</s>[INST] Be brief.\n\n Bye [/INST]"
    );
    let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    assert!(
        matches!(render(MISTRAL, &twice), Err(TemplateError::Raised(m)) if m.contains("alternate"))
    );
}

#[test]
fn gemma_has_no_system_role() {
    assert_eq!(
        render(GEMMA, &conversation()),
        Err(TemplateError::Raised(
            "System role not supported".to_owned()
        ))
    );
    let messages =
        json!([{"role": "user", "content": " a "}, {"role": "assistant", "content": "b"}]);
    assert_eq!(
        render(GEMMA, &messages).unwrap(),
        "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n\
         <start_of_turn>model\n"
    );
}

#[test]
fn phi3_with_generation_tags_and_trimmed_blocks() {
    assert_eq!(
        render(PHI3, &conversation()).unwrap(),
        "<|system|>\nBe brief.<|end|>\n\n<|user|>\nHi <b> 你好<|end|>\n\n<|assistant|>\nHello<|end|>\n\
         <|user|>\n Bye <|end|>\n\n<|assistant|>\n"
    );
}

#[test]
fn content_parts_are_joined_or_kept_as_the_template_wants() {
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "a"},
                                                       {"type": "input_text", "text": "b"}]}]);
    assert_eq!(template(QWEN2).form().content, ContentForm::Text);
    assert!(
        render(QWEN2, &messages)
            .unwrap()
            .contains("user\na\nb<|im_end|>")
    );
    assert_eq!(template(PARTS).form().content, ContentForm::Either);
    assert!(
        render(PARTS, &messages)
            .unwrap()
            .contains("user\nab<|im_end|>")
    );
    let only_parts =
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    assert_eq!(template(only_parts).form().content, ContentForm::Parts);
    assert_eq!(
        render(only_parts, &json!([{"role": "user", "content": "xyz"}])).unwrap(),
        "xyz"
    );

    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
    assert!(
        matches!(render(QWEN2, &image), Err(TemplateError::Raised(m)) if m.contains("image_url"))
    );
}

#[test]
fn roles_and_empty_contents_are_put_right() {
    let source = "{% for m in messages %}[{{ m.role }}|{{ m.content }}|{{ m.tool_calls is defined }}]{% endfor %}";
    let messages = json!([{"role": "developer", "content": "d"},
                          {"role": "assistant", "tool_calls": []},
                          {"role": "assistant", "content": null, "tool_calls": null}]);
    assert_eq!(
        render(source, &messages).unwrap(),
        "[system|d|False][assistant||False][assistant||False]"
    );
    assert!(matches!(
        render(source, &json!([3])),
        Err(TemplateError::Raised(_))
    ));
}

#[test]
fn tojson_is_pythons() {
    let value = json!({"v": {"b": [1, 2.0, 1e16, 1e-5, null, true], "a": "<é\n\u{1}\"/>", "e": {}, "l": []}});
    assert_eq!(
        eval("v | tojson", &value),
        "{\"b\": [1, 2.0, 1e+16, 1e-05, null, true], \"a\": \"<é\\n\\u0001\\\"/>\", \"e\": {}, \"l\": []}"
    );
    assert_eq!(
        eval("v | tojson(indent=2)", &json!({"v": {"a": [1], "e": {}}})),
        "{\n  \"a\": [\n    1\n  ],\n  \"e\": {}\n}"
    );
    assert_eq!(
        eval("v | tojson(ensure_ascii=true)", &json!({"v": "é😀"})),
        "\"\\u00e9\\ud83d\\ude00\""
    );
    assert_eq!(
        eval(
            "v | tojson(sort_keys=true)",
            &json!({"v": {"b": 1, "a": 2}})
        ),
        "{\"a\": 2, \"b\": 1}"
    );
    assert_eq!(
        eval(
            "v | tojson(separators=(',', ':'))",
            &json!({"v": {"a": [1, 2]}})
        ),
        "{\"a\":[1,2]}"
    );
}

#[test]
fn values_print_as_in_python() {
    let value =
        json!({"n": null, "t": true, "f": 1.5, "l": ["a", "it's", 1, false], "d": {"k": null}});
    let printed = eval("n ~ '' if false else n", &value);
    assert_eq!(printed, "None");
    assert_eq!(eval("t", &value), "True");
    assert_eq!(eval("f", &value), "1.5");
    assert_eq!(eval("l", &value), "['a', \"it's\", 1, False]");
    assert_eq!(eval("d", &value), "{'k': None}");
    assert_eq!(eval("missing", &value), "");
    assert_eq!(eval("d | string", &value), "{'k': None}");
}

#[test]
fn python_methods_work() {
    let value = json!({"s": "  a,b,c  ", "d": {"x": 1}, "l": [1, 2, 3]});
    let cases = [
        ("s.strip().split(',')[-1]", "c"),
        ("s.strip().split(',', 1)[1]", "b,c"),
        ("s.strip().rsplit(',', 1)[0]", "a,b"),
        ("s.strip().partition(',')[2]", "b,c"),
        ("s.lstrip() ~ '|'", "a,b,c  |"),
        ("s.upper().strip()", "A,B,C"),
        ("'hello world'.title()", "Hello World"),
        ("'abc'.replace('b', '')", "ac"),
        ("'abc'.startswith('ab')", "True"),
        ("'abc'.removeprefix('ab').removesuffix('x')", "c"),
        ("d.get('y', 'none')", "none"),
        ("d.items() | list | length", "1"),
        ("d.keys() | list | first", "x"),
        ("l[::-1][0]", "3"),
        ("l[1:] | length", "2"),
        ("'abc'[:-1]", "ab"),
        ("'text' is iterable and 'text' is sequence", "True"),
        ("1 is iterable", "False"),
    ];
    for (expression, expected) in cases {
        assert_eq!(eval(expression, &value), expected, "{expression}");
    }
}

#[test]
fn control_flow_of_the_dialect() {
    let source = "{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x > 3 %}{% break %}\
                  {% endif %}{{ x }}{% endfor %}{%- macro m(a, b=2) %}({{ a }}{{ b }}){% endmacro %}{{ m(1) }}";
    assert_eq!(render(source, &json!([])).unwrap(), "023(12)");
    let blocks =
        "  {% if true %}\nx\n  {% endif %}\n  {%- generation -%}  y  {%- endgeneration -%}  z";
    assert_eq!(render(blocks, &json!([])).unwrap(), "x\nyz");
}

#[test]
fn reserved_variables_cannot_be_replaced_and_others_can() {
    let source =
        "{{ messages | length }}{{ tools }}{{ add_generation_prompt }}{{ custom }}{{ pad_token }}";
    let extra =
        object(&json!({"messages": [1, 2], "tools": 5, "add_generation_prompt": 7, "custom": "c"}));
    let prompt = template(source).render(&[], None, false, &extra).unwrap();
    assert_eq!(prompt, "0NoneFalsec<pad>");
}

#[test]
fn a_hostile_template_ends() {
    let spin = "{% for a in range(10000) %}{% for b in range(10000) %}{% set x = 1 %}{% endfor %}{% endfor %}";
    assert!(matches!(
        render(spin, &json!([])),
        Err(TemplateError::TooLarge(_))
    ));
    let flood = "{% for a in range(10000) %}{{ 'x' * 10000 }}{% endfor %}";
    assert!(matches!(
        render(flood, &json!([])),
        Err(TemplateError::TooLarge(_))
    ));
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(render(recursive, &json!([])).is_err());
}

#[test]
fn limits_are_those_that_were_set() {
    let said = |source: &str, limits: TemplateLimits| {
        let template = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
        template
            .within(limits)
            .render(&[], None, false, &Map::new())
    };
    let defaults = TemplateLimits::default();
    let long = "{{ 'x' * 4000 }}";
    assert!(said(long, defaults).is_ok());
    let text = TemplateLimits {
        text: 3_999,
        ..defaults
    };
    let memory = TemplateLimits {
        memory: 3_999,
        ..defaults
    };
    let walk = "{% for a in range(300) %}{% set x = 1 %}{% endfor %}";
    let steps = TemplateLimits {
        steps: 1_000,
        ..defaults
    };
    assert!(said(walk, defaults).is_ok());
    for (source, limits) in [(long, text), (long, memory), (walk, steps)] {
        let refused = said(source, limits);
        assert!(
            matches!(refused, Err(TemplateError::TooLarge(_))),
            "{limits:?}: {refused:?}"
        );
    }
}

#[test]
fn templates_are_found_in_each_of_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let source = || {
        let found = ChatTemplate::from_folder(dir.path()).unwrap();
        found.map(|t| t.render(&[], None, false, &Map::new()).unwrap())
    };
    assert_eq!(source(), None);
    write(
        "tokenizer_config.json",
        r#"{"bos_token": "B", "chat_template": "{{ bos_token }}1"}"#,
    );
    assert_eq!(source().unwrap(), "B1");
    write(
        "chat_template.json",
        r#"{"chat_template": "{{ bos_token }}2"}"#,
    );
    assert_eq!(source().unwrap(), "B2");
    write("chat_template.jinja", "{{ bos_token }}3\n");
    assert_eq!(source().unwrap(), "B3");
    write("chat_template.jinja", "{% if %}");
    let error = ChatTemplate::from_folder(dir.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("chat_template.jinja") && error.contains("line 1"),
        "{error}"
    );
}

#[test]
fn a_named_template_is_used_for_tools() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": [{"name": "default", "template": "D"},
                                          {"name": "tool_use", "template": "T{{ tools | length }}"}]});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_folder(dir.path()).unwrap().unwrap();
    let render = |tools: Option<&[Value]>| template.render(&[], tools, false, &Map::new()).unwrap();
    assert_eq!(render(None), "D");
    assert_eq!(render(Some(&[])), "D");
    assert_eq!(render(Some(&weather_tools())), "T1");
}

#[test]
fn expressions_evaluate_as_in_jinja2() {
    let data: Value = serde_json::from_str(include_str!("testdata/expressions.json")).unwrap();
    for case in data["cases"].as_array().unwrap() {
        let (expression, expected) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        assert_eq!(
            eval(expression, &data["variables"]),
            expected,
            "{expression}"
        );
    }
}
