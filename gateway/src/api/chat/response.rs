//! A chat answer as one object.

use http::Response;
use serde::Serialize;
use sluice_engine::text::TextEvent;

use super::Answer;
use super::logprobs::{self, Entry};
use super::turn::Piece;
use crate::Body;
use crate::api::ask::Unanswered;
use crate::api::choices::{UsageObject, lost, not_begun, refused, whole_word};
use crate::api::chunk::Identity;
use crate::api::json;

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    identity: &'a Identity,
    choices: Vec<Choice>,
    usage: UsageObject,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    /// `null` when the answer is nothing but calls.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    annotations: [(); 0],
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: CalledFunction,
}

#[derive(Serialize)]
struct CalledFunction {
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Entry>,
    refusal: Option<Vec<Entry>>,
}

/// What one choice has said so far.
#[derive(Default)]
struct Draft {
    content: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<Entry>,
    reason: &'static str,
}

impl Draft {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Content(text) => self.content += &text,
            Piece::CallStart { id, name, .. } => self.calls.push(ToolCall {
                id,
                r#type: "function",
                function: CalledFunction {
                    name,
                    arguments: String::new(),
                },
            }),
            Piece::CallArguments { index, fragment } => {
                if let Some(call) = self.calls.get_mut(index) {
                    call.function.arguments += &fragment;
                }
            }
        }
    }

    fn into_choice(self, index: usize, logprobs: bool) -> Choice {
        let only_calls = self.content.is_empty() && !self.calls.is_empty();
        Choice {
            index,
            message: Message {
                role: "assistant",
                content: (!only_calls).then_some(self.content),
                refusal: None,
                tool_calls: self.calls,
                annotations: [],
            },
            logprobs: logprobs.then_some(Logprobs {
                content: self.logprobs,
                refusal: None,
            }),
            finish_reason: self.reason,
        }
    }
}

/// Waits for all choices.
pub(super) async fn respond(mut answer: Answer) -> Result<Response<Body>, Unanswered> {
    let begun = || Draft {
        content: answer.echo.clone().unwrap_or_default(),
        ..Draft::default()
    };
    let mut drafts: Vec<Draft> = answer.turns.iter().map(|_| begun()).collect();
    while let Some((index, event)) = answer.choices.next().await {
        let (draft, turn) = (&mut drafts[index], &mut answer.turns[index]);
        match event {
            TextEvent::Prompt(_) => {}
            TextEvent::Delta { text, tokens } => {
                turn.push(text, |piece| draft.take(piece));
                if answer.logprobs {
                    let entries = logprobs::entries(&answer.model.tokenizer, &tokens);
                    draft.logprobs.extend(entries);
                }
            }
            TextEvent::Finished(finished) => {
                turn.finish(|piece| draft.take(piece));
                draft.reason = turn.reason(whole_word(finished.reason, &answer.outcome)?);
            }
            TextEvent::Failed(reason) => return Err(lost(&reason).into()),
            TextEvent::NotBegun(reason) => {
                return Err(Unanswered::NotBegun(not_begun(&reason)));
            }
            TextEvent::Refused(reason) => return Err(refused(&reason).into()),
        }
    }
    let choices = drafts
        .into_iter()
        .enumerate()
        .map(|(index, draft)| draft.into_choice(index, answer.logprobs))
        .collect();
    Ok(json::ok(&Completion {
        identity: &answer.identity,
        choices,
        usage: answer.choices.usage().into(),
    })?)
}
