//! A completion as one object.

use http::Response;
use serde::Serialize;
use sluice_engine::text::TextEvent;

use super::Answer;
use super::logprobs::Logprobs;
use super::writer::Part;
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

#[derive(Serialize, Default)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

impl Choice {
    fn add(&mut self, part: Part) {
        self.text += &part.text;
        if let Some(later) = part.logprobs {
            self.logprobs.get_or_insert_default().append(later);
        }
        if let Some(later) = part.token_ids {
            self.token_ids.get_or_insert_default().extend(later);
        }
        if let Some(prompt) = part.prompt_ids {
            self.prompt_token_ids = Some(prompt.to_vec());
        }
    }
}

/// Waits for all choices.
pub(super) async fn respond(mut answer: Answer) -> Result<Response<Body>, Unanswered> {
    let numbered = |index| Choice {
        index,
        ..Choice::default()
    };
    let mut drafts: Vec<Choice> = (0..answer.progress.len()).map(numbered).collect();
    while let Some((index, event)) = answer.choices.next().await {
        let (draft, progress) = (&mut drafts[index], &mut answer.progress[index]);
        match event {
            TextEvent::Prompt(tokens) => draft.add(progress.prompt(&tokens)),
            TextEvent::Delta { text, tokens } => draft.add(progress.delta(&text, &tokens)),
            TextEvent::Finished(finished) => {
                // Of a choice without a token the echo is still due.
                draft.add(progress.delta("", &[]));
                draft.finish_reason = whole_word(finished.reason, &answer.outcome)?;
            }
            TextEvent::Failed(reason) => return Err(lost(&reason).into()),
            TextEvent::NotBegun(reason) => {
                return Err(Unanswered::NotBegun(not_begun(&reason)));
            }
            TextEvent::Refused(reason) => return Err(refused(&reason).into()),
        }
    }
    Ok(json::ok(&Completion {
        identity: &answer.identity,
        choices: drafts,
        usage: answer.choices.usage().into(),
    })?)
}
