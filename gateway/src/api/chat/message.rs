//! `messages`: checked, and brought into the form that chat templates read.
//!
//! Templates know text, not OpenAI's unions: content parts become one string,
//! `developer` becomes `system`, and a call's `arguments` become an object again.

use serde_json::{Map, Value};

use crate::api::fields::{self, Fields};
use crate::api::peers;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
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
        None if may_be_empty => refusal.unwrap_or_default(),
        None => return Err(ApiError::missing(message.path_of("content"))),
    };
    out.insert("content".into(), content.into());
    if let Some(calls) = calls {
        out.insert("tool_calls".into(), Value::Array(calls));
    }
    // `reasoning` is what vLLM calls it now.
    let reasoning = [
        message.string("reasoning_content")?,
        message.string("reasoning")?,
    ];
    if role == Role::Assistant
        && let Some(reasoning) = reasoning.into_iter().flatten().next()
    {
        out.insert("reasoning_content".into(), reasoning.into());
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
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
    ];
    match message.choice("role", &ROLES)? {
        Some(role) => Ok(role),
        None => Err(ApiError::missing(message.path_of("role"))),
    }
}

/// A string, or text parts joined by line breaks.
fn read_content(content: Value, path: &str, role: Role) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            let expected = "a string or an array of content parts";
            return Err(fields::wrong_type(path.to_owned(), expected, &other));
        }
    };
    if parts.is_empty() {
        return Err(fields::empty_array(path.to_owned()));
    }
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::nested(part, format!("{path}[{index}]"))?;
        if index > 0 {
            text.push('\n');
        }
        let kind = part.required_string("type")?;
        match kind.as_str() {
            "text" => text += &part.required_string("text")?,
            "refusal" if role == Role::Assistant => text += &part.required_string("refusal")?,
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
    Ok(text)
}

/// An assistant's `tool_calls`, their `arguments` as JSON where they are JSON:
/// templates print them by `tojson`, which would quote a string once more.
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
    let mut call = Fields::nested(call, path)?;
    let id = call.string("id")?;
    call.choice("type", &[("function", ())])?;
    let Some(mut function) = call.object("function")? else {
        return Err(ApiError::missing(call.path_of("function")));
    };
    let name = function.required_string("name")?;
    let arguments = match function.take("arguments") {
        None => Value::Object(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        // What a model wrote may not be JSON; then it is shown as it was.
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Some(object @ Value::Object(_)) => object,
        Some(other) => {
            let path = function.path_of("arguments");
            return Err(fields::wrong_type(path, "a string of JSON", &other));
        }
    };
    let mut out = Map::new();
    if let Some(id) = id {
        out.insert("id".into(), id.into());
    }
    out.insert("type".into(), "function".into());
    out.insert(
        "function".into(),
        serde_json::json!({"name": name, "arguments": arguments}),
    );
    Ok(Value::Object(out))
}
