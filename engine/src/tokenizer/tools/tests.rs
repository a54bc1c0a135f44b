#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::grammar::GrammarCompiler;
use crate::testing::{byte_level, walk};
use crate::tokenizer::TextTokenizer;

const FORMATS: [ToolFormat; 3] = [
    ToolFormat::Hermes,
    ToolFormat::Llama3Json,
    ToolFormat::Mistral,
];

fn fixture() -> &'static (TextTokenizer, GrammarCompiler) {
    static FIXTURE: OnceLock<(TextTokenizer, GrammarCompiler)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let tokenizer = byte_level();
        let compiler = GrammarCompiler::new(&tokenizer).unwrap();
        (tokenizer, compiler)
    })
}

fn tools() -> Vec<ToolSpec> {
    let tool = |name: &str, parameters: Value| ToolSpec {
        name: name.to_owned(),
        parameters,
        strict: true,
    };
    vec![
        tool(
            "get_weather",
            json!({"type": "object", "required": ["city"], "additionalProperties": false,
                   "properties": {"city": {"enum": ["Paris", "北京"]},
                                  "unit": {"$ref": "#/$defs/unit"}},
                   "$defs": {"unit": {"enum": ["C", "F"]}}}),
        ),
        tool(
            "now",
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
        ),
    ]
}

/// A parsed answer: the content, and the calls as `(name, arguments)`.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    content: String,
    calls: Vec<(String, String)>,
    ended: usize,
}

/// Feeds `text` in the given cuts and puts the events together.
fn parse(format: ToolFormat, text: &str, cut: usize, enforced: bool) -> Answer {
    let mut parser = format.parser(&tools(), enforced);
    let mut events = Vec::new();
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(cut.max(1)) {
        events.extend(parser.push(&piece.iter().collect::<String>()));
    }
    events.extend(parser.finish());
    let mut answer = Answer::default();
    for event in events {
        match event {
            ToolEvent::Content(text) => answer.content.push_str(&text),
            ToolEvent::CallStart { index, name } => {
                assert_eq!(index, answer.calls.len());
                answer.calls.push((name, String::new()));
            }
            ToolEvent::CallArguments { index, fragment } => answer.calls[index].1 += &fragment,
            ToolEvent::CallEnd { index } => {
                assert_eq!(index + 1, answer.calls.len());
                answer.ended += 1;
            }
        }
    }
    answer
}

fn calls(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(n, a)| ((*n).to_owned(), (*a).to_owned()))
        .collect()
}

