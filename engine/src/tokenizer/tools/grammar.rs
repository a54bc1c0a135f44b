//! Grammars that make tool calls hold with any weights.
//!
//! Each call is one JSON object, name first, then the arguments under the tool's
//! own schema; around it stands what the model's format wants. Written in
//! llguidance's Lark, where `%json` embeds a schema.

use serde_json::{Map, Value, json};

use super::{ToolChoice, ToolFormat, ToolSpec};
use crate::grammar::narrow::narrow;
use crate::grammar::{GrammarSpec, whitespace_policy};

/// Calls in one answer at most; keeps a model that never stops calling finite.
const MAX_CALLS: usize = 16;

/// Text of any length.
const ANY: &str = r"(.|\n)*";

pub(super) fn forced(
    format: ToolFormat,
    tools: &[ToolSpec],
    choice: &ToolChoice,
    parallel: bool,
) -> Option<GrammarSpec> {
    let (tools, most): (Vec<&ToolSpec>, usize) = match choice {
        ToolChoice::None | ToolChoice::Auto => return None,
        ToolChoice::Required if parallel => (tools.iter().collect(), MAX_CALLS),
        ToolChoice::Required => (tools.iter().collect(), 1),
        ToolChoice::Named(name) => (tools.iter().filter(|t| t.name == *name).collect(), 1),
    };
    if tools.is_empty() {
        return None;
    }
    let rules = call_list(format, most) + &calls(format, &tools, true);
    Some(GrammarSpec::Lark(format!("start: list\n{rules}")))
}

pub(super) fn calls_or_content(
    format: ToolFormat,
    tools: &[ToolSpec],
    parallel: bool,
    mut content: Value,
) -> Option<GrammarSpec> {
    if tools.is_empty() {
        return None;
    }
    let most = if parallel { MAX_CALLS } else { 1 };
    narrow(&mut content);
    whitespace_policy(&mut content, false);
    let tools: Vec<&ToolSpec> = tools.iter().collect();
    let rules = call_list(format, most) + &calls(format, &tools, true);
    Some(GrammarSpec::Lark(format!(
        "start: list | content\ncontent: %json {content}\n{rules}"
    )))
}

/// The rule `list`: one to `most` calls, and nothing else.
fn call_list(format: ToolFormat, most: usize) -> String {
    match format {
        ToolFormat::Hermes => {
            let call = r#""<tool_call>" "\n" call "\n" "</tool_call>""#;
            format!("list: one {}\none: {call}\n", more("\"\\n\" one", most))
        }
        ToolFormat::Llama3Json => format!("list: call {}\n", more("\"; \" call", most)),
        ToolFormat::Mistral => {
            let list = format!("\"[\" call {} \"]\"", more("\", \" call", most));
            format!("list: \"[TOOL_CALLS] \" {list}\n")
        }
    }
}

pub(super) fn strict(
    format: ToolFormat,
    tools: &[ToolSpec],
    parallel: bool,
) -> Option<GrammarSpec> {
    if !tools.iter().any(|tool| tool.strict) {
        return None;
    }
    let most = if parallel { MAX_CALLS } else { 1 };
    let mut grammar = match format {
        ToolFormat::Hermes => format!(
            "start: one{{0,{most}}} TEXT\n\
             one: lead call \"\\n\"? \"</tool_call>\"\n\
             lead[lazy]: /{ANY}<tool_call>\\n?/\n\
             TEXT: /{ANY}/ & ~/{ANY}<tool_call>{ANY}/\n"
        ),
        ToolFormat::Mistral => format!(
            "start: TEXT | lead call {} \"]\"\n\
             lead[lazy]: /{ANY}\\[TOOL_CALLS\\] ?\\[/\n\
             TEXT: /{ANY}/ & ~/{ANY}\\[TOOL_CALLS\\]{ANY}/\n",
            more("\",\" \" \"? call", most)
        ),
        ToolFormat::Llama3Json => format!(
            "start: TEXT | \"<|python_tag|>\"? call {}\n\
             TEXT: /([^{{<]{ANY}|<[^|]{ANY})?/\n",
            more("\";\" \" \"? call", most)
        ),
    };
    let tools: Vec<&ToolSpec> = tools.iter().collect();
    grammar.push_str(&calls(format, &tools, false));
    Some(GrammarSpec::Lark(grammar))
}

/// What may follow the first call, up to `most` calls in all.
fn more(next: &str, most: usize) -> String {
    match most {
        0 | 1 => String::new(),
        _ => format!("({next}){{0,{}}}", most - 1),
    }
}

/// The rules `call`, `call0`, `call1`, …. `enforce_all`: the schemas of tools that
/// are not strict count too, as far as they can be enforced.
fn calls(format: ToolFormat, tools: &[&ToolSpec], enforce_all: bool) -> String {
    let names: Vec<String> = (0..tools.len()).map(|n| format!("call{n}")).collect();
    let mut rules = format!("call: {}\n", names.join(" | "));
    for (rule, tool) in names.iter().zip(tools) {
        let schema = call_schema(format, tool, enforce_all);
        rules.push_str(&format!("{rule}: %json {schema}\n"));
    }
    rules
}

/// Schema of one call: `{"name": "…", "arguments": {…}}`.
fn call_schema(format: ToolFormat, tool: &ToolSpec, enforce_all: bool) -> Value {
    let key = arguments_key(format);
    let enforced = tool.strict || enforce_all;
    let own = tool.parameters.as_object().filter(|_| enforced);
    let mut arguments = Value::Object(own.cloned().unwrap_or_default());
    point_references_to(&mut arguments, &format!("#/properties/{key}"));
    if let Some(arguments) = arguments.as_object_mut() {
        // Whatever the schema says, arguments are an object.
        arguments.insert("type".to_owned(), json!("object"));
        arguments.shift_remove("$schema");
        arguments.shift_remove("$id");
    }
    let mut properties = Map::new();
    properties.insert("name".to_owned(), json!({"const": tool.name}));
    properties.insert(key.to_owned(), arguments);
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "required": ["name", key],
        "additionalProperties": false,
    });
    narrow(&mut schema);
    whitespace_policy(&mut schema, !tool.strict);
    schema
}

/// The field that holds the arguments.
pub(super) fn arguments_key(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes | ToolFormat::Mistral => "arguments",
        ToolFormat::Llama3Json => "parameters",
    }
}

/// The tool's schema moves down in the document, so its `$ref`s move with it.
fn point_references_to(value: &mut Value, root: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| point_references_to(v, root)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (
                    key.as_str(),
                    value.as_str().and_then(|v| v.strip_prefix('#')),
                ) {
                    ("$ref", Some(path)) => *value = json!(format!("{root}{path}")),
                    _ => point_references_to(value, root),
                }
            }
        }
        _ => {}
    }
}
