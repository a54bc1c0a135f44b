//! `messages`: checked, and brought into the form that chat templates read.
//!
//! What a model's template makes of roles, content parts and a call's `arguments` differs; the
//! engine knows the template and brings them into its form
//! ([`sluice_engine::tokenizer::template`]). Here they are only checked.

use serde_json::{Map, Value};

use crate::api::fields::{self, Fields};
use crate::api::peers;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// Takes `messages` out of a request: at least one, in template form.
pub(crate) fn take_messages(request: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let path = request.path_of("messages");
    let Some(messages) = request.array("messages")? else {
        return Err(ApiError::missing(path));
    };
    if messages.is_empty() {
        return Err(fields::empty_array(path));
    }
    let read = |(index, message)| read_message(message, format!("{path}[{index}]"));
    messages.into_iter().enumerate().map(read).collect()
}

fn read_message(message: Value, path: String) -> Result<Value, ApiError> {
    let mut message = Fields::nested(message, path)?;
    let role = take_role(&mut message)?;
    let mut out = Map::new();
    out.insert("role".into(), role.as_str().into());
    if let Some(name) = message.string("name")? {
        out.insert("name".into(), name.into());
    }
    let calls = match role {
        Role::Assistant => take_calls(&mut message)?,
        _ => None,
    };
    // An assistant that called tools, or refused, may have said nothing else.
    let refusal = message.string("refusal")?;
    let may_be_empty = calls.is_some() || (role == Role::Assistant && refusal.is_some());
    let content = match message.take("content") {
        Some(content) => read_content(content, &message.path_of("content"), role)?,
        None if may_be_empty => refusal.map_or(Value::Null, Value::String),
        None => return Err(ApiError::missing(message.path_of("content"))),
    };
    out.insert("content".into(), content);
    if let Some(calls) = calls {
        out.insert("tool_calls".into(), Value::Array(calls));
    }
    for name in ["reasoning_content", "reasoning", "thinking"] {
        let reasoning = message.string(name)?.filter(|_| role == Role::Assistant);
        if let Some(reasoning) = reasoning {
            out.insert(name.into(), reasoning.into());
        }
    }
    if role == Role::Tool {
        let id = message.required_string("tool_call_id")?;
        out.insert("tool_call_id".into(), id.into());
    }
    peers::check(&message, peers::MESSAGE)?;
    Ok(Value::Object(out))
}

fn take_role(message: &mut Fields) -> Result<Role, ApiError> {
    const ROLES: [(&str, Role); 5] = [
        ("system", Role::System),
        ("developer", Role::Developer),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
    ];
    match message.choice("role", &ROLES)? {
        Some(role) => Ok(role),
        None => Err(ApiError::missing(message.path_of("role"))),
    }
}

/// A string, or text parts.
fn read_content(content: Value, path: &str, role: Role) -> Result<Value, ApiError> {
    let parts = match content {
        Value::String(_) => return Ok(content),
        Value::Array(parts) => parts,
        other => {
            let expected = "a string or an array of content parts";
            return Err(fields::wrong_type(path.to_owned(), expected, &other));
        }
    };
    if parts.is_empty() {
        return Err(fields::empty_array(path.to_owned()));
    }
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::nested(part, format!("{path}[{index}]"))?;
        let kind = part.required_string("type")?;
        match kind.as_str() {
            "text" => texts.push(part.required_string("text")?),
            "refusal" if role == Role::Assistant => texts.push(part.required_string("refusal")?),
            "image_url" | "input_audio" | "file" | "video_url" | "audio_url" => {
                return Err(ApiError::bad_request(
                    "unsupported_value",
                    format!(
                        "Invalid content part: this model reads text only, so parts of type \
                         '{kind}' are not supported."
                    ),
                )
                .with_param(part.path_of("type")));
            }
            other => {
                let known = ["text", "image_url", "input_audio", "file"].into_iter();
                return Err(fields::unknown_word(part.path_of("type"), other, known));
            }
        }
    }
    let part = |text: String| serde_json::json!({"type": "text", "text": text});
    Ok(texts.into_iter().map(part).collect())
}

/// An assistant's `tool_calls`, in the order of fields in which they came: templates print
/// whole calls.
fn take_calls(message: &mut Fields) -> Result<Option<Vec<Value>>, ApiError> {
    if message.has("function_call") {
        return Err(ApiError::unsupported(
            message.path_of("function_call"),
            "'function_call' is deprecated and not supported: use 'tool_calls'.",
        ));
    }
    let path = message.path_of("tool_calls");
    let Some(calls) = message.array("tool_calls")? else {
        return Ok(None);
    };
    if calls.is_empty() {
        return Ok(None);
    }
    let read = |(index, call)| read_call(call, format!("{path}[{index}]"));
    let calls: Result<_, _> = calls.into_iter().enumerate().map(read).collect();
    calls.map(Some)
}

fn read_call(call: Value, path: String) -> Result<Value, ApiError> {
    let as_given = call.clone();
    let mut call = Fields::nested(call, path)?;
    call.string("id")?;
    call.choice("type", &[("function", ())])?;
    let Some(mut function) = call.object("function")? else {
        return Err(ApiError::missing(call.path_of("function")));
    };
    function.required_string("name")?;
    match function.take("arguments") {
        None | Some(Value::String(_) | Value::Object(_)) => {}
        Some(other) => {
            let path = function.path_of("arguments");
            return Err(fields::wrong_type(path, "a string of JSON", &other));
        }
    }
    let mut out = match as_given {
        Value::Object(out) => out,
        other => return Ok(other),
    };
    out.retain(|_, value| !value.is_null());
    if !out.contains_key("type") {
        out.insert("type".into(), "function".into());
    }
    if let Some(function) = out.get_mut("function").and_then(Value::as_object_mut) {
        // A call without arguments has none.
        let arguments = function.entry("arguments").or_insert(Value::Null);
        if arguments.is_null() {
            *arguments = Value::Object(Map::new());
        }
    }
    Ok(Value::Object(out))
}
