//! Grammars that make tool calls hold with any weights.
//!
//! Each call is one JSON object, name first, then the arguments under the tool's
//! own schema; around it stands what the model's format wants, written in
//! llguidance's Lark.

use serde_json::{Value, json};

use super::{ToolChoice, ToolFormat, ToolSpec};
use crate::grammar::{CallsGrammar, EmbeddedCall, EmbeddedSchema, Form, GrammarSpec};

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
    let rules = format!("start: list\n{}", call_list(format, most));
    Some(calls(format, rules, &tools, true, Form::Json))
}

pub(super) fn calls_or_content(
    format: ToolFormat,
    tools: &[ToolSpec],
    parallel: bool,
    content: Value,
) -> Option<GrammarSpec> {
    if tools.is_empty() {
        return None;
    }
    let most = if parallel { MAX_CALLS } else { 1 };
    let tools: Vec<&ToolSpec> = tools.iter().collect();
    let rules = format!("start: list | content\n{}", call_list(format, most));
    let mut spec = calls(format, rules, &tools, true, Form::Json);
    if let GrammarSpec::Calls(calls) = &mut spec {
        calls.schemas.push(EmbeddedSchema {
            rule: "content".to_owned(),
            schema: content,
            call: None,
            lenient: false,
        });
    }
    Some(spec)
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
    let rules = match format {
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
    let form = Form::Calls {
        mark: match format {
            ToolFormat::Hermes => "<tool_call>",
            ToolFormat::Mistral => "[TOOL_CALLS]",
            ToolFormat::Llama3Json => "<|python_tag|>",
        },
        bare: format == ToolFormat::Llama3Json,
    };
    let tools: Vec<&ToolSpec> = tools.iter().collect();
    Some(calls(format, rules, &tools, false, form))
}

/// What may follow the first call, up to `most` calls in all.
fn more(next: &str, most: usize) -> String {
    match most {
        0 | 1 => String::new(),
        _ => format!("({next}){{0,{}}}", most - 1),
    }
}

/// Adds the rules `call`, `call0`, `call1`, …. `enforce_all`: the schemas of tools that
/// are not strict count too, as far as they can be enforced.
fn calls(
    format: ToolFormat,
    mut rules: String,
    tools: &[&ToolSpec],
    enforce_all: bool,
    form: Form,
) -> GrammarSpec {
    let names: Vec<String> = (0..tools.len()).map(|n| format!("call{n}")).collect();
    rules.push_str(&format!("call: {}\n", names.join(" | ")));
    let schemas = names.into_iter().zip(tools).map(|(rule, tool)| {
        let enforced = tool.strict || enforce_all;
        EmbeddedSchema {
            rule,
            schema: match enforced && tool.parameters.is_object() {
                true => tool.parameters.clone(),
                false => json!({}),
            },
            call: Some(EmbeddedCall {
                name: tool.name.clone(),
                key: arguments_key(format),
            }),
            lenient: !tool.strict,
        }
    });
    GrammarSpec::Calls(CallsGrammar {
        schemas: schemas.collect(),
        rules,
        form,
    })
}

/// The field that holds the arguments.
pub(super) fn arguments_key(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes | ToolFormat::Mistral => "arguments",
        ToolFormat::Llama3Json => "parameters",
    }
}
