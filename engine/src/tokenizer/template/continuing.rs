//! A prompt that ends within the last message, for the model to go on with it:
//! `continue_final_message`, as `transformers` does it.
//!
//! What a template writes behind a message (an end-of-turn token, a line break) is found by a
//! mark at the message's end: the prompt is what comes before it.

use serde_json::{Map, Value};

use super::{ChatTemplate, TemplateError, messages};

#[cfg(test)]
mod tests;

/// Behind the text that is to be continued. Its last character tells whether the template trims.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

impl ChatTemplate {
    /// As [`ChatTemplate::render`], up to the end of the last message's text, or of its last text
    /// part. No turn is begun after it.
    ///
    /// # Errors
    /// As there; and the last message has no text, or the template does not show it.
    pub fn render_continuing(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        extra: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let mut messages = messages::normalize(messages, self.form)?;
        let text = messages
            .last_mut()
            .filter(|message| message.get("tool_calls").is_none())
            .and_then(|message| text_of(&mut message["content"]))
            .ok_or_else(|| not_continued("the last message has no text to continue"))?;
        let given = text.trim().to_owned();
        text.push_str(MARK);
        let rendered = self.render_raw(&messages, tools, false, extra)?;
        before_mark(rendered, &given)
    }
}

/// The text of a content: the string, or that of the last part that has one.
fn text_of(content: &mut Value) -> Option<&mut String> {
    let text = match content {
        Value::Array(parts) => parts
            .iter_mut()
            .rev()
            .find_map(|part| part.get_mut("text"))?,
        other => other,
    };
    match text {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn before_mark(mut rendered: String, given: &str) -> Result<String, TemplateError> {
    let at = rendered
        .rfind(MARK.trim_end())
        .filter(|_| rendered.contains(given))
        .ok_or_else(|| {
            not_continued(
                "this model's chat template does not show the last message as it is, so that it \
                 cannot be continued",
            )
        })?;
    let spaced = rendered[at..].starts_with(MARK);
    rendered.truncate(at);
    if !spaced {
        // It trims messages, and would have trimmed the space that the text itself ends with.
        rendered.truncate(rendered.trim_end().len());
    }
    Ok(rendered)
}

fn not_continued(reason: &str) -> TemplateError {
    TemplateError::NotContinued(format!("Invalid 'continue_final_message': {reason}."))
}
