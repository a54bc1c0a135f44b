//! From a row to a request, and from the answer to what metrics are computed of. Values only: the sending is
//! [`asker`](super::asker)'s.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::plan::{Ask, AskKind};
use super::rows::Row;
use crate::evaluation::sample::{Input, Message, Output, Reference};

/// A row as it is asked with one prompt version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    pub(super) input: Input,
    pub(super) reference: Reference,
    /// Of `rank`: id and text.
    documents: Vec<(String, String)>,
    /// Of `likelihood`: comes before the text and is not scored.
    context: String,
}

/// An answer with what came along.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) output: Output,
    /// Why a generation ended: `stop`, `length`.
    pub(super) finish_reason: Option<String>,
}

/// Makes the case of a row; `messages` is what a prompt version made of it.
///
/// # Errors
/// Names the row and the column, and what would be right.
pub(super) fn case(ask: &Ask, row: &Row, messages: Option<Vec<Message>>) -> Result<Case, String> {
    let fail = |problem: String| format!("row {}: {problem}", row.item);
    let input = match messages {
        Some(messages) => rendered(ask.kind, messages).map_err(fail)?,
        None => given(ask, row).map_err(fail)?,
    };
    let documents = match ask.kind {
        AskKind::Rank => documents(ask, row).map_err(fail)?,
        _ => Vec::new(),
    };
    let context = match (
        ask.kind,
        row.columns
            .get(ask.columns.context.as_deref().unwrap_or("context")),
    ) {
        (AskKind::Likelihood, Some(Value::String(context))) => context.clone(),
        _ => String::new(),
    };
    Ok(Case {
        input,
        reference: reference(ask, row).map_err(fail)?,
        documents,
        context,
    })
}

fn rendered(kind: AskKind, messages: Vec<Message>) -> Result<Input, String> {
    if kind == AskKind::Chat {
        return Ok(Input::Messages(messages));
    }
    match <[Message; 1]>::try_from(messages) {
        Ok([only]) => Ok(Input::Prompt(only.content)),
        Err(several) => Err(format!(
            "the prompt has {} messages; a completion takes one",
            several.len()
        )),
    }
}

fn given(ask: &Ask, row: &Row) -> Result<Input, String> {
    let column = ask.input();
    let value = row.columns.get(column);
    if value.is_none() {
        return Err(lacks(column, row));
    }
    if ask.kind != AskKind::Chat {
        return match value {
            Some(Value::String(text)) if !text.is_empty() => Ok(match ask.kind {
                AskKind::Classify => Input::Texts(vec![text.clone()]),
                _ => Input::Prompt(text.clone()),
            }),
            _ => Err(format!("`{column}` should be a text that is not empty")),
        };
    }
    let messages = match value {
        // A question alone is a conversation of one message.
        Some(Value::String(text)) => vec![Message {
            role: "user".into(),
            content: text.clone(),
        }],
        Some(value) => Vec::deserialize(value).map_err(|error| {
            format!("`{column}` should be a list of messages of role and content: {error}")
        })?,
        None => Vec::new(),
    };
    if messages.is_empty() {
        return Err(format!(
            "`{column}` should be a list of messages, or a text"
        ));
    }
    Ok(Input::Messages(messages))
}

fn reference(ask: &Ask, row: &Row) -> Result<Reference, String> {
    let column = ask.reference();
    let Some(value) = row.columns.get(column).filter(|value| !value.is_null()) else {
        return match ask.columns.reference {
            Some(_) => Err(format!("the reference: {}", lacks(column, row))),
            None => Ok(Reference::Nothing),
        };
    };
    if matches!(ask.kind, AskKind::Rank | AskKind::Retrieve) {
        return relevance(value).map(Reference::Relevance).ok_or_else(|| {
            format!("`{column}` should be an object of document ids and gains, or a list of ids")
        });
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(Reference::Texts(match value {
        Value::Array(any) if any.iter().all(Value::is_string) => any.iter().map(text).collect(),
        one => vec![text(one)],
    }))
}

/// That a row does not have a column that is asked for, and which ones it has.
fn lacks(column: &str, row: &Row) -> String {
    const SHOWN: usize = 20;
    if row.columns.contains_key(column) {
        return format!("the column `{column}` is null");
    }
    let mut names: Vec<&str> = row.columns.keys().map(String::as_str).take(SHOWN).collect();
    if row.columns.len() > SHOWN {
        names.push("…");
    }
    format!(
        "has no column `{column}`; it has {}",
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    )
}

fn relevance(value: &Value) -> Option<BTreeMap<String, f64>> {
    match value {
        Value::Object(gains) => gains
            .iter()
            .map(|(id, gain)| Some((id.clone(), gain.as_f64()?)))
            .collect(),
        Value::Array(ids) => ids
            .iter()
            .map(|id| Some((id.as_str()?.to_owned(), 1.0)))
            .collect(),
        _ => None,
    }
}

fn documents(ask: &Ask, row: &Row) -> Result<Vec<(String, String)>, String> {
    let column = ask.columns.documents.as_deref().unwrap_or("documents");
    if !row.columns.contains_key(column) {
        return Err(lacks(column, row));
    }
    let pairs: Option<Vec<_>> = match row.columns.get(column) {
        Some(Value::Object(texts)) => texts
            .iter()
            .map(|(id, text)| Some((id.clone(), text.as_str()?.to_owned())))
            .collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                Some((
                    item["id"].as_str()?.to_owned(),
                    item["text"].as_str()?.to_owned(),
                ))
            })
            .collect(),
        _ => None,
    };
    pairs.filter(|pairs| !pairs.is_empty()).ok_or_else(|| {
        format!(
            "`{column}` should be an object of ids and texts, or a list of objects with id and text"
        )
    })
}

