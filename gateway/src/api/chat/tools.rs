//! `tools`, `tool_choice`, `parallel_tool_calls`.

use serde_json::{Value, json};
use sluice_engine::tokenizer::tools::{ToolChoice, ToolSpec};

use crate::api::constraint::check_name;
use crate::api::fields::{self, Fields};
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// Functions that one request may offer (OpenAI's own bound).
const MAX_TOOLS: usize = 128;

/// The three fields together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tools {
    /// What is on offer; empty when the request has no tools.
    pub(crate) specs: Vec<ToolSpec>,
    /// The same as the client wrote them, for the template.
    pub(crate) raw: Vec<Value>,
    /// `tool_choice`.
    pub(crate) choice: ToolChoice,
    /// `parallel_tool_calls`: more than one call in an answer.
    pub(crate) parallel: bool,
}

impl Tools {
    /// Takes the fields out of a request.
    pub(crate) fn take(request: &mut Fields) -> Result<Self, ApiError> {
        for (old, new) in [("functions", "tools"), ("function_call", "tool_choice")] {
            if request.has(old) {
                return Err(ApiError::unsupported(
                    old,
                    format!("'{old}' is deprecated and not supported: use '{new}'."),
                ));
            }
        }
        let (specs, raw) = take_specs(request)?;
        let choice = take_choice(request, &specs)?;
        let parallel = request.boolean("parallel_tool_calls")?.unwrap_or(true);
        Ok(Self {
            specs,
            raw,
            choice,
            parallel,
        })
    }

    /// Whether the model is to know of the tools at all.
    pub(crate) fn offered(&self) -> bool {
        !self.specs.is_empty() && self.choice != ToolChoice::None
    }
}

/// What is on offer, checked, and as the client wrote it.
fn take_specs(request: &mut Fields) -> Result<(Vec<ToolSpec>, Vec<Value>), ApiError> {
    let path = request.path_of("tools");
    let Some(raw) = request.array("tools")? else {
        return Ok((Vec::new(), Vec::new()));
    };
    if raw.is_empty() {
        return Err(fields::empty_array(path));
    }
    if raw.len() > MAX_TOOLS {
        return Err(fields::long_array(path, MAX_TOOLS, raw.len()));
    }
    let mut specs: Vec<ToolSpec> = Vec::with_capacity(raw.len());
    for (index, tool) in raw.iter().enumerate() {
        let spec = read_spec(tool.clone(), format!("{path}[{index}]"))?;
        if specs.iter().any(|other| other.name == spec.name) {
            return Err(ApiError::invalid_value(
                format!("{path}[{index}].function.name"),
                format!("Two tools are named '{}'; names must be unique.", spec.name),
            ));
        }
        specs.push(spec);
    }
    Ok((specs, raw))
}

fn read_spec(tool: Value, path: String) -> Result<ToolSpec, ApiError> {
    let mut tool = Fields::nested(tool, path)?;
    if tool.choice("type", &[("function", ())])?.is_none() {
        return Err(ApiError::missing(tool.path_of("type")));
    }
    let Some(mut function) = tool.object("function")? else {
        return Err(ApiError::missing(tool.path_of("function")));
    };
    let name = function.required_string("name")?;
    check_name(&function.path_of("name"), &name)?;
    function.string("description")?;
    let parameters = match function.object("parameters")? {
        Some(schema) => {
            let path = function.path_of("parameters");
            let schema = schema.into_map();
            check_parameters(&name, path, schema.get("type"))?;
            Value::Object(schema)
        }
        // OpenAI: a function without `parameters` takes none.
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
    };
    Ok(ToolSpec {
        name,
        parameters,
        strict: function.boolean("strict")?.unwrap_or(false),
    })
}

/// Arguments are an object, so their schema must be one of objects.
fn check_parameters(name: &str, path: String, kind: Option<&Value>) -> Result<(), ApiError> {
    match kind {
        None => Ok(()),
        Some(kind) if kind == "object" => Ok(()),
        Some(other) => Err(ApiError::bad_request(
            "invalid_function_parameters",
            format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of \
                 'type: \"object\"', got 'type: {other}'."
            ),
        )
        .with_param(path)),
    }
}

fn take_choice(request: &mut Fields, specs: &[ToolSpec]) -> Result<ToolChoice, ApiError> {
    let choice = match request.take("tool_choice") {
        None if specs.is_empty() => return Ok(ToolChoice::None),
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                let known = ["none", "auto", "required"].into_iter();
                return Err(fields::unknown_word("tool_choice".into(), other, known));
            }
        },
        Some(value @ Value::Object(_)) => {
            let mut named = Fields::nested(value, "tool_choice".into())?;
            if named.choice("type", &[("function", ())])?.is_none() {
                return Err(ApiError::missing("tool_choice.type"));
            }
            let Some(mut function) = named.object("function")? else {
                return Err(ApiError::missing("tool_choice.function"));
            };
            ToolChoice::Named(function.required_string("name")?)
        }
        Some(other) => {
            let path = "tool_choice".to_owned();
            return Err(fields::wrong_type(path, "a string or an object", &other));
        }
    };
    if specs.is_empty() {
        return Err(ApiError::invalid_value(
            "tool_choice",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are \
             specified.",
        ));
    }
    if let ToolChoice::Named(name) = &choice
        && !specs.iter().any(|spec| spec.name == *name)
    {
        return Err(ApiError::invalid_value(
            "tool_choice.function.name",
            "Invalid value for 'tool_choice': no function of this name is among 'tools'.",
        ));
    }
    Ok(choice)
}