/// Checks arguments against the schema of their tool.
fn valid(name: &str, arguments: &str) -> bool {
    let Ok(Value::Object(arguments)) = serde_json::from_str(arguments) else {
        return false;
    };
    match name {
        "get_weather" => {
            ["Paris", "北京"]
                .iter()
                .any(|c| arguments.get("city") == Some(&json!(c)))
                && arguments.get("unit").is_none_or(|u| *u == "C" || *u == "F")
        }
        "now" => arguments.is_empty(),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn forced_calls_hold_with_any_weights(seed in any::<u64>(), cut in 1usize..9) {
        let (tokenizer, compiler) = fixture();
        for format in FORMATS {
            for parallel in [false, true] {
                for choice in [ToolChoice::Required, ToolChoice::Named("now".to_owned())] {
                    let spec = format.forced_grammar(&tools(), &choice, parallel).unwrap();
                    let grammar = compiler.compile(&spec).unwrap();
                    let text = walk(tokenizer, &grammar, seed, 200).unwrap();
                    for enforced in [false, true] {
                        let answer = parse(format, &text, cut, enforced);
                        prop_assert_eq!(&answer.content, "", "{}", &text);
                        prop_assert!(!answer.calls.is_empty(), "{}", text);
                        prop_assert_eq!(answer.ended, answer.calls.len());
                        prop_assert!(answer.calls.iter().all(|(n, a)| valid(n, a)), "{:?}", answer);
                        if !parallel {
                            prop_assert_eq!(answer.calls.len(), 1);
                        }
                        if choice != ToolChoice::Required {
                            prop_assert_eq!(&answer.calls[0].0, "now");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn calls_and_constrained_content_are_both_open(seed in any::<u64>(), cut in 1usize..9) {
        let (tokenizer, compiler) = fixture();
        let schema = json!({"type": "object", "required": ["ok"], "additionalProperties": false,
                            "properties": {"ok": {"type": "boolean"}}});
        for format in FORMATS {
            let spec = format.calls_or_content_grammar(&tools(), false, schema.clone()).unwrap();
            let grammar = compiler.compile(&spec).unwrap();
            let begin = match format {
                ToolFormat::Hermes => "<tool_call>",
                ToolFormat::Llama3Json => "{\"name\"",
                ToolFormat::Mistral => "[TOOL_CALLS]",
            };
            for begin in [begin, "{\"ok\""] {
                let mut matcher = grammar.matcher();
                for id in tokenizer.encode(begin, false).unwrap() {
                    matcher.accept(id).unwrap();
                }
                let rest = crate::testing::walk_on(tokenizer, &mut matcher, seed, 200).unwrap();
                let answer = parse(format, &format!("{begin}{rest}"), cut, false);
                if begin.contains("ok") {
                    let content: Value = serde_json::from_str(&answer.content).unwrap();
                    prop_assert!(content["ok"].is_boolean() && answer.calls.is_empty());
                } else {
                    prop_assert_eq!((answer.calls.len(), &*answer.content), (1, ""));
                    prop_assert!(valid(&answer.calls[0].0, &answer.calls[0].1), "{:?}", answer);
                }
            }
        }
    }

    #[test]
    fn strict_calls_hold_once_begun(seed in any::<u64>()) {
        let (tokenizer, compiler) = fixture();
        for format in FORMATS {
            let grammar = compiler.compile(&format.strict_grammar(&tools(), true).unwrap()).unwrap();
            // From the mark on, whatever the weights are.
            let begin = match format {
                ToolFormat::Hermes => "Let me see. <tool_call>",
                ToolFormat::Llama3Json => "{",
                ToolFormat::Mistral => "[TOOL_CALLS][",
            };
            let mut matcher = grammar.matcher();
            let mut text = begin.to_owned();
            for id in tokenizer.encode(begin, false).unwrap() {
                matcher.accept(id).unwrap();
            }
            text += &crate::testing::walk_on(tokenizer, &mut matcher, seed, 100).unwrap();
            let answer = parse(format, &text, 3, true);
            prop_assert!(!answer.calls.is_empty(), "{}", text);
            prop_assert!(answer.calls.iter().all(|(n, a)| valid(n, a)), "{}", text);
        }
    }

    #[test]
    fn marks_never_show_and_cuts_do_not_matter(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<tool_", "[TOOL_CALLS]", "[", "]", ", ", "; ", "{", "}",
            "<|python_tag|>", " ", "\n", "text", "\"", "\\", "{\"name\": \"now\", \"arguments\": {}}",
            "{\"name\": \"now\", \"parameters\": {\"a\": [1, \"}\"]}}", "{\"x\": 1}", "你好",
            "{\"name\": \"unknown\", \"arguments\": {}}", "{\"name\": \"now\", \"arguments\": {\"a",
        ]), 0..8),
        cut in 1usize..7,
    ) {
        let text = parts.concat();
        for format in FORMATS {
            let whole = parse(format, &text, usize::MAX, false);
            let pieces = parse(format, &text, cut, false);
            prop_assert_eq!(&pieces, &whole, "{:?} {}", format, &text);
            prop_assert!(whole.calls.iter().all(|(n, _)| n == "now" || n == "unknown"));
            let finished = &whole.calls[..whole.ended];
            let object = |a: &str| serde_json::from_str::<Value>(a).unwrap().is_object();
            prop_assert!(finished.iter().all(|(_, a)| object(a)));
            for mark in format.marks() {
                prop_assert!(!whole.content.contains(mark), "{:?} {} {}", format, text, whole.content);
            }
            if !text.ends_with("<tool_") && !format.marks().iter().any(|mark| text.contains(mark)) && !text.contains("\"name\"") {
                prop_assert_eq!(&whole.content, &text, "{:?}", format);
            }
        }
    }
}

#[test]
fn each_format_is_read() {
    let both = calls(&[("get_weather", r#"{"city": "北京"}"#), ("now", "{}")]);
    let texts = [
        (
            ToolFormat::Hermes,
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"北京\"}}\n</tool_call>\n\
             <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            ToolFormat::Llama3Json,
            "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"北京\"}}; \
             {\"name\": \"now\", \"parameters\": {}}",
        ),
        (
            ToolFormat::Mistral,
            "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"北京\"}}, \
             {\"name\": \"now\", \"arguments\": {}}]",
        ),
    ];
    for (format, text) in texts {
        for cut in [1, 2, 5, 1000] {
            for enforced in [false, true] {
                let answer = parse(format, text, cut, enforced);
                assert_eq!(
                    (answer.content.as_str(), &answer.calls),
                    ("", &both),
                    "{format:?}"
                );
                assert_eq!(answer.ended, 2);
            }
        }
    }
}

#[test]
fn content_around_calls_is_kept_without_layout() {
    let text =
        "I will look.\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\nDone. ";
    let answer = parse(ToolFormat::Hermes, text, 4, false);
    assert_eq!(answer.content, "I will look.\nDone. ");
    assert_eq!(answer.calls, calls(&[("now", "{}")]));
}

#[test]
fn what_is_not_a_call_is_content_without_its_marks() {
    let texts = [
        (ToolFormat::Hermes, "<tool_call>soon</tool_call>", "soon"),
        (
            ToolFormat::Hermes,
            "Say <tool_call> to call.",
            "Say  to call.",
        ),
        (ToolFormat::Hermes, "a</tool_call>b", "ab"),
        (ToolFormat::Hermes, "a<tool_c", "a"),
        (ToolFormat::Hermes, "a <", "a <"),
        (
            ToolFormat::Hermes,
            "a<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call> b",
            "a b",
        ),
        (
            ToolFormat::Hermes,
            "<tool_call>{now}</tool_call>then",
            "then",
        ),
        (
            ToolFormat::Llama3Json,
            "{\"answer\": 42}",
            "{\"answer\": 42}",
        ),
        (ToolFormat::Llama3Json, " {\"answer\": 4", " {\"answer\": 4"),
        (
            ToolFormat::Llama3Json,
            "{\"name\": \"Ann\", \"age\": 4}",
            "{\"name\": \"Ann\", \"age\": 4}",
        ),
        (
            ToolFormat::Llama3Json,
            "Say {\"name\": \"now\", \"parameters\": {}}",
            "Say {\"name\": \"now\", \"parameters\": {}}",
        ),
        (ToolFormat::Llama3Json, "<|python_tag|>print(1)", "print(1)"),
        (ToolFormat::Mistral, "[TOOL_CALLS]none", "none"),
        (ToolFormat::Mistral, "a list: [1, 2]", "a list: [1, 2]"),
        (ToolFormat::Mistral, "so [TOOL_CALLS] [{\"x\": 1}]", "so "),
    ];
    for (format, text, content) in texts {
        for cut in [1, 3, 1000] {
            let answer = parse(format, text, cut, false);
            assert_eq!(answer.content, content, "{text}");
            assert!(answer.calls.is_empty(), "{text}");
        }
    }
}

#[test]
fn a_call_of_an_undeclared_tool_is_a_call() {
    let texts = [
        (
            ToolFormat::Hermes,
            "<tool_call>{\"name\": \"nowhere\", \"arguments\": {\"a\": 1}}</tool_call>",
        ),
        (
            ToolFormat::Llama3Json,
            "{\"name\": \"nowhere\", \"parameters\": {\"a\": 1}}",
        ),
        (
            ToolFormat::Llama3Json,
            "<|python_tag|>{\"name\": \"nowhere\", \"parameters\": {\"a\": 1}}",
        ),
        (
            ToolFormat::Mistral,
            "[TOOL_CALLS][{\"name\": \"nowhere\", \"arguments\": {\"a\": 1}}]",
        ),
    ];
    for (format, text) in texts {
        for cut in [1, 4, 1000] {
            let answer = parse(format, text, cut, false);
            assert_eq!(answer.content, "", "{text}");
            assert_eq!(answer.calls, calls(&[("nowhere", "{\"a\": 1}")]), "{text}");
        }
    }
}

#[test]
fn json_beside_tools_is_no_call_of_an_undeclared_one() {
    let text = "{\"name\": \"Ann\", \"parameters\": {\"a\": 1}}";
    for length in 1..=text.len() {
        let mut parser = ToolFormat::Llama3Json.parser(&tools(), false).beside_json();
        let mut events = parser.push(&text[..length]);
        events.extend(parser.finish());
        let content = |event: ToolEvent| match event {
            ToolEvent::Content(text) => text,
            other => panic!("{other:?}"),
        };
        let content: String = events.into_iter().map(content).collect();
        assert_eq!(content, text[..length]);
    }
}

#[test]
fn a_call_cut_anywhere_leaves_no_markup() {
    let texts = [
        (
            ToolFormat::Hermes,
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": \"b\"}}\n</tool_call>",
        ),
        (
            ToolFormat::Llama3Json,
            "{\"name\": \"now\", \"parameters\": {\"a\": \"b\"}}",
        ),
        (
            ToolFormat::Llama3Json,
            "<|python_tag|>{\"name\": \"now\", \"parameters\": {\"a\": \"b\"}}",
        ),
        (
            ToolFormat::Mistral,
            "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {\"a\": \"b\"}}]",
        ),
    ];
    for (format, text) in texts {
        let mark = text.find('{').unwrap();
        for length in 1..text.len() {
            for enforced in [false, true] {
                let answer = parse(format, &text[..length], 3, enforced);
                let unmarked = format == ToolFormat::Llama3Json && mark == 0;
                // Within a mark, and in an object that has not said what it is, nothing is known.
                let unknown = length < mark.max(1) || (unmarked && length < 7);
                if !unknown {
                    assert_eq!(answer.content, "", "{}", &text[..length]);
                }
                if length > text.find("now").unwrap() + 3 {
                    assert_eq!(answer.calls[0].0, "now", "{}", &text[..length]);
                    let arguments = &answer.calls[0].1;
                    assert!(
                        "{\"a\": \"b\"}".starts_with(arguments.as_str()),
                        "{arguments}"
                    );
                }
            }
        }
    }
}

#[test]
fn enforced_arguments_are_streamed_and_free_ones_wait_until_they_are_valid() {
    let text = "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Par";
    let mut enforced = ToolFormat::Hermes.parser(&tools(), true);
    let events = enforced.push(text);
    assert_eq!(events.len(), 2);
    assert_eq!(
        events[1],
        ToolEvent::CallArguments {
            index: 0,
            fragment: "{\"city\": \"Par".to_owned()
        }
    );
    let events = enforced.push("is\"}}</tool_call>");
    assert_eq!(
        events[0],
        ToolEvent::CallArguments {
            index: 0,
            fragment: "is\"}".to_owned()
        }
    );
    let mut free = ToolFormat::Hermes.parser(&tools(), false);
    assert!(free.push(text).is_empty());
    assert_eq!(free.push("is\"}}</tool_call>").len(), 3);
}

#[test]
fn arguments_written_as_text_are_unwrapped() {
    let text = r#"<tool_call>{"name": "now", "arguments": "{\"a\": 1}"}</tool_call>"#;
    let answer = parse(ToolFormat::Hermes, text, 1000, false);
    assert_eq!(answer.calls, calls(&[("now", r#"{"a": 1}"#)]));
}

#[test]
fn formats_are_detected_by_their_marks() {
    let detect = ToolFormat::detect;
    assert_eq!(detect("{{ '<tool_call>\\n' }}"), ToolFormat::Hermes);
    assert_eq!(detect("{{ '[TOOL_CALLS] [' }}"), ToolFormat::Mistral);
    assert_eq!(detect("{{ '<|python_tag|>' }}"), ToolFormat::Llama3Json);
    assert_eq!(detect("{{ message.content }}"), ToolFormat::Hermes);
}

#[test]
fn tool_names_and_call_ids() {
    assert!(valid_tool_name("get_weather-2"));
    for bad in ["", "a b", "é", "a.b", &"x".repeat(65)] {
        assert!(!valid_tool_name(bad), "{bad}");
    }
    let id = ToolFormat::Mistral.call_id(12_345_678_901_234);
    assert!(id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert!(ToolFormat::Hermes.call_id(u128::MAX).starts_with("call_"));
}

#[test]
fn tools_that_are_not_strict_ignore_keywords_that_cannot_be_enforced() {
    let (_, compiler) = fixture();
    let mut tool = ToolSpec {
        name: "t".to_owned(),
        parameters: json!({"properties": {"a": {"not": {"type": "null"}}}}),
        strict: false,
    };
    let compile = |tool: &ToolSpec| {
        let spec = ToolFormat::Hermes
            .forced_grammar(std::slice::from_ref(tool), &ToolChoice::Required, true)
            .unwrap();
        compiler.compile(&spec)
    };
    assert!(compile(&tool).is_ok());
    tool.strict = true;
    let error = compile(&tool).unwrap_err().to_string();
    assert!(error.contains("`not`"), "{error}");
}

#[test]
fn no_grammar_without_a_tool_to_force() {
    let tools = tools();
    for choice in [
        ToolChoice::None,
        ToolChoice::Auto,
        ToolChoice::Named("nowhere".to_owned()),
    ] {
        assert_eq!(
            ToolFormat::Hermes.forced_grammar(&tools, &choice, true),
            None
        );
    }
    assert_eq!(
        ToolFormat::Hermes.forced_grammar(&[], &ToolChoice::Required, true),
        None
    );
    let loose = ToolSpec {
        strict: false,
        ..tools[0].clone()
    };
    assert_eq!(ToolFormat::Hermes.strict_grammar(&[loose], true), None);
}

#[test]
fn a_mark_behind_a_mark_opens_no_list() {
    for (text, content) in [
        ("[TOOL_CALLS][TOOL_CALLS]", ""),
        ("[TOOL_CALLS] [TOOL_CALLS] hello", "hello"),
        ("[TOOL_CALLS][TOOL_", ""),
    ] {
        for cut in 0..=text.len() {
            let parsed = parse(ToolFormat::Mistral, text, cut, false);
            assert_eq!(parsed.content.trim(), content, "{text} {cut}");
        }
    }
}
