#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use sluice_engine::tokenizer::tools::ToolChoice;

use super::Tools;
use crate::api::fields::Fields;
use crate::error::ApiError;

fn take(value: &Value) -> Result<Tools, ApiError> {
    Tools::take(&mut Fields::parse(value.to_string().as_bytes())?)
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "strict": true,
        "parameters": {"type": "object"}}})
}

#[test]
fn choices_are_read() {
    let cases = [
        (json!({}), ToolChoice::None),
        (json!({"tool_choice": "none"}), ToolChoice::None),
        (json!({"tools": [tool("f")]}), ToolChoice::Auto),
        (
            json!({"tools": [tool("f")], "tool_choice": "none"}),
            ToolChoice::None,
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": "auto"}),
            ToolChoice::Auto,
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": "required"}),
            ToolChoice::Required,
        ),
        (
            json!({"tools": [tool("f"), tool("g")],
                "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            ToolChoice::Named("g".into()),
        ),
    ];
    for (request, choice) in cases {
        assert_eq!(take(&request).unwrap().choice, choice, "{request}");
    }
}

#[test]
fn a_tool_keeps_its_raw_form_for_the_template() {
    let tools = take(&json!({"tools": [tool("f")], "parallel_tool_calls": false})).unwrap();
    assert_eq!(tools.raw, [tool("f")]);
    assert_eq!(tools.specs[0].parameters, json!({"type": "object"}));
    assert!(tools.specs[0].strict && !tools.parallel && tools.offered());
}

#[test]
fn each_mistake_names_its_path() {
    let cases = [
        (json!({"tools": []}), "tools"),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": vec![tool("f"); 129]}), "tools"),
        (json!({"tools": [1]}), "tools[0]"),
        (json!({"tools": [{}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "code_interpreter"}]}),
            "tools[0].type",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
        ),
        (
            json!({"tools": [{"type": "function", "function": {}}]}),
            "tools[0].function.name",
        ),
        (json!({"tools": [tool("a b")]}), "tools[0].function.name"),
        (
            json!({"tools": [tool("f"), tool("f")]}),
            "tools[1].function.name",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}),
            "tools[0].function.parameters",
        ),
        (
            json!({"tools": [{"type": "function",
                "function": {"name": "f", "parameters": {"type": "string"}}}]}),
            "tools[0].function.parameters",
        ),
        (json!({"tool_choice": "auto"}), "tool_choice"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (
            json!({"tools": [tool("f")], "tool_choice": "always"}),
            "tool_choice",
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": 1}),
            "tool_choice",
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": {"type": "function"}}),
            "tool_choice.function",
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "tool_choice.function.name",
        ),
        (
            json!({"tools": [tool("f")], "parallel_tool_calls": "no"}),
            "parallel_tool_calls",
        ),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"function_call": "auto"}), "function_call"),
    ];
    for (request, param) in cases {
        let error = take(&request).unwrap_err();
        assert_eq!(error.param(), Some(param), "{request}");
    }
}
