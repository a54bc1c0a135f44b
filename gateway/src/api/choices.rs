//! The sequences of one request as one stream of events, with the books kept.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, SelectAll, Stream};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use sluice_engine::SubmitError;
use sluice_engine::request::{FinishReason, Finished, Meter, Usage};
use sluice_engine::text::{TextEvent, TextStream};

use super::ask::{Told, Unanswered};
use crate::context::{Fault, Outcome};
use crate::error::ApiError;
use crate::release::Class;

type Events = Pin<Box<dyn Stream<Item = (usize, TextEvent)> + Send>>;

/// All choices of one request. Dropping it cancels what still runs.
pub(crate) struct Choices {
    events: SelectAll<Events>,
    prompts: Vec<usize>,
    outcome: Arc<Outcome>,
    ledger: Ledger,
}

impl Choices {
    /// `per_prompt` consecutive streams share one prompt, which is billed once.
    pub(crate) fn new(streams: Vec<TextStream>, per_prompt: usize, outcome: Arc<Outcome>) -> Self {
        let meters = streams.iter().map(|text| text.meter().clone()).collect();
        let prompts = streams.iter().map(TextStream::prompt_tokens).collect();
        let mut events = SelectAll::new();
        for (index, text) in streams.into_iter().enumerate() {
            events.push(numbered(index, text));
        }
        Self {
            events,
            prompts,
            ledger: Ledger::new(meters, per_prompt, Arc::clone(&outcome)),
            outcome,
        }
    }

    /// The next event of any choice; `None` once all have ended.
    pub(crate) async fn next(&mut self) -> Option<(usize, TextEvent)> {
        let asked = Instant::now();
        let event = self.events.next().await;
        self.outcome.add_target_time(asked.elapsed());
        self.note(event)
    }

    /// An event that has already arrived.
    pub(crate) fn ready(&mut self) -> Option<(usize, TextEvent)> {
        let event = self.events.next().now_or_never().flatten();
        self.note(event)
    }

    /// Choices that have not ended.
    pub(crate) fn running(&self) -> usize {
        self.ledger.running.iter().flatten().count()
    }

    /// Tokens of the prompts of all choices.
    pub(crate) fn prompts(&self) -> &[usize] {
        &self.prompts
    }

    /// All tokens of the choices that have ended.
    pub(crate) fn usage(&self) -> Usage {
        self.ledger.total
    }

    fn note(&mut self, event: Option<(usize, TextEvent)>) -> Option<(usize, TextEvent)> {
        if let Some((index, event)) = &event {
            match event {
                TextEvent::Delta { tokens, .. } if !tokens.is_empty() => {
                    self.outcome.token();
                }
                TextEvent::Finished(finished) => self.ledger.finished(*index, finished),
                TextEvent::Failed(_) | TextEvent::NotBegun(_) => {
                    self.ledger.close(*index);
                    self.outcome.set_fault(Fault::Server);
                }
                TextEvent::Refused(_) => {
                    self.ledger.close(*index);
                    self.outcome.set_fault(Fault::Client);
                }
                TextEvent::Delta { .. } | TextEvent::Prompt(_) => {}
            }
        }
        event
    }
}

fn numbered(index: usize, text: TextStream) -> Events {
    Box::pin(stream::unfold(text, move |mut text| async move {
        let event = text.next().await?;
        Some(((index, event), text))
    }))
}

/// Tokens by choice, so that a request which ends early is billed for what was computed for it.
struct Ledger {
    /// What was computed for the choices that still run.
    running: Vec<Option<Meter>>,
    per_prompt: usize,
    total: Usage,
    outcome: Arc<Outcome>,
}

impl Ledger {
    fn new(meters: Vec<Meter>, per_prompt: usize, outcome: Arc<Outcome>) -> Self {
        Self {
            running: meters.into_iter().map(Some).collect(),
            per_prompt: per_prompt.max(1),
            total: Usage::default(),
            outcome,
        }
    }

