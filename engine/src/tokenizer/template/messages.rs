//! From OpenAI's messages to the shape that the template at hand expects.
//!
//! Templates disagree: some walk over content parts, some join them to a text; most take the
//! arguments of a past call as an object, DeepSeek's joins them as a text; some ask whether
//! the content of a call is none, some join it to a text too. What a template does is found
//! once, by rendering marked messages in each form, the one that `transformers` documents first.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, TemplateError};
use crate::jinja::{Limits, Template};

/// How a template takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageForm {
    /// The content of a message.
    pub content: ContentForm,
    /// The arguments of a past call.
    pub arguments: ArgumentForm,
    /// A call without content has the content `none`; otherwise an empty text.
    pub none: bool,
    /// It knows the role `developer`; otherwise such messages are system messages.
    pub developer: bool,
}

impl Default for MessageForm {
    fn default() -> Self {
        Self {
            content: ContentForm::Text,
            arguments: ArgumentForm::Object,
            none: false,
            developer: false,
        }
    }
}

/// How a template takes the arguments of a past call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArgumentForm {
    /// An object, as `transformers` documents it.
    Object,
    /// JSON text, as OpenAI's clients send it.
    Text,
}

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

impl MessageForm {
    /// Finds out by rendering marked messages.
    pub(super) fn probe(template: &ChatTemplate) -> Self {
        let form = Self {
            content: ContentForm::probe(template),
            developer: template.source().contains("developer"),
            ..Self::default()
        };
        for arguments in [ArgumentForm::Object, ArgumentForm::Text] {
            for none in [true, false] {
                let form = Self {
                    arguments,
                    none,
                    ..form
                };
                if form.shows_calls(template) {
                    return form;
                }
            }
        }
        form
    }

    /// The same, but for the arguments of calls.
    pub(super) fn with_other_arguments(self) -> Self {
        Self {
            arguments: match self.arguments {
                ArgumentForm::Object => ArgumentForm::Text,
                ArgumentForm::Text => ArgumentForm::Object,
            },
            ..self
        }
    }

    /// Whether a past call shows in this form, and nothing of it as Python prints it.
    fn shows_calls(self, template: &ChatTemplate) -> bool {
        const KEY: &str = "sluice_probe_key";
        const VALUE: &str = "sluice-probe-value";
        let function = json!({"name": "probe", "arguments": {KEY: VALUE}});
        let call = json!({"id": "abcdefghi", "type": "function", "function": function});
        let parameters = json!({"type": "object", "properties": {}});
        let tool = json!({"name": "probe", "description": "", "parameters": parameters});
        let tools = [json!({"type": "function", "function": tool})];
        let conversation = [
            json!({"role": "user", "content": "u"}),
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "abcdefghi", "name": "probe", "content": "r"}),
        ];
        let Ok(messages) = normalize(&conversation, self) else {
            return false;
        };
        [Some(&tools[..]), None].into_iter().any(|tools| {
            let prompt = template.render_raw(&messages, tools, true, &Map::new());
            prompt.is_ok_and(|prompt| {
                let printed = [format!("'{KEY}'"), format!("\\\"{KEY}"), "None".to_owned()];
                prompt.contains(VALUE) && !printed.iter().any(|it| prompt.contains(it))
            })
        })
    }
}

impl ContentForm {
    /// Finds out by rendering a marked message in both forms.
    fn probe(template: &ChatTemplate) -> Self {
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

/// Whether a message has calls.
pub(super) fn has_calls(message: &Value) -> bool {
    message["tool_calls"]
        .as_array()
        .is_some_and(|it| !it.is_empty())
}

/// Puts every message into the template's shape.
pub(super) fn normalize(
    messages: &[Value],
    form: MessageForm,
) -> Result<Vec<Value>, TemplateError> {
    let one = |message: &Value| -> Result<Value, TemplateError> {
        let calls = has_calls(message);
        let mut message = message
            .as_object()
            .map(with_reasoning)
            .ok_or_else(|| TemplateError::Raised("a message must be an object".to_owned()))?;
        if !form.developer && message.get("role").is_some_and(|r| r == "developer") {
            message.insert("role".to_owned(), json!("system"));
        }
        let content = match message.get("content").unwrap_or(&Value::Null) {
            Value::Null if calls && form.none => Value::Null,
            content => shape(content, form.content)?,
        };
        message.insert("content".to_owned(), content);
        tool_calls(&mut message, form.arguments);
        Ok(Value::Object(message))
    };
    messages.iter().map(one).collect()
}

/// What the model thought, under each name that templates know it by, as `transformers` does.
fn with_reasoning(message: &Map<String, Value>) -> Map<String, Value> {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let mut given = names.iter().filter_map(|name| message.get(*name));
    let Some(reasoning) = given.find(|it| !it.is_null()).cloned() else {
        return message.clone();
    };
    let mut named = Map::new();
    named.insert("thinking".to_owned(), reasoning.clone());
    named.extend(message.clone());
    named.insert("reasoning_content".to_owned(), reasoning);
    named
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

/// OpenAI sends the arguments of past calls as JSON text; most templates expect objects.
fn tool_calls(message: &mut Map<String, Value>, form: ArgumentForm) {
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
        match (form, arguments.as_str().map(str::trim)) {
            (ArgumentForm::Object, Some("")) => *arguments = json!({}),
            (ArgumentForm::Object, Some(text)) => {
                // What a model wrote may not be JSON; then it is shown as it was.
                if let Ok(parsed) = serde_json::from_str(text) {
                    *arguments = parsed;
                }
            }
            (ArgumentForm::Text, None) => *arguments = json_text(arguments),
            (ArgumentForm::Object, None) | (ArgumentForm::Text, Some(_)) => {}
        }
    }
}

/// A value as the filter `tojson` writes it.
fn json_text(value: &Value) -> Value {
    let limits = Limits {
        steps: u64::MAX,
        memory: usize::MAX,
        text: usize::MAX,
    };
    let mut variables = Map::new();
    variables.insert("value".to_owned(), value.clone());
    let written =
        Template::new("{{ value | tojson }}").and_then(|it| it.render(&variables, limits));
    written.map_or_else(|_| value.to_string().into(), Value::String)
}
