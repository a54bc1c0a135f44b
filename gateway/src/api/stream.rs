//! An answer as server-sent events, whatever its chunks look like.

use std::sync::Arc;

use bytes::BytesMut;
use http::Response;
use sluice_engine::request::SampledToken;
use sluice_engine::text::{PromptToken, TextEvent};

use super::ask::Unanswered;
use super::choices::{Choices, UsageObject, finish_word, lost, not_begun, refused, whole_word};
use super::sse;
use crate::error::ApiError;
use crate::{Body, Outcome};

/// Writes the chunks of one endpoint.
pub(crate) trait ChunkForm: Send + 'static {
    /// The prompt, where it is echoed.
    fn prompt(&mut self, out: &mut BytesMut, index: usize, tokens: &[PromptToken]);
    /// A piece of a choice. May write nothing.
    fn delta(&mut self, out: &mut BytesMut, index: usize, text: String, tokens: &[SampledToken]);
    /// The end of a choice; `word` is `stop` or `length`.
    fn finish(&mut self, out: &mut BytesMut, index: usize, word: &'static str);
    /// The usage, when the client asked for it.
    fn usage(&mut self, out: &mut BytesMut, usage: UsageObject);
}

/// Streams an answer. The status is sent with the first event, so that a request
/// which fails before it still gets a status of its own.
pub(crate) async fn respond<F: ChunkForm>(
    mut choices: Choices,
    form: F,
    outcome: Arc<Outcome>,
) -> Result<Response<Body>, Unanswered> {
    let first = choices.next().await;
    match &first {
        Some((_, TextEvent::Failed(reason))) => return Err(lost(reason).into()),
        Some((_, TextEvent::NotBegun(reason))) => {
            return Err(Unanswered::NotBegun(not_begun(reason)));
        }
        Some((_, TextEvent::Refused(reason))) => return Err(refused(reason).into()),
        Some((_, TextEvent::Finished(finished))) => {
            whole_word(finished.reason, &outcome)?;
        }
        _ => {}
    }
    let mut answer = Streamed {
        choices,
        form,
        outcome,
        done: false,
    };
    let mut head = BytesMut::with_capacity(1024);
    answer.take(first, &mut head);
    answer.drain(&mut head);
    Ok(sse::response(head, answer))
}

struct Streamed<F> {
    choices: Choices,
    form: F,
    outcome: Arc<Outcome>,
    done: bool,
}

impl<F: ChunkForm> sse::EventSource for Streamed<F> {
    async fn fill(&mut self, out: &mut BytesMut) {
        // An event may write nothing: text held back for a stop string.
        while out.is_empty() && !self.done {
            let event = self.choices.next().await;
            self.take(event, out);
        }
        self.drain(out);
    }
}

impl<F: ChunkForm> Streamed<F> {
    /// What has arrived meanwhile goes into the same frame.
    fn drain(&mut self, out: &mut BytesMut) {
        while !self.done && out.len() < sse::FRAME {
            let Some(event) = self.choices.ready() else {
                return;
            };
            self.take(Some(event), out);
        }
    }

    fn take(&mut self, event: Option<(usize, TextEvent)>, out: &mut BytesMut) {
        let Some((index, event)) = event else {
            return self.end(out);
        };
        match event {
            TextEvent::Prompt(tokens) => self.form.prompt(out, index, &tokens),
            TextEvent::Delta { text, tokens } => self.form.delta(out, index, text, &tokens),
            TextEvent::Failed(reason) => self.fail(&lost(&reason), out),
            TextEvent::NotBegun(reason) => self.fail(&not_begun(&reason), out),
            TextEvent::Refused(reason) => self.fail(&refused(&reason), out),
            TextEvent::Finished(finished) => match finish_word(finished.reason, &self.outcome) {
                Err(error) => self.fail(&error, out),
                Ok(word) => {
                    self.form.finish(out, index, word);
                    if self.choices.running() == 0 {
                        self.end(out);
                    }
                }
            },
        }
    }

    /// The status has been sent: an error is an event, and the last but one.
    fn fail(&mut self, error: &ApiError, out: &mut BytesMut) {
        sse::push(out, error.to_json().as_bytes());
        out.extend_from_slice(sse::DONE);
        self.done = true;
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.form.usage(out, self.choices.usage().into());
        out.extend_from_slice(sse::DONE);
        self.done = true;
    }
}