/// Path and body of the request for a case. `sampling` is the evaluation's and the prompt version's.
pub(super) fn request(
    kind: AskKind,
    model: &str,
    case: &Case,
    sampling: &Map<String, Value>,
) -> (&'static str, Value) {
    let (path, own) = match (kind, &case.input) {
        (AskKind::Likelihood, Input::Prompt(text)) => {
            let prompt = format!("{}{text}", case.context);
            let scored = json!({"prompt": prompt, "echo": true, "logprobs": 0, "max_tokens": 0});
            ("/v1/completions", scored)
        }
        (AskKind::Rank, Input::Prompt(query)) => {
            let texts: Vec<&str> = case.documents.iter().map(|(_, text)| &**text).collect();
            ("/v1/rerank", json!({"query": query, "documents": texts}))
        }
        (_, Input::Prompt(prompt)) => ("/v1/completions", json!({"prompt": prompt})),
        (_, Input::Messages(messages)) => ("/v1/chat/completions", json!({"messages": messages})),
        (_, Input::Texts(texts)) => ("/v1/classify", json!({"input": texts})),
    };
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    if kind == AskKind::Chat || kind == AskKind::Completion {
        // The same question should get the same answer, unless chance is asked for.
        body.insert("temperature".into(), 0.into());
    }
    body.extend(sampling.clone());
    if let Value::Object(own) = own {
        body.extend(own);
    }
    (path, Value::Object(body))
}

/// What an answer says.
///
/// # Errors
/// It is not of the form that the endpoint promises.
pub(super) fn read(kind: AskKind, case: &Case, body: &[u8]) -> Result<Said, String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))?;
    let said = |output| Said {
        output,
        finish_reason: None,
    };
    match kind {
        AskKind::Chat | AskKind::Completion => generated(&body),
        AskKind::Likelihood => likelihood(case, &body).map(said),
        AskKind::Rank => ranking(case, &body).map(said),
        AskKind::Classify => match &body["data"][0]["label"] {
            Value::String(label) => Ok(said(Output::Text(label.clone()))),
            _ => Err("the answer has no label".into()),
        },
        AskKind::Retrieve => Err("a query is asked for its embedding".into()),
    }
}

fn generated(body: &Value) -> Result<Said, String> {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let text = match (&choice["text"], &message["content"], &message["tool_calls"]) {
        (Value::String(text), ..) | (_, Value::String(text), _) => text.clone(),
        (.., calls @ Value::Array(_)) => calls.to_string(),
        _ => return Err("the answer has no text".into()),
    };
    Ok(Said {
        output: Output::Text(text),
        finish_reason: choice["finish_reason"].as_str().map(str::to_owned),
    })
}

/// The scored tokens of the text. The first token of all has no probability, and its bytes count as little as those
/// of the context.
fn likelihood(case: &Case, body: &Value) -> Result<Output, String> {
    let given = &body["choices"][0]["logprobs"];
    let list = |name: &str| {
        given[name]
            .as_array()
            .ok_or(format!("the answer has no {name}"))
    };
    let (logprobs, offsets) = (list("token_logprobs")?, list("text_offset")?);
    let Input::Prompt(text) = &case.input else {
        return Err("a likelihood is that of a text".into());
    };
    let whole = format!("{}{text}", case.context);
    let begin = case.context.chars().count() as u64;
    let length = whole.chars().count() as u64;
    // A token that marks the beginning has an offset, and a text that is not the text's.
    let marks = match list("tokens")?.first().and_then(Value::as_str) {
        Some(first) if !whole.starts_with(first) => first.chars().count() as u64,
        _ => 0,
    };
    let mut tokens = Vec::new();
    let mut first_scored = None;
    for (logprob, offset) in logprobs.iter().zip(offsets) {
        let Some(offset) = offset.as_u64() else {
            return Err("text_offset holds something else than numbers".into());
        };
        let offset = offset.saturating_sub(marks);
        if let Some(logprob) = logprob
            .as_f64()
            .filter(|_| offset >= begin && offset < length)
        {
            first_scored.get_or_insert(offset);
            tokens.push(logprob);
        }
    }
    let before = usize::try_from(first_scored.unwrap_or(length)).unwrap_or(usize::MAX);
    let scored: usize = whole.chars().skip(before).map(char::len_utf8).sum();
    Ok(Output::Logprobs {
        tokens,
        bytes: scored as u64,
    })
}

fn ranking(case: &Case, body: &Value) -> Result<Output, String> {
    let results = body["results"]
        .as_array()
        .ok_or("the answer has no results")?;
    let scored = results.iter().map(|result| {
        let index = usize::try_from(result["index"].as_u64()?).ok()?;
        let (id, _) = case.documents.get(index)?;
        Some((id.clone(), result["relevance_score"].as_f64()?))
    });
    let ranking: Option<BTreeMap<String, f64>> = scored.collect();
    ranking
        .map(Output::Ranking)
        .ok_or_else(|| "a result names no document or has no score".into())
}

/// What an input says, for a judge to read.
pub(super) fn question(input: &Input) -> String {
    match input {
        Input::Messages(messages) => match &messages[..] {
            [only] => only.content.clone(),
            several => several
                .iter()
                .map(|message| format!("{}: {}", message.role, message.content))
                .collect::<Vec<_>>()
                .join("\n\n"),
        },
        Input::Prompt(text) => text.clone(),
        Input::Texts(texts) => texts.join("\n"),
    }
}

/// Why an answer is none, in the words of the server's error.
pub(super) fn error_text(status: u16, body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = parsed["error"]["message"].as_str().map(str::to_owned);
    let message =
        message.unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(300).collect());
    format!("HTTP {status}: {message}")
}

#[cfg(test)]
mod tests;
