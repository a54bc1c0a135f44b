//! Reading an answer that has passed: what it says, and whether it says anything. Pure.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sluice_engine::request::FinishReason;

use super::body::Kept;

#[cfg(test)]
mod tests;

/// What the first choice of an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its text.
    pub(crate) text: String,
    /// Names and arguments of its calls.
    pub(crate) calls: Vec<(String, String)>,
    /// A refusal in the protocol's own words.
    pub(crate) refused: bool,
    /// A choice was found at all; embeddings and scores have none.
    pub(crate) choice: bool,
}

/// What the analysis wants to know of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) empty: bool,
    pub(crate) refused: bool,
    pub(crate) violation: bool,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    message: Option<Message>,
    delta: Option<Message>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<usize>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

impl Said {
    /// Reads an answer, or the beginning of one: what cannot be read is passed over.
    pub(crate) fn read(kept: &Kept) -> Self {
        let mut said = Self::default();
        if kept.events {
            let lines = kept.bytes.split(|byte| *byte == b'\n');
            for event in lines.filter_map(|line| line.strip_prefix(b"data:")) {
                said.take(event);
            }
        } else {
            said.take(&kept.bytes);
        }
        said
    }

    fn take(&mut self, json: &[u8]) {
        let Ok(body) = serde_json::from_slice::<Body>(json) else {
            return;
        };
        for choice in body.choices.into_iter().filter(|choice| choice.index == 0) {
            self.choice = true;
            self.text += choice.text.as_deref().unwrap_or_default();
            self.refused |= choice.finish_reason.as_deref() == Some("content_filter");
            let message = choice.message.or(choice.delta).unwrap_or_default();
            self.text += message.content.as_deref().unwrap_or_default();
            self.refused |= message.refusal.is_some_and(|refusal| !refusal.is_empty());
            let calls = message.tool_calls.unwrap_or_default();
            for (place, call) in calls.into_iter().enumerate() {
                self.take_call(call.index.unwrap_or(place), call.function);
            }
        }
    }

    /// A call, or a fragment of one. An index out of order is not filled up to: it would
    /// let an answer reserve memory.
    fn take_call(&mut self, index: usize, function: Option<Function>) {
        let Some(function) = function else { return };
        if index >= self.calls.len() {
            self.calls.push((String::new(), String::new()));
        }
        let last = self.calls.len() - 1;
        let (name, arguments) = &mut self.calls[index.min(last)];
        *name += function.name.as_deref().unwrap_or_default();
        *arguments += function.arguments.as_deref().unwrap_or_default();
    }

    /// Text and calls as one text, for a comparison.
    pub(crate) fn into_text(self) -> String {
        let mut text = self.text;
        for (name, arguments) in self.calls {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{name}({arguments})");
        }
        text
    }
}

impl Facts {
    /// Of an answer that ended for `finish`. What lies beyond the part that was kept is
    /// taken to be in order.
    pub(crate) fn of(kept: &Kept, finish: Option<FinishReason>) -> Self {
        let said = Said::read(kept);
        let silent = said.text.trim().is_empty() && said.calls.is_empty();
        let complete = kept.whole && finish == Some(FinishReason::Stop);
        let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
        let broken_call = said.calls.iter().any(|(_, arguments)| !is_json(arguments));
        let broken_text = kept.structured && said.calls.is_empty() && !is_json(&said.text);
        Self {
            empty: said.choice && kept.whole && silent && !said.refused,
            refused: said.refused || refuses(&said.text),
            violation: said.choice && complete && (broken_call || broken_text),
        }
    }
}

/// Characters at the beginning of an answer in which a refusal is looked for.
const OPENING: usize = 120;

/// How models begin to refuse, in lower case and with plain apostrophes.
const REFUSALS: [&str; 20] = [
    "i can't help",
    "i can't assist",
    "i can't provide",
    "i can't answer",
    "i cannot help",
    "i cannot assist",
    "i cannot provide",
    "i cannot answer",
    "i am unable to",
    "i'm unable to",
    "i am not able to",
    "i'm not able to",
    "i won't be able to",
    "as an ai language model",
    "我无法",
    "我不能",
    "无法提供",
    "无法回答",
    "不能回答",
    "作为一个人工智能",
];

/// Whether a text begins like a refusal. A word list, not a judge: it is good for the
/// difference between two revisions on the same traffic, not for one answer.
#[must_use]
pub fn refuses(text: &str) -> bool {
    let opening: String = text.trim_start().chars().take(OPENING).collect();
    let opening = opening.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|refusal| opening.contains(refusal))
}
