//! From OpenAI's messages to the shape that templates expect.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, TemplateError};

/// How a template takes the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentForm {
    /// A string: parts are joined by newlines, as vLLM joins them.
    Text,
    /// A list of parts where there are parts, otherwise a string.
    Either,
    /// Always a list of parts.
    Parts,
}

impl ContentForm {
    /// Finds out by rendering a marked message in both forms.
    pub(super) fn probe(template: &ChatTemplate) -> Self {
        const MARK: &str = "sluice-content-probe";
        let shows = |content: Value| {
            let message = json!({"role": "user", "content": content});
            let prompt = template.render_raw(&[message], None, true, &Map::new());
            // A list that was printed instead of walked shows its keys.
            prompt
                .is_ok_and(|p| p.contains(MARK) && !p.contains("'type'") && !p.contains("\"type\""))
        };
        let parts = shows(json!([{"type": "text", "text": MARK}]));
        match (parts, shows(json!(MARK))) {
            (false, _) => Self::Text,
            (true, true) => Self::Either,
            (true, false) => Self::Parts,
        }
    }
}

/// Puts every message into the template's shape. `developer`: the template knows
/// that role; otherwise such messages are system messages.
pub(super) fn normalize(
    messages: &[Value],
    form: ContentForm,
    developer: bool,
) -> Result<Vec<Value>, TemplateError> {
    let one = |message: &Value| -> Result<Value, TemplateError> {
        let mut message = message
            .as_object()
            .cloned()
            .ok_or_else(|| TemplateError::Raised("a message must be an object".to_owned()))?;
        if !developer && message.get("role").is_some_and(|r| r == "developer") {
            message.insert("role".to_owned(), json!("system"));
        }
        let content = message.get("content").unwrap_or(&Value::Null);
        let content = shape(content, form)?;
        message.insert("content".to_owned(), content);
        tool_calls(&mut message);
        Ok(Value::Object(message))
    };
    messages.iter().map(one).collect()
}

/// Content as the template takes it; no content is an empty string.
fn shape(content: &Value, form: ContentForm) -> Result<Value, TemplateError> {
    match (content, form) {
        (Value::Null, ContentForm::Parts) => Ok(json!([])),
        (Value::Null, _) => Ok(json!("")),
        (Value::String(text), ContentForm::Parts) => Ok(json!([{"type": "text", "text": text}])),
        (Value::String(_), _) => Ok(content.clone()),
        (Value::Array(parts), form) => {
            let texts: Vec<&str> = parts.iter().map(text_of).collect::<Result<_, _>>()?;
            Ok(match form {
                ContentForm::Text => Value::String(texts.join("\n")),
                _ => texts
                    .into_iter()
                    .map(|text| json!({"type": "text", "text": text}))
                    .collect(),
            })
        }
        _ => Err(TemplateError::Raised(
            "the content of a message must be a string or a list of parts".to_owned(),
        )),
    }
}

/// The text of one content part.
fn text_of(part: &Value) -> Result<&str, TemplateError> {
    if let Some(text) = part.as_str() {
        return Ok(text);
    }
    let kind = part["type"].as_str().unwrap_or_default();
    let text = match kind {
        "text" | "input_text" | "output_text" => part["text"].as_str(),
        "refusal" => part["refusal"].as_str(),
        _ => None,
    };
    text.ok_or_else(|| {
        TemplateError::Raised(format!(
            "content parts of type `{kind}` are not supported by this model, only `text`"
        ))
    })
}

/// OpenAI sends the arguments of past calls as JSON text; templates expect objects.
fn tool_calls(message: &mut Map<String, Value>) {
    let Some(calls) = message.get_mut("tool_calls") else {
        return;
    };
    let Some(calls) = calls.as_array_mut().filter(|calls| !calls.is_empty()) else {
        message.shift_remove("tool_calls");
        return;
    };
    for call in calls {
        let Some(arguments) = call.pointer_mut("/function/arguments") else {
            continue;
        };
        match arguments.as_str().map(str::trim) {
            Some("") => *arguments = json!({}),
            Some(text) => {
                if let Ok(parsed) = serde_json::from_str(text) {
                    *arguments = parsed;
                }
            }
            None => {}
        }
    }
}