    fn finished(&mut self, index: usize, finished: &Finished) {
        let meter = self.running.get_mut(index).and_then(Option::take);
        self.outcome.set_finish(finished.reason);
        self.outcome.add_timings(finished.timings);
        let usage = match finished.reason {
            FinishReason::Stop | FinishReason::Length => finished.usage,
            // It may have ended before its prompt was through, or before its turn came.
            FinishReason::Cancelled | FinishReason::Deadline => {
                meter.map_or(finished.usage, |meter| meter.usage())
            }
        };
        self.bill(index, usage);
    }

    /// Ends a choice that did not finish by itself; false when it had ended before.
    fn close(&mut self, index: usize) -> bool {
        let Some(meter) = self.running.get_mut(index).and_then(Option::take) else {
            return false;
        };
        self.bill(index, meter.usage());
        true
    }

    fn bill(&mut self, index: usize, mut usage: Usage) {
        if !index.is_multiple_of(self.per_prompt) {
            (usage.prompt, usage.cached) = (0, 0);
        }
        self.total.prompt += usage.prompt;
        self.total.cached += usage.cached;
        self.total.completion += usage.completion;
        self.outcome.add_usage(usage);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        for index in 0..self.running.len() {
            if self.close(index) {
                self.outcome.set_finish(FinishReason::Cancelled);
            }
        }
    }
}

/// Why a choice ended, in OpenAI's word; an error where none of them fits.
///
/// A deadline that passes is an error even when text has come out before:
/// `length` would tell the client that its own limit was reached.
pub(crate) fn finish_word(
    reason: FinishReason,
    outcome: &Outcome,
) -> Result<&'static str, ApiError> {
    match reason {
        FinishReason::Stop => Ok("stop"),
        FinishReason::Length => Ok("length"),
        FinishReason::Deadline => {
            outcome.set_fault(Fault::Server);
            Err(ApiError::deadline())
        }
        FinishReason::Cancelled => Err(ApiError::unavailable(
            "The server ended the generation before it was complete.",
        )),
    }
}

/// The same before the client has seen anything: another replica may begin anew what this
/// one had to end.
pub(crate) fn whole_word(
    reason: FinishReason,
    outcome: &Outcome,
) -> Result<&'static str, Unanswered> {
    finish_word(reason, outcome).map_err(|error| match reason {
        FinishReason::Cancelled => Unanswered::NotBegun(error),
        FinishReason::Stop | FinishReason::Length | FinishReason::Deadline => error.into(),
    })
}

/// A sequence was lost. The engine's words go to the log, not to the client.
pub(crate) fn lost(reason: &str) -> ApiError {
    tracing::error!(reason, "generation failed");
    ApiError::internal("The model failed while it was answering.")
}

/// The request's grammar was more than the matcher's limits allow. Its words hold nothing of the
/// output.
pub(crate) fn refused(reason: &str) -> ApiError {
    ApiError::bad_request(
        "grammar_too_complex",
        format!(
            "The output cannot be held to what the request asks for: {reason}. Use a simpler \
             schema, pattern or grammar."
        ),
    )
}

/// The executor ended before the sequence had begun; another one may take it.
pub(crate) fn not_begun(reason: &str) -> ApiError {
    tracing::debug!(reason, "a sequence was not begun");
    ApiError::unavailable("The model was lost before it began to answer.")
}

/// A sequence that the engine does not take. `field` holds what was too long.
pub(crate) fn not_submitted(error: SubmitError, field: &'static str) -> Unanswered {
    let told = |error| ApiError::from_submit(error, field);
    match error {
        SubmitError::Unavailable(_) => Unanswered::NotBegun(told(error)),
        SubmitError::DeadlineUnmeetable { .. } => {
            Unanswered::Failed(Class::OwnDeadline, Told::Error(told(error)))
        }
        SubmitError::TooLong { .. }
        | SubmitError::Invalid { .. }
        | SubmitError::QueueFull { .. } => told(error).into(),
    }
}

/// `usage` of chat and completions.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct UsageObject {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
    audio_tokens: usize,
}

#[derive(Debug, Clone, Copy, Serialize, Default)]
struct CompletionDetails {
    reasoning_tokens: usize,
    audio_tokens: usize,
    accepted_prediction_tokens: usize,
    rejected_prediction_tokens: usize,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.prompt + usage.completion,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached,
                audio_tokens: 0,
            },
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}
